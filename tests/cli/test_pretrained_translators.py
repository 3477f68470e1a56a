"""The commands for translators with a pretrained one: tiny, random, of several languages."""

import hashlib
import json

import pytest
from tests.pretrained_translators import SOURCES, TARGETS, make

import regard
from regard.jobs.translate import TranslateJob

LANGUAGES = ["--source-language", "eng_Latn", "--target-language", "fra_Latn"]


@pytest.fixture(scope="module")
def nllb(tmp_path_factory):
    return make("nllb", tmp_path_factory.mktemp("models") / "nllb")


@pytest.fixture(scope="module")
def translator(nllb):
    return regard.load(nllb, source_language="eng_Latn", target_language="fra_Latn")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in [SOURCES[0], "", *SOURCES[1:]]))
    return tmp_path / "text.txt"


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"{one}\t{two}\n" for one, two in zip(SOURCES, TARGETS, strict=True)))
    return tmp_path / "pairs.tsv"


def test_lines_are_translated_as_the_library_does(cli, nllb, translator, text, tmp_path):
    asked = ["translate", nllb, text, *LANGUAGES, "--num-beams", 3, "--max-new-tokens", 6]
    done = cli(*asked, "--alignments", tmp_path / "links")
    assert done.code == 0, done.err
    wanted = translator.translate(SOURCES, num_beams=3, max_new_tokens=6)
    assert [line for line in done.out.split("\n") if line] == [each.text for each in wanted if each.text]
    assert len((tmp_path / "links").read_text().splitlines()) == len(SOURCES) + 1
    rows = [json.loads(line) for line in cli(*asked, "--json", "--n-best", 2).out.splitlines()]
    assert [row["translations"][0]["score"] for row in rows if row["source"]] == pytest.approx(
        [each.score for each in wanted], abs=1e-5
    )
    (begun,) = cli("translate", nllb, "-", *LANGUAGES, "--prefix", "le c", given=b"the cat\n").out.splitlines()
    assert begun.startswith("le c")


def test_a_job_records_the_weights_and_the_languages(nllb, translator):
    record = TranslateJob(translator).told()
    assert record["run"] == str(nllb)
    assert record["weights"] == [hashlib.sha256((nllb / "model.safetensors").read_bytes()).hexdigest()]
    assert (record["source_language"], record["target_language"]) == ("eng_Latn", "fra_Latn")


def test_pairs_are_scored_aligned_and_evaluated(cli, nllb, translator, pairs):
    done = cli("score", nllb, pairs, *LANGUAGES)
    assert done.code == 0, done.err
    scores = [float(line.split("\t")[1]) for line in done.out.splitlines()]
    assert scores == pytest.approx([each.log_probability for each in translator.score(SOURCES, TARGETS)], abs=1e-5)
    done = cli("align", nllb, pairs, *LANGUAGES)
    assert done.code == 0, done.err
    assert [len(line.split()) for line in done.out.splitlines()] == [len(target.split()) for target in TARGETS]
    done = cli("evaluate", nllb, "--file", pairs, *LANGUAGES, "--max-new-tokens", 4, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["perplexity"] == pytest.approx(
        translator.evaluate(files=[pairs], max_new_tokens=4).perplexity
    )
    done = cli("evaluate", nllb, *LANGUAGES)
    assert done.code == 1
    assert "not a run" in done.err


def test_a_translation_is_read_and_its_sources_found(cli, nllb, translator):
    done = cli("read", nllb, "--source", SOURCES[0], "--target", TARGETS[0], *LANGUAGES, "--json", "--rows", "0:2")
    assert done.code == 0, done.err
    wanted = translator.read(SOURCES[0], TARGETS[0], rows=slice(0, 2))
    document = json.loads(done.out)
    assert document["sequences"]["target"] == wanted.to_json()["sequences"]["target"]
    done = cli("read", nllb, "--source", SOURCES[0], *LANGUAGES, "--max-new-tokens", 4)
    assert done.code == 0, done.err
    assert "weight at least" in done.out
    done = cli(
        "sources", nllb, "--source", SOURCES[0], "--target", TARGETS[0], *LANGUAGES, "--grain", "words", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["method"] == "removal"


@pytest.mark.parametrize(
    ("verb", "arguments", "says"),
    [
        ("translate", [], "give target_language, such as deu_Latn, eng_Latn, fra_Latn"),
        ("score", ["--target-language", "fra_Lat"], "did you mean 'fra_Latn'?"),
        ("align", [*LANGUAGES, "--layer", 5], "there is no cross layer 5"),
        ("align", [*LANGUAGES, "--head", 9], "there is no head 9"),
    ],
)
def test_what_makes_no_sense_is_told_at_once(cli, nllb, pairs, verb, arguments, says):
    done = cli(verb, nllb, pairs, *arguments)
    assert (done.code, done.out) == (1, "")
    assert says in done.err


def test_languages_are_of_pretrained_translators_alone(cli, runs):
    done = cli("translate", runs["bahdanau"], "-", "--target-language", "fra_Latn", given=b"one\n")
    assert done.code == 1
    assert "knows no languages; leave out target_language" in done.err


def test_a_folder_is_exported(cli, nllb, text, tmp_path):
    done = cli("export", nllb, tmp_path / "made", "--to", "hf", "--sample", text, *LANGUAGES)
    assert done.code == 0, done.err
    assert "hf gives the same greedy translation of 4 in 4 sentences" in done.err
    assert regard.load(tmp_path / "made").name == "made"
