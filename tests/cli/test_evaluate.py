"""`regard evaluate` and `regard compare`: the same figures as in Python, as tables, JSON and pictures."""

import json
import shutil
import xml.etree.ElementTree

import pytest
from matplotlib.image import imread

import regard

SCORES = {"bleu", "chrf", "exact"}
INTERVALS = {f"{score}_{end}" for score in SCORES for end in ("low", "high")}
ALIGNMENT = {"aer", "aer_low", "aer_high", "aer_precision", "aer_recall", "aer_head", "aer_by_head"}


@pytest.fixture(scope="module")
def qualities(runs):
    return {name: regard.evaluate(run).to_json() for name, run in runs.items()}


@pytest.fixture(scope="module")
def linked(recipes, tmp_path_factory):
    """Runs whose dev and test have gold links: the first words of a pair translate each other."""
    folder = tmp_path_factory.mktemp("linked")
    pairs = (recipes["rnn"].parent / "numbers.tsv").read_text(encoding="utf-8").splitlines()
    changes = {}
    for split, lines in (("dev", pairs[:30]), ("test", pairs[30:60])):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{split}.links").write_text("0-0\n" * len(lines), encoding="utf-8")
        changes |= {f"data.{split}": str(folder / f"{split}.tsv")}
        changes |= {f"data.{split}_links": str(folder / f"{split}.links")}
    for name, recipe in recipes.items():
        regard.train(recipe, out=folder / name, changes=changes)
    return {name: folder / name for name in recipes}


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_the_command_tells_what_the_library_measures(cli, runs, qualities, name):
    done = cli("evaluate", runs[name], "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"run": name, "split": "test", "attribution": None, **qualities[name]}


def test_the_json_has_every_figure_under_its_name(qualities):
    document = qualities["rnn"]
    figures = SCORES | INTERVALS | {"count", "perplexity"}
    assert set(document) == figures | ALIGNMENT | {"signature", "length_unit", "by_length"}
    for part in document["by_length"]:
        assert set(part) == figures | {"from", "to"}
        assert part["from"] <= part["to"]
        for score in SCORES:
            assert part[f"{score}_low"] <= part[score] <= part[f"{score}_high"]
    assert sum(part["count"] for part in document["by_length"]) == document["count"] == 8


def test_where_there_are_gold_links_alignment_is_measured(cli, linked):
    found = {name: json.loads(cli("evaluate", run, "--json").out) for name, run in linked.items()}
    assert {found["rnn"][name] for name in ALIGNMENT} == {None}
    for name, heads in (
        ("bahdanau", [(0, 0)]),
        ("transformer", [(0, 0), (0, 1), (0, None), (1, 0), (1, 1), (1, None)]),
    ):
        document = found[name]
        by_head = {(part["layer"], part["head"]): part for part in document["aer_by_head"]}
        assert list(by_head) == heads
        for part in by_head.values():
            assert set(part) == {"layer", "head", "aer", "precision", "recall"}
        chosen = by_head[document["aer_head"]["layer"], document["aer_head"]["head"]]
        assert [document[f"aer{figure}"] for figure in ("", "_precision", "_recall")] == [
            chosen[figure] for figure in ("aer", "precision", "recall")
        ]
        assert 0 <= document["aer_low"] <= document["aer"] <= document["aer_high"] <= 1
        alone = regard.load(linked[name]).evaluate_alignment("test")
        assert (alone.aer, alone.aer_low, alone.aer_high) == tuple(
            document[f"aer{end}"] for end in ("", "_low", "_high")
        )


def test_the_head_is_the_one_that_aligns_dev_best(linked):
    translator = regard.load(linked["transformer"])
    test, dev = (translator.evaluate_alignment(split) for split in ("test", "dev"))
    assert test.aer_head == dev.aer_head
    assert (dev.aer_head.chosen_on, dev.aer) == (
        "dev",
        min(part.aer for part in dev.aer_by_head if part.head is not None),
    )


def test_the_terminal_tells_the_error_rate_and_that_of_every_head(cli, linked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    quality = regard.evaluate(linked["transformer"])
    done = cli("evaluate", linked["transformer"])
    assert done.code == 0
    assert f"alignment error rate {100 * quality.aer:.1f} %" in done.out
    chosen = f"cross layer {quality.aer_head.layer}, head {quality.aer_head.head}"
    assert f"{chosen}, the one head that aligns dev best" in done.out
    grid = [line.split()[-2:] for line in done.out.splitlines() if line.strip().startswith(("head ", "mean of heads"))]
    rates = {(part.layer, part.head): f"{100 * part.aer:.1f}" for part in quality.aer_by_head}
    assert grid == [[rates[0, head], rates[1, head]] for head in (0, 1, None)]
    single = cli("evaluate", linked["bahdanau"]).out
    assert "alignment error rate" in single
    assert "cross layer" not in single
    assert "alignment" not in cli("evaluate", linked["rnn"]).out


def test_a_comparison_tells_the_error_rates_of_those_that_have_one(cli, linked):
    done = cli("compare", *linked.values())
    assert done.out.count("alignment error rate") == 2
    models = json.loads(cli("compare", *linked.values(), "--json").out)["models"]
    assert [model["aer"] is None for model in models] == [True, False, False]


def test_a_link_past_the_sentence_is_told_with_its_line(cli, linked):
    path = linked["bahdanau"].parent / "test.links"
    before = path.read_text()
    path.write_text(before.replace("0-0", "0-99", 1))
    done = cli("evaluate", linked["bahdanau"])
    path.write_text(before)
    assert (done.code, done.out) == (1, "")
    assert "test.links:1: 0-99 points past the sentence" in done.err


def test_a_corpus_is_credited_where_its_maker_asks_for_it(cli, runs, tmp_path):
    shutil.copytree(runs["rnn"], tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**facts, "attribution": "by [its] makers"}))
    assert "by [its] makers" in cli("evaluate", tmp_path / "run").out
    assert json.loads(cli("evaluate", tmp_path / "run", "--json").out)["attribution"] == "by [its] makers"


def test_splits_and_settings_are_those_asked_for(cli, runs):
    found = {
        arguments: json.loads(cli("evaluate", runs["bahdanau"], "--json", *arguments).out)
        for arguments in [("--split", "dev"), ("--num-beams", "3"), ("--batch-size", "1"), ()]
    }
    assert found["--split", "dev"]["split"] == "dev"
    assert found["--split", "dev"]["signature"] == found[()]["signature"]
    assert found["--split", "dev"]["perplexity"] != found[()]["perplexity"]
    assert found["--batch-size", "1"] == found[()]
    # how likely the references are has nothing to do with the search
    assert found["--num-beams", "3"]["perplexity"] == found[()]["perplexity"]


def test_the_table_fits_its_terminal(cli, runs, qualities, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = cli("evaluate", runs["rnn"])
    assert done.code == 0
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    assert f"perplexity {qualities['rnn']['perplexity']:.3f}" in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--split", "tset", 'Did you mean "test"?'),
        ("--dtype", "float16", 'Did you mean "bfloat16"?'),
        ("--device", "tpu", 'Choose from: "auto", "cpu", "cuda"'),
        ("--num-beams", "0", "--num-beams must be at least 1, not 0"),
        ("--batch-size", "-1", "Must be >= 1"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_a_matter_of_usage(cli, runs, verb, option, value, message):
    done = cli(verb, runs["rnn"], option, value)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_runs_are_compared_by_the_figures_that_each_has_alone(cli, runs, qualities):
    done = cli("compare", *runs.values(), "--json")
    assert done.code == 0, done.err
    models = [{"name": name, **quality} for name, quality in qualities.items()]
    found = json.loads(done.out)
    differences = found.pop("differences")
    assert found == {"split": "test", "models": models}
    assert list(differences) == ["bahdanau", "transformer"]
    for name, metrics in differences.items():
        for metric, each in metrics.items():
            if None in (qualities[name][metric], qualities["rnn"][metric]):
                assert each["difference"] is None
                continue
            assert each["difference"] == pytest.approx(qualities[name][metric] - qualities["rnn"][metric])
            assert each["low"] <= each["difference"] <= each["high"]


def test_a_comparison_is_a_table_and_pictures(cli, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    pictures = [tmp_path / "curve.png", tmp_path / "curve.svg"]
    done = cli("compare", runs["rnn"], runs["bahdanau"], "--out", pictures[0], "--out", pictures[1], "--metric", "bleu")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for name in ("rnn", "bahdanau"):
        assert name in done.out
        assert name in pictures[1].read_text(encoding="utf-8")
    assert imread(pictures[0]).std() > 0
    assert xml.etree.ElementTree.parse(pictures[1]).getroot().tag.endswith("}svg")


def test_runs_of_one_name_are_told_apart_by_their_paths(cli, runs, recipes, tmp_path):
    regard.train(recipes["rnn"], out=tmp_path / "rnn")
    done = cli("compare", runs["rnn"], tmp_path / "rnn", "--json")
    assert [model["name"] for model in json.loads(done.out)["models"]] == [str(runs["rnn"]), str(tmp_path / "rnn")]


def test_runs_that_were_tested_on_other_sentences_are_not_compared(cli, runs, recipes, tmp_path):
    """As many sentences, of the same lengths, but of another language."""
    pairs = (recipes["rnn"].parent / "numbers.tsv").read_text(encoding="utf-8")
    for name, text in (("french", pairs), ("other", pairs.replace("vingt", "twintig"))):
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
        changes = {"data.dev": str(tmp_path / "french.tsv"), "data.test": str(tmp_path / f"{name}.tsv")}
        regard.train(recipes["rnn"], out=tmp_path / name, changes=changes)
    assert cli("compare", tmp_path / "french", tmp_path / "other", "--split", "dev").code == 0
    for other in (tmp_path / "other", runs["rnn"]):
        done = cli("compare", tmp_path / "french", other)
        assert (done.code, done.out) == (1, "")
        assert "these runs were not tested on the same sentences; compare runs of one corpus and split" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare takes two runs or more; `regard evaluate RUN` measures one"),
        (["{bahdanau}"], "a run is named twice"),
        (["{rnn}", "--out", "curve.jpg"], "curve.jpg: a picture ends in .png, .svg, .pdf; rename it"),
        (["nowhere"], "there is no model 'nowhere'"),
    ],
)
def test_what_cannot_be_compared_is_told(cli, runs, arguments, message):
    done = cli("compare", runs["bahdanau"], *(part.format(**runs) for part in arguments))
    assert (done.code, done.out) == (1, "")
    assert message in done.err


@pytest.fixture
def own_test(recipes, tmp_path):
    """Fifty pairs that the runs have seen, one of them with nothing on a side, as one file and as two."""
    pairs = (recipes["rnn"].parent / "numbers.tsv").read_text(encoding="utf-8").splitlines()[40:90]
    (tmp_path / "test.tsv").write_text("\n".join([*pairs, "blank\t"]) + "\n", encoding="utf-8")
    for index, name in enumerate(("test.en", "test.fr")):
        (tmp_path / name).write_text("\n".join(pair.split("\t")[index] for pair in pairs) + "\n", encoding="utf-8")
    return tmp_path


def test_a_test_set_of_ones_own_is_measured_whole(cli, runs, own_test):
    """Whatever was held out of the run's own corpus."""
    sides = own_test / "test.en", own_test / "test.fr"
    one = json.loads(cli("evaluate", runs["bahdanau"], "--file", own_test / "test.tsv", "--json").out)
    two = json.loads(cli("evaluate", runs["bahdanau"], "--file", *sides, "--json").out)
    assert one.pop("files") == [str(own_test / "test.tsv")]
    assert two.pop("files") == [str(side) for side in sides]
    assert one == two
    assert (one["count"], one["attribution"]) == (50, None)
    found = regard.load(runs["bahdanau"]).evaluate(files=[own_test / "test.tsv"])
    assert one == {"run": "bahdanau", "attribution": None, **found.to_json()}


def test_links_of_ones_own_test_set_measure_the_alignment(cli, runs, own_test):
    (own_test / "links").write_text("0-0\n" * 50)
    files = ("--file", own_test / "test.en", own_test / "test.fr", "--links", own_test / "links")
    done = json.loads(cli("evaluate", runs["transformer"], *files, "--json").out)
    assert done["aer_head"] == {"layer": 1, "head": None, "chosen_on": None}
    assert 0 <= done["aer"] <= 1


def test_what_other_scorers_need_is_written_line_for_line(cli, runs, own_test, monkeypatch):
    monkeypatch.setattr("regard.data.tokenizer.Tokenizer.decode", lambda self, ids: "a\r\nb\u2028c\nd")
    out = own_test / "scored"
    done = cli("evaluate", runs["rnn"], "--file", own_test / "test.tsv", "--out", out)
    assert done.code == 0, done.err
    found = {path.name: path.read_bytes().decode().split("\n") for path in out.iterdir()}
    assert found["source.txt"] == (own_test / "test.en").read_text(encoding="utf-8").split("\n")
    assert found["reference.txt"] == (own_test / "test.fr").read_text(encoding="utf-8").split("\n")
    assert found["output.txt"] == ["a  b\u2028c d"] * 50 + [""]
    again = cli("evaluate", runs["rnn"], "--file", own_test / "test.tsv", "--out", out)
    assert (again.code, again.out) == (1, "")
    assert "scored exists already; choose another folder" in again.err


def test_runs_are_compared_on_a_test_set_of_ones_own(cli, runs, recipes, own_test, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    regard.train(recipes["rnn"], out=own_test / "longer", changes={"train.steps": 60, "train.seed": 2})
    files = ("--file", own_test / "test.tsv")
    done = cli("compare", runs["rnn"], own_test / "longer", *files)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert "against rnn" in done.out
    found = json.loads(cli("compare", runs["rnn"], own_test / "longer", *files, "--json").out)
    assert [model["count"] for model in found["models"]] == [50, 50]
    chrf = found["differences"]["longer"]["chrf"]
    first, second = (model["chrf"] for model in found["models"])
    assert chrf["difference"] == pytest.approx(second - first)
    assert (chrf["low"] <= 0 <= chrf["high"]) or chrf["p_value"] < 0.1


def test_a_split_that_gains_a_file_of_its_own_is_all_of_it(runs, own_test):
    """In a run's recipe, written there by hand."""
    shutil.copytree(runs["rnn"], own_test / "run")
    recipe = own_test / "run" / "recipe.toml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("[data]", f"[data]\ntest = '{own_test / 'test.tsv'}'"), encoding="utf-8")
    assert regard.evaluate(own_test / "run").count == 50
    assert regard.load(own_test / "run").pairs("dev") == regard.load(runs["rnn"]).pairs("dev")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "test.tsv", "--split", "dev"], "--file takes the place of a split; leave out --split"),
        (["--links", "links"], "--links are of the pairs of --file"),
        (["--file", "none.tsv"], "none.tsv: there is no such file"),
        (["--file", "blank.tsv"], "blank.tsv: no pair has text on both sides; there is nothing to evaluate"),
    ],
)
def test_a_test_set_that_cannot_be_measured_is_told(cli, runs, own_test, monkeypatch, arguments, message):
    monkeypatch.chdir(own_test)
    (own_test / "blank.tsv").write_text("one\t\n")
    done = cli("evaluate", runs["rnn"], *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
