"""What is seen in the data before a training begins: true figures, and warnings of what is likely a mistake."""

import json
import logging

import pytest

import regard
from regard.data.tokenizer import Tokenizer
from regard.training.look import log_look
from regard.training.recipe import read_recipe
from regard.training.train import train_run

WORDS = ["one", "two", "three", "four", "five", "six"]
OTHERS = ["un", "deux", "trois", "quatre", "cinq", "six."]
# thirty-six pairs, each of another source
PAIRS = [f"{a} {b}\t{OTHERS[i]} {OTHERS[j]}" for i, a in enumerate(WORDS) for j, b in enumerate(WORDS)]
RNN = {"type": "rnn", "embedding_dim": 4, "hidden_dim": 4, "max_length": 40}
GPT = {"type": "gpt", "model_dim": 8, "num_heads": 2, "num_layers": 1, "feed_forward_dim": 8, "max_length": 16}
TRAIN = {"steps": 1, "batch_tokens": 256, "warmup_steps": 0, "threads": 1, "device": "cpu", "validate_every": 9}


@pytest.fixture
def look(tmp_path, caplog):
    """Trains one step on lines, and gives the run and what was seen."""
    caplog.set_level(logging.INFO, "regard")

    def train(lines, *, model=RNN, train=(), aligned=False, **data):
        paths = {}
        for name, own in {
            "train": lines,
            **{split: data.pop(split) for split in ("dev", "test") if split in data},
        }.items():
            path = tmp_path / f"{name}.{'tsv' if model is RNN else 'txt'}"
            path.write_text("".join(f"{line}\n" for line in own), encoding="utf-8")
            paths[name] = str(path)
            if aligned:
                sides = [path.with_name(f"{name}.{side}") for side in ("source", "target")]
                for side, texts in zip(sides, zip(*(line.split("\t") for line in own), strict=True), strict=True):
                    side.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
                paths[name] = list(map(str, sides))
        tables = {"data": {"vocab_size": 300, **paths, **data}, "model": model, "train": {**TRAIN, **dict(train)}}
        run = train_run(read_recipe(tables, where="test"), tmp_path / "run", look=log_look)
        seen = run.facts["look"]
        # all of it is printed, and kept in the run
        assert {*seen["lines"], *seen["warnings"]} <= {*caplog.messages}
        assert json.loads((run.path / "run.json").read_text())["look"] == seen
        return run, seen["figures"], seen["lines"], seen["warnings"]

    return train


def test_good_data_are_told_in_a_few_lines_without_a_warning(look):
    _, figures, lines, warnings = look(PAIRS, train={"steps": 4})
    assert warnings == []
    assert len(lines) <= 6
    assert figures["pairs"] == 36 - 2
    assert (figures["duplicates"], figures["copies"], figures["not_normalised"]) == (0, 0, 0)
    assert figures["scripts"] == {"source": {"Latin": 1.0}, "target": {"Latin": 1.0}}
    assert any("4 steps, 4.0 epochs of 1" in line for line in lines)


def test_copies_within_a_split_are_counted_and_score_once(look, tmp_path):
    test = [*PAIRS[:5], *PAIRS[:3]]
    run, figures, lines, warnings = look([*PAIRS[5:], *PAIRS[6:8]], dev=PAIRS[:2], test=test)
    assert figures["duplicates"] == 2
    assert any(line.startswith("2 of 33 pairs repeat an earlier one") for line in lines)
    assert warnings == []
    translator = regard.load(run.path)
    assert ["\t".join(pair) for pair in translator.pairs("test")] == PAIRS[:5]
    assert translator.evaluate("test").count == 5


def test_dev_inside_train_is_told_with_its_number(look):
    dev = [PAIRS[0].upper(), PAIRS[1], PAIRS[20]]
    _, figures, _, warnings = look(PAIRS[:10], dev=dev, test=PAIRS[30:])
    assert (figures["dev_in_train"], figures["test_in_train"]) == (2, 0)
    (warning,) = warnings
    assert warning.startswith("2 of 3 source sentences of dev are in train too")


@pytest.mark.parametrize("heading", ["source\ttarget", "en\tfr", "English\tFrench", '"sentence_en"\t"sentence_fr"'])
def test_a_heading_is_suspected_and_a_short_first_pair_is_not(look, heading):
    # a table's reader knows its heading
    _, _, _, warnings = look([heading, *PAIRS], aligned=True)
    (warning,) = warnings
    assert heading.split("\t")[0].strip('"') in warning
    assert "looks like the heading of a table" in warning


def test_a_pair_that_is_no_heading_is_none(look):
    assert look(["Hello\tHelas", *PAIRS])[3] == []


def test_quotes_of_a_table_are_suspected_and_those_of_speech_are_not(look):
    quoted = ["\t".join(f'"{side}"' for side in pair.split("\t")) for pair in PAIRS]
    _, _, _, warnings = look(quoted, aligned=True)
    assert [warning.split(" of ")[1][:12] for warning in warnings] == ["the source t", "the target t"]
    assert "100%" in warnings[0]


def test_a_few_quotes_are_those_of_speech(look):
    assert look([*PAIRS, '"stop"\t"halte"'])[3] == []


def test_texts_that_are_the_same_on_both_sides_are_told(look):
    _, figures, _, warnings = look([*PAIRS, "seven\tseven", "eight\teight"])
    assert figures["copies"] == 2
    assert warnings[0].startswith("2 of 36 pairs have the same text on both sides")


def test_steps_within_the_warm_up_are_told(look):
    _, _, _, warnings = look(PAIRS, train={"steps": 2, "warmup_steps": 200})
    (warning,) = warnings
    assert warning.startswith("2 steps are less than the warm-up of 200")


def test_scripts_without_spaces_are_named(look):
    thai = [f"{pair.split(chr(9))[0]}\tระบบ{'กขคง'[index % 4]}ข้อมูล{index}" for index, pair in enumerate(PAIRS)]
    _, figures, lines, _ = look(thai)
    assert figures["scripts"] == {"source": {"Latin": 1.0}, "target": {"Thai": 1.0}}
    assert figures["counted_in_characters"] == ["target"]
    assert any("source Latin 100%; target Thai 100%; target without spaces" in line for line in lines)


def test_words_unknown_to_a_vocabulary_are_counted(look):
    run, figures, _, warnings = look(PAIRS, tokenizer="word", vocab_size=10)
    tokenizer = run.tokenizer()
    texts = [side for pair in run.pair_corpus().pairs("train") for side in pair]
    assert figures["unknown"]["train"] == sum(ids.count(3) for ids in tokenizer.encode_batch(texts)) > 0
    (warning,) = warnings
    assert warning.startswith(f"the vocabulary leaves out {figures['unknown']['train']:,} words or characters")
    assert "raise data.vocab_size" in warning


def test_a_character_model_names_the_vocabulary_that_its_text_needs(look):
    lines = [f"{chr(0x4E00 + index)}{chr(0x4E00 + index // 2)}甲乙丙丁\n" for index in range(2000)]
    run, figures, _, (warning,) = look(lines, model=GPT, tokenizer="character", vocab_size=500)
    text = "".join(passage.text for passage in run.corpus().passages("train"))
    known = {token for token in run.tokenizer().backend.get_vocab() if len(token) == 1}
    assert figures["left_out"] == len({*text} - known)
    assert figures["unknown"]["train"] == sum(letter not in known for letter in text)
    assert f"leaves out {figures['unknown']['train']:,} characters" in warning
    needed = len({*text}) + 4
    assert f"raise data.vocab_size to {needed:,}, " in warning
    assert Tokenizer.train([text], kind="character", vocab_size=needed).encode(text).count(3) == 0


def test_texts_that_a_tokenizer_from_a_file_changes_are_told(look, tmp_path):
    Tokenizer.train(PAIRS, kind="bpe", vocab_size=300, strip_accents=True).save(tmp_path / "bare.json")
    _, figures, lines, warnings = look([f"{pair} é" for pair in PAIRS], tokenizer=str(tmp_path / "bare.json"))
    assert figures["not_written_back"] == 34
    assert any("bare.json, kind bpe" in line for line in lines)
    assert any("34 of 34 texts change in the tokenizer" in warning for warning in warnings)
