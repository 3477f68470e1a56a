"""`regard score` and `regard align`: given pairs, scored and aligned as if the model had written them."""

import gzip
import json
import re

import numpy as np
import pytest
import torch

import regard
from regard.data.batch import EOS, collate
from regard.data.words import split_words

PAIRS = [("one hundred and two", "cent deux"), ("", ""), ("seven", "sept !"), ("three", " "), ("七 eight", "huit 八")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The pairs as one file, as two, and as JSON lines."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    for index, name in enumerate(("a.en", "a.fr")):
        (folder / name).write_text("".join(pair[index] + "\n" for pair in PAIRS), encoding="utf-8")
    lines = (json.dumps({"source": source, "target": target}) + "\n" for source, target in PAIRS)
    with gzip.open(folder / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines)
    return folder


def lines(done):
    assert done.code == 0, done.err
    assert done.out.endswith("\n")
    return done.out[:-1].split("\n")


@torch.no_grad()
def log_probability(translator, source, target):
    """One teacher-forced run over the pair alone."""
    ids = [*translator.tokenizer.encode(target), EOS]
    log_probs = translator.module(collate([translator.tokenizer.encode(source)], [ids[:-1]])).logits[0].log_softmax(-1)
    return sum(float(log_probs[step, token]) for step, token in enumerate(ids)), len(ids)


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_a_pair_scores_what_the_model_gives_its_tokens(cli, runs, files, name, monkeypatch):
    translator = regard.load(runs[name], dtype="float64")
    monkeypatch.setattr("regard.cli.options.CHUNK", 2)
    found = lines(cli("score", runs[name], files / "pairs.tsv", "--dtype", "float64"))
    assert len(found) == len(PAIRS)
    for line, (source, target) in zip(found, PAIRS, strict=True):
        if not (source.strip() and target.strip()):
            assert line == ""
            continue
        total, count = log_probability(translator, source, target)
        assert [float(part) for part in line.split("\t")] == pytest.approx([total / count, total], abs=2e-6)


def test_pairs_come_in_every_format_and_from_standard_input(cli, runs, files):
    wanted = lines(cli("score", runs["rnn"], files / "pairs.tsv"))
    assert lines(cli("score", runs["rnn"], files / "a.en", files / "a.fr")) == wanted
    assert lines(cli("score", runs["rnn"], files / "pairs.jsonl.gz")) == wanted
    for arguments in ((), ("-",)):
        assert lines(cli("score", runs["rnn"], *arguments, given=(files / "pairs.tsv").read_bytes())) == wanted
    documents = [json.loads(line) for line in lines(cli("score", runs["rnn"], files / "pairs.tsv", "--json"))]
    assert [(each["source"], each["target"]) for each in documents] == PAIRS
    assert [(each["score"] is None, each["tokens"] > 0) for each in documents] == [
        (not line, bool(line)) for line in wanted
    ]


@pytest.mark.parametrize("name", ["bahdanau", "transformer"])
def test_words_are_linked_where_the_reading_of_the_pair_looks_most(cli, runs, files, name):
    translator = regard.load(runs[name])
    asked = ("align", runs[name], files / "pairs.tsv")
    chosen = [((), {}), (("--layer", 0, "--head", 0), {"layer": 0, "head": 0})]
    for arguments, which in chosen:
        found = lines(cli(*asked, *arguments))
        documents = [json.loads(line) for line in lines(cli(*asked, *arguments, "--json"))]
        assert len(found) == len(PAIRS)
        for line, document, (source, target) in zip(found, documents, PAIRS, strict=True):
            assert (document["source"], document["target"]) == (source, target)
            assert line == " ".join(f"{i}-{j}" for i, j in document["links"])
            if not (source.strip() and target.strip()):
                assert line == ""
                continue
            table = np.asarray(translator.read(source, target).alignment(**which))
            assert document["links"] == [[int(row.argmax()), j] for j, row in enumerate(table)]
            assert len(document["links"]) == len(split_words(target))


def test_both_directions_are_joined_from_two_runs_as_from_two_files(cli, runs, files, tmp_path):
    pairs = files / "pairs.tsv"
    (tmp_path / "swapped.tsv").write_text(
        "".join(f"{target}\t{source}\n" for source, target in PAIRS), encoding="utf-8"
    )
    forward, reverse = tmp_path / "forward", tmp_path / "reverse"
    forward.write_text(cli("align", runs["transformer"], pairs).out)
    reverse.write_text(cli("align", runs["bahdanau"], tmp_path / "swapped.tsv").out)
    found = {}
    for heuristic in ("intersection", "union", "grow-diag-final-and"):
        found[heuristic] = lines(cli("symmetrise", forward, reverse, "--swapped", "--heuristic", heuristic))
        asked = ("align", runs["transformer"], pairs, "--reverse", runs["bahdanau"], "--heuristic", heuristic)
        assert lines(cli(*asked)) == found[heuristic]
    for number, both in enumerate(zip(*map(lines_of, (forward, reverse)), strict=True)):
        one, other = ({tuple(map(int, link.split("-"))) for link in line.split()} for line in both)
        other = {link[::-1] for link in other}
        for heuristic, expected in (("intersection", one & other), ("union", one | other)):
            assert found[heuristic][number] == " ".join(f"{i}-{j}" for i, j in sorted(expected))
    # by default the usual one
    assert lines(cli("symmetrise", forward, reverse, "--swapped")) == found["grow-diag-final-and"]


def lines_of(path):
    return path.read_text().split("\n")[:-1]


def test_files_that_cannot_be_joined_are_told(cli, tmp_path):
    (tmp_path / "one").write_text("0-0\n1-1\n")
    (tmp_path / "other").write_text("0-0\n")
    done = cli("symmetrise", tmp_path / "one", tmp_path / "other")
    assert done.code == 1
    assert "other ends before line 2 of" in done.err
    assert cli("symmetrise", tmp_path / "one", tmp_path / "other", "--heuristic", "grow").code == 2


def test_a_guided_run_is_aligned_and_measured_by_its_guided_head(cli, recipes, files, tmp_path):
    changes = {"train.guided_alignment": 0.5, "model.num_layers": 3}
    translator = regard.train(recipes["transformer"], out=tmp_path / "run", changes=changes)
    assert translator.guided_head == (1, 0)
    found = lines(cli("align", tmp_path / "run", files / "pairs.tsv"))
    assert found == lines(cli("align", tmp_path / "run", files / "pairs.tsv", "--layer", 1, "--head", 0))
    for line, (source, target) in zip(found, PAIRS, strict=True):
        if not (source.strip() and target.strip()):
            continue
        # the row that reads a token comes after the one that writes it
        reading = translator.read(source, target)
        rows = reading.maps["cross", 1][0]
        own = [place for place, token in enumerate(reading.sequences["target"].tokens) if token.words]
        table = np.zeros((len(split_words(target)), rows.shape[1]))
        words = [reading.sequences["target"].tokens[place].words for place in own]
        for word in range(len(table)):
            table[word] = np.mean([rows[place] for place, of in zip(own, words, strict=True) if word in of], axis=0)
        looked = np.zeros((len(table), len(split_words(source))))
        for column, token in enumerate(reading.sequences["source"].tokens):
            for word in token.words:
                looked[:, word] += table[:, column] / len(token.words)
        assert line == " ".join(f"{row.argmax()}-{number}" for number, row in enumerate(looked))


def test_words_that_a_model_does_not_know_are_words_all_the_same(cli, recipes, tmp_path):
    changes = {"data.tokenizer": "word", "data.vocab_size": 30}
    regard.train(recipes["bahdanau"], out=tmp_path / "run", changes=changes)
    (line,) = lines(cli("align", tmp_path / "run", given="some strange zebras\tdes zèbres étranges !\n".encode()))
    links = [tuple(map(int, link.split("-"))) for link in line.split(" ")]
    assert [target for _, target in links] == [0, 1, 2, 3]
    assert all(0 <= source < 3 for source, _ in links)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["score", "{rnn}"], "one\n", "standard input:1: 1 column where two are needed"),
        (
            ["score", "{rnn}"],
            "one\tun\n" + "one " * 60 + "\tun\n",
            r"input: pair 2: its source has \d+ tokens, the",
        ),
        (
            ["align", "{bahdanau}"],
            "one\t" + "un " * 60 + "\n",
            r"input: pair 1: its target has \d+ tokens, the",
        ),
        (["align", "{rnn}"], "one\tun\n", "this model has no attention"),
        (["align", "{transformer}", "--layer", "7"], "one\tun\n", "there is no cross layer 7; there are layers 0 to 1"),
        (["score", "{rnn}", "a", "b", "c"], "", "a corpus is one file with both sides or two aligned files, not 3"),
    ],
)
def test_pairs_that_cannot_be_scored_or_aligned_are_told(cli, runs, arguments, given, message):
    done = cli(*(part.format(**runs) for part in arguments), given=given.encode())
    assert done.code == 1
    assert re.search(message, done.err), done.err


def test_a_language_model_scores_the_lines_of_a_text(cli, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three, four five six. " * 80 + "\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(
        f"[data]\ntrain = '{text}'\ndev = '{text}'\ntest = '{text}'\n"
        'tokenizer = "character"\n[model]\ntype = "gpt"\nmodel_dim = 8\nnum_heads = 2\nnum_layers = 1\n'
        "feed_forward_dim = 8\nmax_length = 16\n[train]\nsteps = 2\nthreads = 1\nbatch_tokens = 64\n"
    )
    model = regard.train(tmp_path / "recipe.toml", out=tmp_path / "run")
    found = lines(cli("score", tmp_path / "run", given=b"one two\n\nsix\n"))
    values = [model.log_probabilities("one two"), model.log_probabilities("six")]
    expected = [f"{sum(each) / len(each):.6f}\t{sum(each):.6f}" for each in values]
    assert found == [expected[0], "", expected[1]]
    quality = json.loads(cli("evaluate", tmp_path / "run", "--file", tmp_path / "text.txt", "--json").out)
    split = json.loads(cli("evaluate", tmp_path / "run", "--json").out)
    assert quality.pop("files") == [str(tmp_path / "text.txt")]
    assert split.pop("split") == "test"
    assert quality == split
    (tmp_path / "short.txt").write_text("one\n")
    assert regard.evaluate(tmp_path / "run", files=[tmp_path / "short.txt"]).tokens == 5
    done = cli("score", tmp_path / "run", tmp_path / "text.txt", tmp_path / "short.txt")
    assert (done.code, done.out) == (1, "")
    assert "run is a language model: it scores the lines of one text file, not of 2" in done.err
