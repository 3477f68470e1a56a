"""A run repeats bit for bit, goes on after an interruption as if there had been none, and is never half there."""

import errno
import io
import json
import math
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

import regard
from regard.data.batch import UNKNOWN
from regard.data.corpora import Corpus
from regard.data.corpus import pair_hash
from regard.data.formats import Pair
from regard.errors import RegardError
from regard.training import checkpoint, loop
from regard.training.run import Run
from regard.training.train import find_device

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
MODELS = ["rnn", "bahdanau", "transformer"]


def weights(run):
    return (run.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_repeats_a_run_bit_for_bit_and_another_seed_does_not(trained, name):
    first, again, other = (trained(name, seed=seed) for seed in (3, 3, 4))
    assert weights(again) == weights(first) != weights(other)


def test_what_else_a_program_drew_at_random_changes_no_run(trained):
    first = trained()
    torch.rand(7)
    assert weights(trained(report=lambda progress: torch.rand(3))) == weights(first)


def test_every_step_of_every_seed_draws_numbers_of_its_own(trained):
    drawn = []
    for seed in (1, 2):
        trained(seed=seed, report=lambda progress: drawn.append(torch.initial_seed()))
    assert len(set(drawn)) == 24


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "wsd"])
def test_a_run_by_the_clock_is_repeated_by_its_steps_weight_for_weight(trained, schedule):
    by_clock = trained(minutes=0.008, schedule=schedule)
    assert by_clock.facts["status"] == "finished"
    by_steps = trained(steps=by_clock.facts["steps"], schedule=schedule)
    assert weights(by_steps) == weights(by_clock)
    if schedule == "inverse_sqrt":
        assert by_clock.facts["seconds"] >= 0.48


# a validation comes every fourth step, so these are before, between, at one and at the last
@pytest.mark.parametrize(("name", "step"), [*((name, 7) for name in MODELS), *(("rnn", step) for step in (1, 8, 12))])
def test_a_run_goes_on_after_ctrl_c_as_if_it_had_never_stopped(trained, ctrl_c, name, step):
    settings = {"average": 2, "accumulate": 2, "model": {"dropout": 0.2}}
    whole = trained(name, **settings)
    handler = signal.getsignal(signal.SIGINT)
    stopped = trained(name, report=ctrl_c(step), **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (stopped.facts["status"], stopped.facts["steps"]) == ("interrupted", step)
    steps = []
    resumed = trained(name, folder=stopped.path, resume=True, report=lambda told: steps.append(told.step), **settings)
    assert steps == list(range(step + 1, 13))
    assert (resumed.facts["status"], resumed.facts["steps"]) == ("finished", 12)
    assert weights(resumed) == weights(whole)


def test_sigterm_saves_a_run_as_ctrl_c_does(trained, ctrl_c):
    handler = signal.getsignal(signal.SIGTERM)
    stopped = trained(report=ctrl_c(7, signals=(signal.SIGTERM,)))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (stopped.facts["status"], stopped.facts["steps"]) == ("interrupted", 7)
    assert weights(trained(folder=stopped.path, resume=True)) == weights(trained())


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_of_either_kind_ends_at_once(trained, ctrl_c, signals):
    with pytest.raises(KeyboardInterrupt):
        trained(report=ctrl_c(2, signals=signals))


def test_what_an_interrupted_run_is_left_with_costs_the_resumed_one_no_checkpoint(trained, ctrl_c, monkeypatch):
    """Where the loss on dev is best at the interruption, and never again as good as before it."""

    def told(losses):
        # each validation asks once, and the end of a training once more
        answers = iter(losses)
        monkeypatch.setattr(loop, "dev_loss", lambda *_: next(answers))

    told([2.0, 3.0, 0.0])
    whole = trained(steps=4, validate_every=2)
    told([2.0, 1.0, 0.0])
    stopped = trained(steps=4, validate_every=2, report=ctrl_c(3))
    told([3.0, 0.0])
    resumed = trained(steps=4, validate_every=2, folder=stopped.path, resume=True)
    assert weights(resumed) == weights(whole)


def test_an_interrupted_run_translates_and_is_told_as_such(trained, ctrl_c):
    stopped = trained(report=ctrl_c(6))
    assert regard.load(stopped.path).translate("one two").text is not None
    card = (stopped.path / "README.md").read_text()
    assert "interrupted after 6 steps" in card
    # a run of six steps would have had other learning rates
    assert "weight for weight" not in card


def test_a_second_ctrl_c_ends_at_once_and_leaves_no_folder(trained, ctrl_c, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path / "out", report=ctrl_c(2, times=2))
    assert signal.getsignal(signal.SIGINT) is handler
    assert os.listdir(tmp_path) == []


def test_a_second_ctrl_c_keeps_what_was_saved_and_the_run_goes_on_from_there(trained, ctrl_c, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path / "out", report=ctrl_c(6, times=2))
    with pytest.raises(RegardError, match=r"out: its training has not ended.*go on with --resume"):
        regard.load(tmp_path / "out")
    steps = []
    resumed = trained(folder=tmp_path / "out", resume=True, report=lambda told: steps.append(told.step))
    assert steps[0] == 5
    assert weights(resumed) == weights(trained())


def test_training_works_where_no_signal_can_be_heard(trained):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(trained()))
    thread.start()
    thread.join()
    assert weights(runs[0]) == weights(trained())


def test_a_run_takes_its_budget_anew_when_it_goes_on(trained, ctrl_c):
    settings = {"schedule": "constant"}
    longer = trained(steps=12, **settings)
    stopped = trained(steps=8, report=ctrl_c(5), **settings)
    resumed = trained(steps=12, folder=stopped.path, resume=True, **settings)
    assert weights(resumed) == weights(longer)
    assert Run.open(stopped.path).recipe.train.steps == 12


def test_the_card_promises_the_same_weights_only_of_a_run_that_went_on_as_it_was(trained, ctrl_c):
    settings = {"schedule": "wsd", "decay": 0.25, "threads": 1}
    # eleven steps in, the learning rate of twelve has begun to fall
    stopped = trained(steps=12, report=ctrl_c(11), **settings)
    resumed = trained(steps=24, folder=stopped.path, resume=True, report=ctrl_c(20), **settings)
    resumed = trained(steps=24, folder=resumed.path, resume=True, **settings)
    assert weights(resumed) != weights(trained(steps=24, **settings))
    assert "weight for weight" not in (resumed.path / "README.md").read_text()
    stopped = trained(steps=12, report=ctrl_c(5), **settings)
    resumed = trained(steps=12, folder=stopped.path, resume=True, **settings)
    assert "`--set train.steps=12 --set train.threads=1`" in (resumed.path / "README.md").read_text()
    stopped = trained(steps=12, report=ctrl_c(5), **settings)
    resumed = trained(steps=12, folder=stopped.path, resume=True, **{**settings, "threads": 2})
    assert "weight for weight" not in (resumed.path / "README.md").read_text()


def test_a_run_by_steps_goes_on_by_the_clock(trained, ctrl_c):
    stopped = trained(steps=8, report=ctrl_c(5))
    minutes = (stopped.facts["seconds"] + 1) / 60
    resumed = trained(minutes=minutes, folder=stopped.path, resume=True)
    assert resumed.facts["steps"] > 8
    assert Run.open(stopped.path).recipe.train.minutes == minutes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.5}, r"began with train\.learning_rate = 0\.001, not 0\.5"),
        ({"seed": 9}, r"began with train\.seed = 1, not 9"),
        ({"model": {"model_dim": 8}}, r"began with model\.model_dim = 16, not 8"),
        ({"model": {"norm": "post"}}, r"began with model\.norm = 'pre', not 'post'"),
        ({"data": {"tokenizer": "bpe"}}, r"began with data\.tokenizer = 'word', not 'bpe'"),
        ({"data": {"vocab_size": 99}}, r"began with data\.vocab_size = 24, not 99"),
        ({"data": {"train": "other.tsv"}}, r"other\.tsv: there is no such file"),
        ({"data": {"train": "-"}}, r"began with data\.train = '.*toy\.tsv', not '-'"),
        ({"data": {"dev": "other.tsv"}}, r"began with data\.dev = None, not '.*other\.tsv'"),
        ({"data": {"corpus": "numbers-en-fr", "train": None}}, r"began with data\.corpus = None, not 'numbers-en-fr'"),
    ],
)
def test_a_run_goes_on_as_it_began_or_not_at_all(trained, ctrl_c, settings, message):
    stopped = trained(report=ctrl_c(5))
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    with pytest.raises(RegardError, match=message):
        trained(folder=stopped.path, resume=True, **settings)
    assert {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()} == before


def test_device_and_threads_may_be_others_when_a_run_goes_on(trained, ctrl_c):
    stopped = trained(report=ctrl_c(5))
    resumed = trained(folder=stopped.path, resume=True, device="auto", threads=2)
    assert (resumed.facts["status"], resumed.facts["threads"]) == ("finished", 2)


def test_data_are_the_same_by_whatever_way_their_path_leads_to_them(trained, toy, ctrl_c, monkeypatch):
    stopped = trained(report=ctrl_c(5))
    monkeypatch.chdir(toy.parent)
    resumed = trained(folder=stopped.path, resume=True, data={"train": f"../{toy.parent.name}/{toy.name}"})
    assert resumed.facts["status"] == "finished"


# the two words are as long as before, so that no number of pairs or tokens tells
@pytest.mark.parametrize("change", [lambda text: text + "one\tun\n" * 20, lambda text: text.replace("one", "two")])
def test_a_run_does_not_go_on_over_other_data_than_it_began_with(trained, toy, tmp_path, ctrl_c, change):
    path = tmp_path / "own.tsv"
    path.write_bytes(toy.read_bytes())
    stopped = trained(report=ctrl_c(5), data={"train": str(path)})
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    path.write_text(change(toy.read_text()))
    with pytest.raises(RegardError, match=r"its train data are not those that it began with; put .*own\.tsv back"):
        trained(folder=stopped.path, resume=True, data={"train": str(path)})
    assert {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()} == before
    # written anew, but the same
    path.write_bytes(toy.read_bytes())
    assert weights(trained(folder=stopped.path, resume=True, data={"train": str(path)})) == weights(trained())


def test_a_run_that_was_killed_knows_the_data_that_it_began_with(trained, toy, tmp_path, ctrl_c):
    path = tmp_path / "own.tsv"
    path.write_bytes(toy.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path / "out", report=ctrl_c(6, times=2), data={"train": str(path)})
    path.write_text(toy.read_text() + "one\tun\n" * 20)
    with pytest.raises(RegardError, match="its train data are not those that it began with"):
        trained(folder=tmp_path / "out", resume=True, data={"train": str(path)})


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"steps": 3}, r"has trained for 5 steps already, which a budget of 3 has no room for; raise train\.steps"),
        ({"steps": 5}, "has trained for 5 steps already"),
        ({"epochs": 1}, r"has trained for \d\.\d\d epochs already.*raise train\.epochs"),
        ({"minutes": 1e-6}, r"has trained for 0\.\d\d minutes already.*raise train\.minutes"),
    ],
)
def test_a_budget_that_is_used_up_already_is_told_with_how_far_the_run_is(trained, ctrl_c, budget, message):
    stopped = trained(batch_tokens=3000, report=ctrl_c(5))
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    with pytest.raises(RegardError, match=message):
        trained(batch_tokens=3000, folder=stopped.path, resume=True, **budget)
    assert {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()} == before


def test_a_finished_run_does_not_go_on(trained):
    run = trained()
    before = weights(run)
    with pytest.raises(RegardError, match="there is nothing to resume; the run is finished"):
        trained(folder=run.path, resume=True)
    assert weights(run) == before


def test_a_folder_that_is_no_run_is_left_alone_by_resume(trained, recipe, tmp_path):
    """A folder of one's own that happens to hold a recipe, as `--out . --resume` would name it."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "recipe.toml").write_text(recipe().to_toml())
    with pytest.raises(RegardError):
        trained(folder=tmp_path, resume=True)
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "recipe.toml"]


def test_a_folder_that_is_there_is_refused_and_left_alone(trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RegardError, match="exists already; choose another --out, or go on with it by --resume"):
        trained(folder=tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_place_below_a_file_is_told(trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RegardError, match="out: cannot be made: Not a directory; choose another --out"):
        trained(folder=tmp_path / "file" / "out")


def test_a_broken_corpus_leaves_no_folder(trained, tmp_path):
    data = tmp_path / "bad.tsv"
    data.write_text("one\tun\ntwo\n")
    with pytest.raises(RegardError, match=r"bad\.tsv:2: 1 column where two are needed"):
        trained(folder=tmp_path / "out", data={"train": str(data)})
    assert os.listdir(tmp_path) == ["bad.tsv"]


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_a_missing_file_is_told_by_its_name_and_leaves_no_folder(trained, toy, tmp_path, missing):
    data = {split: str(toy) for split in ("train", "dev", "test")} | {missing: str(tmp_path / "gone.tsv")}
    with pytest.raises(RegardError, match=r"gone\.tsv: (there is no such file|cannot be read: No such file)"):
        trained(folder=tmp_path / "out", data=data)
    assert os.listdir(tmp_path) == []


def test_a_training_that_breaks_down_before_anything_was_saved_leaves_no_folder(trained, tmp_path):
    with pytest.raises(RegardError, match="training broke down at step 2"):
        trained(folder=tmp_path / "out", learning_rate=1e30, warmup_steps=0)
    assert os.listdir(tmp_path) == []


def fail_on_the_call(number, function):
    """`function`, but on its call of that number the disk is full."""
    calls = iter(range(1, 1000))

    def call(*arguments):
        if next(calls) == number:
            raise FULL
        return function(*arguments)

    return call


def test_a_disk_that_is_full_before_anything_was_saved_is_told_and_leaves_no_folder(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_file", fail_on_the_call(1, checkpoint.save_file))
    with pytest.raises(RegardError, match="cannot be written: No space left on device; free some space"):
        trained(folder=tmp_path / "out")
    assert os.listdir(tmp_path) == []


# of the 3 validations each writes a checkpoint, the weights and the optimiser; the tenth file is the model
@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 10])
def test_a_run_goes_on_after_the_disk_was_full_as_if_it_had_not_been(trained, tmp_path, monkeypatch, number):
    whole = trained()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fail_on_the_call(number, checkpoint.save_file))
        with pytest.raises(RegardError, match="No space left on device"):
            trained(folder=tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".*"))
    # where there is no state to go on from, the weights of the first validation are there
    assert list((tmp_path / "out" / "checkpoints").iterdir())
    assert weights(trained(folder=tmp_path / "out", resume=True)) == weights(whole)


def test_a_finished_run_keeps_what_it_needs_and_nothing_more(trained):
    run = trained()
    assert sorted(os.listdir(run.path)) == [
        "README.md",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.toml",
        "run.json",
        "tokenizer.json",
    ]
    opened = Run.open(run.path)
    assert opened.recipe == run.recipe
    assert opened.facts == run.facts == json.loads((run.path / "run.json").read_text())


def test_a_run_counts_what_it_is(trained, toy):
    run = trained()
    assert run.facts["parameters"] == sum(parameter.numel() for parameter in run.module().parameters())
    assert run.facts["pairs"] == sum(1 for _ in Corpus.from_files(toy).pairs("train"))
    assert run.facts["threads"] == 1


def test_a_text_that_is_too_long_teaches_the_tokenizer_by_every_so_many_pairs(trained, tmp_path, monkeypatch):
    words = ["first", "second"]
    data = {split: str(tmp_path / split) for split in ("train", "dev", "test")}
    for path in data.values():
        Path(path).write_text("".join(f"{word}\t{word}\n" for word in 50 * words), encoding="utf-8")
    size = os.path.getsize(data["train"])
    for limit, known in ((size + 1, words), (size, words[:1])):
        monkeypatch.setattr("regard.training.vocabulary.TOKENIZER_BYTES", limit)
        tokenizer = trained(data=data, steps=1).tokenizer()
        assert [word for word in words if UNKNOWN not in tokenizer.encode(word)] == known


def test_threads_are_set_for_the_training_alone(trained):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []
        trained(threads=1, steps=1, report=lambda progress: seen.append(torch.get_num_threads()))
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_model_card_tells_size_data_rights_and_recipe(trained, toy, monkeypatch):
    corpus = Corpus.from_files(toy)
    known = Corpus(
        name="toy", splits=corpus.splits, hashes=corpus.hashes, licence="CC-BY 4.0", attribution="Words by Ada."
    )
    monkeypatch.setattr(Corpus, "from_files", lambda **files: known)
    run = trained()
    card = (run.path / "README.md").read_text()
    for told in (
        f"{run.facts['parameters']:,} parameters",
        "trained from scratch on toy",
        f"{run.facts['pairs']:,} sentence pairs",
        "licence: CC-BY 4.0",
        "source: Words by Ada.",
        "finished after 12 steps",
        f"`--set train.steps=12 --set train.threads={run.facts['threads']}`",
        run.recipe.to_toml().rstrip(),
    ):
        assert told in card


def test_sentences_over_the_limit_are_counted_and_told_every_time(trained, toy, caplog):
    pairs = list(Corpus.from_files(toy).pairs("train"))
    # a word is a token, and BOS and EOS come on top
    too_long = sum(len(pair.source.split()) + 2 > 6 for pair in pairs)
    for _ in range(2):
        caplog.clear()
        run = trained(model={"max_length": 6})
        assert (run.facts["pairs"], run.facts["pairs_skipped"]) == (len(pairs) - too_long, too_long)
        assert f"pairs skipped because a side has more than 6 tokens: {too_long}" in caplog.text


def test_data_from_standard_input_stays_with_the_run(trained, toy, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(toy.read_bytes())))
    run = trained(data={"train": "-"})
    assert weights(run) == weights(trained())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    found = regard.evaluate(run.path)
    assert found.count == len({*Corpus.from_files(toy).pairs("test")})


def test_a_run_from_standard_input_can_be_moved_and_goes_on(trained, toy, tmp_path, ctrl_c, monkeypatch):
    for number, data in enumerate(({"train": "-"}, {"train": "-", "dev": str(toy)})):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(toy.read_bytes())))
        stopped = trained(data=data, report=ctrl_c(5))
        assert str(stopped.path) not in (stopped.path / "recipe.toml").read_text()
        expected = regard.evaluate(stopped.path)
        moved = stopped.path.rename(tmp_path / f"moved-{number}")
        assert regard.evaluate(moved) == expected
        resumed = trained(data=data, folder=moved, resume=True)
        assert resumed.facts["status"] == "finished"
        assert Run.open(moved).recipe == resumed.recipe


def reversed_links(toy, folder):
    """Files of gold links for the toy corpus, under the settings that name them: translations run backwards."""
    counts = [len(line.split("\t")[0].split()) for line in toy.read_text().splitlines()]
    lines = [" ".join(f"{count - 1 - word}-{word}" for word in range(count)) for count in counts]
    (folder / "gold.links").write_text("\n".join(lines) + "\n")
    return {
        f"{split}{end}": str(path)
        for split in ("dev", "test")
        for end, path in [("", toy), ("_links", folder / "gold.links")]
    }


def test_gold_links_from_files_are_found_wherever_the_run_is(trained, toy, tmp_path, monkeypatch):
    data = {**reversed_links(toy, tmp_path), "train": str(toy)}
    monkeypatch.chdir(tmp_path)
    run = trained("bahdanau", data={**data, "dev_links": "gold.links", "test_links": "gold.links"})
    monkeypatch.chdir("/")
    expected = regard.evaluate(run.path)
    assert expected.aer is not None
    assert regard.evaluate(run.path.rename(tmp_path / "moved")) == expected


def test_gold_links_stay_with_a_run_from_standard_input_line_for_line(trained, toy, tmp_path, ctrl_c, monkeypatch):
    data = reversed_links(toy, tmp_path)
    # blank pairs are dropped where the run keeps its data, and the lines of their links with them
    lines, links = toy.read_text().splitlines(), (tmp_path / "gold.links").read_text().splitlines()
    blank = tmp_path / "blank.tsv"
    blank.write_text("\n".join([lines[0], "\t", *lines[1:]]) + "\n")
    (tmp_path / "gold.links").write_text("\n".join([links[0], "", *links[1:]]) + "\n")
    data = {"train": "-", "dev": str(blank), "dev_links": data["dev_links"]}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(toy.read_bytes())))
    stopped = trained("bahdanau", data=data, report=ctrl_c(5))
    expected = list(Corpus.from_files(toy, dev=blank, links={"dev": tmp_path / "gold.links"}).gold("dev"))
    assert list(stopped.corpus().gold("dev")) == expected
    (tmp_path / "gold.links").unlink()
    moved = stopped.path.rename(tmp_path / "moved")
    assert list(Run.open(moved).corpus().gold("dev")) == expected
    assert trained("bahdanau", data=data, folder=moved, resume=True).facts["status"] == "finished"


def test_a_broken_file_of_links_is_told_before_the_training_and_leaves_no_folder(trained, toy, tmp_path):
    data = {**reversed_links(toy, tmp_path), "train": str(toy)}
    with (tmp_path / "gold.links").open("a") as file:
        file.write("0-0\n")
    with pytest.raises(RegardError, match=r"gold\.links has 401 lines for 400 pairs"):
        trained(folder=tmp_path / "out", data=data, report=lambda progress: pytest.fail("trained"))
    assert os.listdir(tmp_path) == ["gold.links"]


def test_no_pair_that_a_run_was_trained_on_is_tested_after_its_file_has_grown(trained, toy, tmp_path):
    path = tmp_path / "own.tsv"
    path.write_bytes(toy.read_bytes())
    run = trained(steps=1, data={"train": str(path)})
    before = {split: set(run.corpus().pairs(split)) for split in ("train", "dev", "test")}
    first, _ = run.corpus().hashes["train"]
    added = [pair for pair in (Pair(str(n), str(n)) for n in range(2000)) if pair_hash(pair) >= first]
    path.write_text(toy.read_text() + "".join(f"{source}\t{target}\n" for source, target in added))
    # held out by the file as it is, trained pairs would be tested
    assert set(Corpus.from_files(path).pairs("test")) & before["train"]
    opened = regard.load(run.path)
    for split in ("dev", "test"):
        assert set(opened.pairs(split)) == before[split]
        assert regard.evaluate(opened, split).count == len(opened.pairs(split))


def test_a_run_without_a_record_of_its_splits_opens_evaluates_and_goes_on(trained, ctrl_c):
    stopped = trained(report=ctrl_c(5))
    expected = regard.evaluate(stopped.path)
    facts = {name: value for name, value in stopped.facts.items() if name not in ("hashes", "token_sums")}
    assert len(facts) == len(stopped.facts) - 2
    (stopped.path / "run.json").write_text(json.dumps(facts))
    assert regard.evaluate(stopped.path) == expected
    assert weights(trained(folder=stopped.path, resume=True)) == weights(trained())


@pytest.mark.parametrize(
    ("hashes", "message"),
    [
        ({"train": [1]}, r"run\.json: 'hashes' must give each split two numbers"),
        ([], r"run\.json: 'hashes' must give each split two numbers"),
        ({"train": [5, 9]}, "it is not recorded which pairs are dev"),
    ],
)
def test_a_broken_record_of_the_splits_is_told(trained, hashes, message):
    run = trained(steps=1)
    (run.path / "run.json").write_text(json.dumps(run.facts | {"hashes": hashes}))
    with pytest.raises(RegardError, match=message):
        regard.evaluate(run.path)


def test_files_named_by_a_relative_path_are_found_from_anywhere(trained, toy, tmp_path, monkeypatch):
    monkeypatch.chdir(toy.parent)
    run = trained(data={"train": toy.name})
    monkeypatch.chdir(tmp_path)
    assert regard.evaluate(run.path).count > 0


def test_a_split_that_there_is_not_is_told_with_those_there_are(trained):
    run = trained(steps=1)
    with pytest.raises(RegardError, match="has no split 'tset'; did you mean 'test'"):
        regard.evaluate(run.path, "tset")


def test_data_that_was_moved_away_is_told_by_its_name(trained, toy, tmp_path):
    files = {}
    for split in ("train", "dev", "test"):
        files[split] = str(tmp_path / f"{split}.tsv")
        (tmp_path / f"{split}.tsv").write_bytes(toy.read_bytes())
    run = trained(steps=1, data=files)
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(RegardError, match=r"test\.tsv: there is no such file"):
        regard.evaluate(run.path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "recipe.toml").unlink(), r"neither a run nor .* it holds no recipe\.toml"),
        (lambda folder: (folder / "recipe.toml").write_text("[data]\n"), r"recipe\.toml: \[data\] needs either"),
        (lambda folder: (folder / "run.json").write_text("{"), r"run\.json: cannot be understood"),
        (lambda folder: (folder / "run.json").write_text("[]"), r"run\.json: cannot be understood"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: there is no such file"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"tokenizer\.json: not a tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "its training has not ended, there are no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), r"model\.safetensors: not a readable"),
    ],
)
def test_a_run_that_lacks_a_part_is_refused_with_the_part(trained, spoil, message):
    run = trained(steps=1)
    regard.load(run.path)
    spoil(run.path)
    with pytest.raises(RegardError, match=message):
        regard.load(run.path)


def test_weights_of_another_model_are_refused(trained):
    run, other = trained("rnn", steps=1), trained("transformer", steps=1)
    (run.path / "model.safetensors").write_bytes(weights(other))
    with pytest.raises(RegardError, match=r"model\.safetensors is not of this model: it lacks"):
        regard.load(run.path)


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "must be auto, cpu or cuda"), ("cuda", "no CUDA device is found")]
)
def test_a_device_that_there_is_not_is_told(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RegardError, match=message):
        find_device(name)
    assert find_device("auto") == torch.device("cpu")


def test_attention_learns_to_reverse_a_sentence(trained, toy, tmp_path):
    """Without the source no model can do better than the entropy of the target: its length and its words."""
    run = trained(
        "bahdanau",
        data={**reversed_links(toy, tmp_path), "train": str(toy)},
        steps=220,
        learning_rate=0.02,
        label_smoothing=0.0,
        validate_every=110,
        model={"embedding_dim": 24, "hidden_dim": 24, "dropout": 0.0},
    )
    entropy = 3.5 * math.log(7) + math.log(6)
    assert run.facts["dev_loss"] < 0.25 * entropy / 4.5
    # it looks where the translation came from; a look that is the same for all sentences is right once in 3.5 words
    assert regard.evaluate(run.path).aer < 0.3
