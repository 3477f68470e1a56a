"""`regard train`, `evaluate` and `corpus` on plain text."""

import json
from pathlib import Path

import pytest

from regard.data.corpora import CORPORA, NamedCorpus
from regard.data.text import write_documents

RECIPE = """
[data]
corpus = "fables"
tokenizer = "character"
[model]
type = "gpt"
model_dim = 8
num_heads = 2
num_layers = 1
feed_forward_dim = 8
max_length = 16
[train]
steps = 4
batch_tokens = 64
validate_every = 2
warmup_steps = 1
threads = 1
label_smoothing = 0.0
device = "cpu"
"""


def write(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        write_documents(
            folder / f"{split}.jsonl", [f"The fox of {split} and the grapes. Number {n}." for n in range(9)]
        )


@pytest.fixture(autouse=True)
def fables(monkeypatch, tmp_path):
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    facts = NamedCorpus("Fables.", "en", None, licence="CC0-1.0", attribution="By Aesop.", write=write)
    monkeypatch.setitem(CORPORA, "fables", facts)


def test_a_language_model_is_trained_and_measured_in_bits_per_byte(cli, tmp_path):
    (tmp_path / "gpt.toml").write_text(RECIPE, encoding="utf-8")
    trained = cli("train", str(tmp_path / "gpt.toml"), "--out", str(tmp_path / "run"))
    assert trained.code == 0, trained.err
    assert "bits per byte" in trained.err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    found = json.loads(cli("evaluate", str(tmp_path / "run"), "--split", "dev", "--json").out)
    assert found["bits_per_byte"] == pytest.approx(facts["dev_bits_per_byte"])
    assert (found["documents"], found["attribution"]) == (9, "By Aesop.")
    shown = cli("evaluate", str(tmp_path / "run"))
    assert "bits per byte" in shown.out
    assert "By Aesop." in shown.out
    card = (tmp_path / "run" / "README.md").read_text()
    assert "9 documents" in card
    assert "regard generate RUN PROMPT" in card
    refused = cli("translate", str(tmp_path / "run"))
    assert refused.code == 1
    assert "a language model, which translates nothing" in refused.err
    beams = cli("evaluate", str(tmp_path / "run"), "--num-beams", "3")
    assert (beams.code, beams.out) == (1, "")
    assert "measured on text as it is; leave out options of decoding" in beams.err
    for option in (("--dtype", "bfloat16"), ("--batch-size", "1")):
        refused = cli("evaluate", str(tmp_path / "run"), *option)
        assert (refused.code, refused.out) == (1, "")
        assert "measured in float32; leave out --batch-size and --dtype" in refused.err


def test_a_text_is_shown_by_the_beginnings_of_its_documents(cli):
    assert cli("corpus", "get", "fables").out.splitlines()[0].startswith("train\t9\t")
    found = json.loads(cli("corpus", "show", "fables", "--split", "dev", "--count", "3", "--json").out)
    assert [example["line"] for example in found["examples"]] == [1, 4, 7]
    assert found["splits"]["dev"]["documents"] == 9
    shown = cli("corpus", "show", "fables", "--count", "2").out
    assert "The fox of test and the grapes. Number 0." in shown
    assert "By Aesop." in shown


def test_language_models_are_compared_in_bits_per_byte(cli, tmp_path, runs):
    (tmp_path / "gpt.toml").write_text(RECIPE, encoding="utf-8")
    for name, settings in {
        "letters": (),
        "pieces": ("--set", "data.tokenizer=bpe", "--set", "data.vocab_size=280"),
    }.items():
        trained = cli("train", tmp_path / "gpt.toml", "--out", tmp_path / name, *settings)
        assert trained.code == 0, trained.err
    both = (tmp_path / "letters", tmp_path / "pieces")
    models = json.loads(cli("compare", *both, "--json").out)["models"]
    assert [model["name"] for model in models] == ["letters", "pieces"]
    for folder, model in zip(both, models, strict=True):
        alone = json.loads(cli("evaluate", folder, "--json").out)
        assert model["bits_per_byte"] == pytest.approx(alone["bits_per_byte"])
    shown = cli("compare", *both).out
    assert all(f"{model['bits_per_byte']:.3f}" in shown for model in models)
    for arguments, told in (
        ((both[0], runs["rnn"]), "a translator and a language model cannot be compared"),
        ((*both, "--out", tmp_path / "x.png"), "no length curve to draw; leave out --out"),
    ):
        done = cli("compare", *arguments)
        assert done.code == 1
        assert told in done.err
