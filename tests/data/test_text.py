"""Plain text is read whole, in passages of which no two splits share one."""

import json
from itertools import chain

import pytest

from regard.data.corpus import plain_hash
from regard.data.splits import split_documents
from regard.data.text import PASSAGE_LENGTH, Text, read_passages, write_documents
from regard.errors import RegardError


def paragraph(number: int) -> str:
    return f"Paragraph {number}. " + f"It has a sentence with {number} in it. " * 12


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(map(paragraph, range(200))) + "\n", encoding="utf-8")
    return path


def test_the_passages_of_a_file_are_its_text_and_end_with_a_paragraph(book):
    passages = list(read_passages([book]))
    assert "".join(passage.text for passage in passages) == book.read_text()
    assert [passage.begins for passage in passages] == [True] + [False] * (len(passages) - 1)
    for passage in passages[:-1]:
        assert passage.text.endswith("\n\n")
        assert PASSAGE_LENGTH <= len(passage.text) < PASSAGE_LENGTH + len(paragraph(100)) + 2


def test_a_text_without_paragraphs_is_cut_at_lines(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("a line of verse\n" * 2000, encoding="utf-8")
    passages = [passage.text for passage in read_passages([path])]
    assert "".join(passages) == path.read_text()
    assert len(passages) > 3
    assert all(passage.endswith("verse\n") for passage in passages)


def test_blank_lines_before_a_text_are_no_passage_of_their_own(tmp_path):
    path = tmp_path / "late.txt"
    path.write_text("\n" * 3 * PASSAGE_LENGTH + "It begins here.\n", encoding="utf-8")
    assert [(passage.text.strip(), passage.begins) for passage in read_passages([path])] == [("It begins here.", True)]


@pytest.mark.parametrize("unit", ["word ", "这是一个句子。", "x", "é"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_text_in_one_long_line_is_cut_between_words_or_sentences_and_nothing_of_it_is_lost(tmp_path, unit, end):
    whole = unit * (200_000 // len(unit.encode()))
    path = tmp_path / "line.txt"
    path.write_text(whole + end, encoding="utf-8")
    passages = list(read_passages([path]))
    assert "".join(passage.text for passage in passages) == whole + "\n"
    assert [passage.begins for passage in passages] == [True] + [False] * (len(passages) - 1)
    assert all(passage.text.endswith(unit) for passage in passages[:-1])


def test_a_book_in_one_record_is_one_document_and_held_out_by_its_passages(tmp_path, book):
    path = tmp_path / "books.jsonl"
    write_documents(path, [book.read_text(), "A letter.\n\nIt has two paragraphs."])
    text = Text(name="x", splits={"train": (path,)})
    assert list(text.documents("train")) == [book.read_text(), "A letter.\n\nIt has two paragraphs."]
    passages = list(text.passages("train"))
    assert [passage for passage in passages if passage.begins] == [passages[0], passages[-1]]
    assert passages[:-1] == list(read_passages([book]))
    splits = Text.from_files(path)
    parts = [passage.text for split in splits.splits for passage in splits.passages(split)]
    assert sorted(parts) == sorted(passage.text for passage in passages)


def test_a_record_longer_than_a_line_of_pairs_may_be_is_a_document(tmp_path):
    path = tmp_path / "long.jsonl"
    write_documents(path, ["word " * 500_000])
    assert list(Text(name="x", splits={"train": path}).documents("train")) == ["word " * 500_000]


def test_the_text_of_a_record_is_chosen_by_its_key(tmp_path):
    path = tmp_path / "keys.jsonl"
    path.write_text('{"title": "one", "body": "text"}\n', encoding="utf-8")
    assert list(Text(name="x", splits={"train": path}, key="body").documents("train")) == ["text"]
    with pytest.raises(RegardError, match=r"has the keys 'title', 'body'; say which to read: data\.text_key"):
        list(read_passages([path]))


def test_splits_share_no_passage_and_leave_out_none(book):
    text = Text.from_files(book)
    parts = {split: [passage.text for passage in text.passages(split)] for split in text.splits}
    assert all(parts.values())
    assert sorted(chain.from_iterable(parts.values())) == sorted(passage.text for passage in read_passages([book]))
    assert not set(parts["train"]) & (set(parts["dev"]) | set(parts["test"]))


def test_copies_of_a_passage_fall_into_one_split(book, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_text(book.read_text().upper(), encoding="utf-8")
    text = Text.from_files([book, copy])
    hashes = {split: {plain_hash(passage.text) for passage in text.passages(split)} for split in text.splits}
    assert not hashes["train"] & (hashes["dev"] | hashes["test"])
    assert all(len(list(text.passages(split))) == 2 * len(hashes[split]) for split in hashes)


def test_what_was_torn_by_a_passage_held_out_is_two_documents(book):
    text = Text.from_files(book)
    documents = list(text.documents("train"))
    assert len(documents) > 1
    assert all(document in book.read_text() for document in documents)
    assert "".join(documents) == "".join(passage.text for passage in text.passages("train"))


def test_what_is_held_out_stays_so_when_the_file_grows(book):
    text = Text.from_files(book)
    held_out = list(text.documents("test"))
    with book.open("a", encoding="utf-8") as file:
        file.write("\n" + "\n\n".join(map(paragraph, range(1000, 1100))))
    again = Text.from_files(book, hashes=text.hashes)
    assert set(held_out) <= set(again.documents("test"))


def test_documents_come_back_from_json_lines_as_they_went(tmp_path):
    documents = ["one\n\ntwo\u2028three", "四\tfive", 'quote " and \\']
    write_documents(tmp_path / "some.jsonl", documents)
    text = Text.from_files(tmp_path / "some.jsonl", tmp_path / "some.jsonl", tmp_path / "some.jsonl")
    assert list(text.documents("train")) == documents
    assert not text.hashes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", r"bad\.jsonl:2: not a JSON object"),
        ("[1]", r'bad\.jsonl:2: needs a text under "text"'),
        ('{"text": 5}', r'bad\.jsonl:2: needs a text under "text"'),
        ('{"text": "\\ud800"}', r"bad\.jsonl:2: half a surrogate pair at character 0"),
    ],
)
def test_a_line_that_is_no_document_is_told_with_its_place(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps({'text': 'fine'})}\n{line}\n", encoding="utf-8")
    with pytest.raises(RegardError, match=message):
        list(read_passages([path]))


def test_a_text_too_short_to_be_split_and_standard_input_are_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Too short.\n", encoding="utf-8")
    with pytest.raises(RegardError, match=r"short\.txt: 1 different passages cannot be split into train, dev and test"):
        Text.from_files(path)
    with pytest.raises(RegardError, match="save it as a file"):
        Text.from_files("-")
    with pytest.raises(RegardError, match="did you mean 'test'"):
        Text.from_files(path, path, path).passages("tets")


def test_documents_that_share_thirteen_words_are_in_one_split():
    words = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(600)]
    passages = [" ".join(words[20 * n : 20 * n + 13]) for n in range(24)]
    # a group of two is more than a hundredth of all: it is for training
    shared = [f"{before} {passage} {after}" for passage in passages[8:] for before, after in (("a", "b"), ("c", "d"))]
    splits = split_documents([*passages[:8], *shared])
    assert sorted(chain.from_iterable(splits.values())) == list(range(40))
    assert len(splits["dev"]) == len(splits["test"]) == 2
    assert set(range(8, 40)) <= set(splits["train"])
    twelve = [f"{around} {' '.join(words[:12])} {around}" for around in ("one", "two", "three", "four", "five")]
    assert all(split_documents(twelve).values())
