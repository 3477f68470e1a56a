"""Plain text to learn a language from: documents, in three splits that share none of their passages."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from regard.config import suggest
from regard.data.chat import contents, holds_chats, questions, read_chats
from regard.data.columns import TEXT, TEXT_NAMES, Columns, Key
from regard.data.corpus import Files, Watcher, counted, hash_ranges, plain_hash, unwatched
from regard.data.formats import FORMATS
from regard.data.lines import read_pieces
from regard.data.normal_form import in_form
from regard.data.packing import file_suffix
from regard.data.parts import Data, Part, check_data, data_name, parts_of, paths_in
from regard.errors import RegardError

# a document is held out in passages, which end at the first end of a paragraph after PASSAGE_LENGTH characters, or of a
# line after LONGEST_PASSAGE times as many
PASSAGE_LENGTH = 2000
LONGEST_PASSAGE = 4
# a document of a file with many is held out whole, but for one that is a book by itself
LONGEST_DOCUMENT = 1 << 16
# of such a book: lines, and parts of lines that are very long
PIECE = re.compile(r"[^\n]{1,16384}\n?|\n")
# what is shorter and ends without a newline is the last line, not a part of a long one
PART_OF_LINE = 4096
SENTENCE_ENDS = "。！？"


class Passage(NamedTuple):
    """A piece of a document; what was before it is another's where it `begins` one."""

    text: str
    begins: bool


@dataclass(frozen=True)
class Text:
    """Documents under `train`, `dev` and `test`, each split in files: plain ones of one document, or of records.

    With `chats` each document is a conversation, as `regard.data.chat` writes it.
    `hashes` names the splits that are a part of their files: the passages whose hash lies between first and last.
    `key` is the name of the text in files of records.
    `form` is the Unicode normal form, such as NFC, in which passages are given; None leaves them as they are.
    """

    name: str
    splits: Mapping[str, Data]
    licence: str | None = None
    attribution: str | None = None
    hashes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    # no words of another language are linked to it
    links: Mapping[str, Path] = field(default_factory=dict)
    key: Key | None = None
    form: str | None = None
    chats: bool = False

    def passages(self, split: str) -> Iterator[Passage]:
        """The passages of a split, streamed; where one was held out between two, the second begins a document.

        Raises RegardError if there is no such split or its files are bad.
        """
        return self._passages(split, self.parts(split))

    def parts(self, split: str) -> list[Part]:
        """The files of a split, corpus by corpus. Raises RegardError where there is no such split or no file."""
        if split not in self.splits:
            raise RegardError(f"corpus {self.name} has no split {split!r}{suggest(split, self.splits)}")
        return parts_of(self.splits[split], Columns(TEXT_NAMES, (self.key,)))

    def documents(self, split: str) -> Iterator[str]:
        """The documents of a split, put together of their passages."""
        texts: list[str] = []
        for passage in self.passages(split):
            if passage.begins and texts:
                yield "".join(texts)
                texts = []
            texts.append(passage.text)
        if texts:
            yield "".join(texts)

    def _passages(self, split: str, parts: Iterable[Part]) -> Iterator[Passage]:
        first, last = self.hashes.get(split, (0, 2**64 - 1))
        torn = False
        for passage in _read_chats(parts) if self.chats else _read(parts):
            if first <= self.hash_of(passage) <= last:
                yield Passage(in_form(passage.text, self.form), passage.begins or torn)
                torn = False
            else:
                torn = True

    def plain(self, passage: Passage) -> str:
        """The text of a passage: of a conversation, what is said in it."""
        return contents(passage.text) if self.chats else passage.text

    def hash_of(self, passage: Passage) -> int:
        """`plain_hash` of a passage, of a conversation that of its questions: by it passages fall into splits."""
        return plain_hash(questions(passage.text) if self.chats else passage.text)

    @classmethod
    def from_files(
        cls,
        train: Files,
        dev: Files | None = None,
        test: Files | None = None,
        *,
        hashes: Mapping[str, tuple[int, int]] | None = None,
        text_key: Key | None = None,
        form: str | None = None,
        progress: Watcher = unwatched,
    ) -> "Text":
        """A user's own files: plain text, each a document, or files of records, such as `.jsonl`, each a document.

        The first file decides whether documents are conversations; those that ask the same fall into one split.
        Each split is a file, a folder, a list of these or a table, as docs/data.md describes.
        Where `dev` or `test` is not given, 1,000 passages or 5 % of those of `train`, whichever is less, are held out
        for it by their hashes; a passage is a document of a file of records, or whole paragraphs of a plain one or of
        a long document. `hashes` are those of an earlier call, `form` as in the class. `text_key` names the column or
        key of the text. `progress` hears what is read. Raises RegardError for files that cannot be used.
        """
        given = {split: data for split, data in (("train", train), ("dev", dev), ("test", test)) if data is not None}
        for split, data in given.items():
            check_data(data, split)
            if any(str(path) == "-" for path in paths_in(data)):
                raise RegardError(
                    "plain text is read several times and cannot be standard input (-); save it as a file"
                )
        name = data_name(train)
        chats = text_key is None and are_chats(train)
        missing = [split for split in ("train", "dev", "test") if split not in given]
        if hashes is None:
            text = cls(name=name, splits=given, key=text_key, chats=chats)
            passages = text.passages("train") if missing else ()
            found = map(text.hash_of, counted(passages, "reading passages", progress))
            what = ("questions", "conversations") if chats else ("passages", "text")
            hashes = hash_ranges(name, found, missing, *what) if missing else {}
        elif lacking := [split for split in missing if split not in hashes]:
            raise RegardError(f"{name}: it is not recorded which passages are {lacking[0]}; give files for them")
        # a split that has been given a file of its own since is all of that file
        hashes = {split: ends for split, ends in hashes.items() if split in missing or split == "train"}
        splits = {split: given.get(split, given["train"]) for split in ("train", "dev", "test")}
        return cls(name=name, splits=splits, hashes=hashes, key=text_key, form=form, chats=chats)


def are_chats(data: Data) -> bool:
    """Whether files hold conversations, by the first of them. Raises RegardError for files that are not there."""
    part = parts_of(data, TEXT)[0]
    return part.columns.keys == (None,) and holds_chats(part.files[0])


def read_passages(data: Data) -> Iterator[Passage]:
    """The passages of files, those without anything to read left out. Raises RegardError for what is not text."""
    return _read(parts_of(data, TEXT))


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """One document a line, as JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)


def _read(parts: Iterable[Part]) -> Iterator[Passage]:
    for part in parts:
        for path in part.files:
            read = FORMATS.get(file_suffix(path))
            documents = [_lines(path)] if read is None else (_pieces(text) for (text,) in read(path, part.columns))
            for passage in chain.from_iterable(map(_cut, documents)):
                if passage.text.strip():
                    yield passage


def _read_chats(parts: Iterable[Part]) -> Iterator[Passage]:
    for part in parts:
        for path in part.files:
            yield from (Passage(text, True) for text in read_chats(path))


def _lines(path: Path | str) -> Iterator[str]:
    """The pieces of a plain text, the last line of which ends as all do."""
    piece = ""
    for piece in read_pieces(path):
        yield piece
    if not piece.endswith("\n"):
        yield "\n"


def _pieces(text: str) -> Iterable[str]:
    return (text,) if len(text) <= LONGEST_DOCUMENT else PIECE.findall(text)


def _cut(pieces: Iterable[str]) -> Iterator[Passage]:
    """The passages of a document that comes in lines, of which long ones may come in parts."""
    lines: list[str] = []
    length, begins, rest = 0, True, ""
    for piece in pieces:
        whole, rest = _cut_at_word(rest + piece)
        lines.append(whole)
        length += len(whole)
        enough = length >= PASSAGE_LENGTH * (LONGEST_PASSAGE if whole.strip() else 1)
        if enough and any(map(str.strip, lines)):
            yield Passage("".join(lines), begins)
            lines, length, begins = [], 0, False
    yield Passage("".join([*lines, rest]), begins)


def _cut_at_word(piece: str) -> tuple[str, str]:
    """A part of a long line up to the end of its last sentence or word, and the rest; a whole line stays whole."""
    if piece.endswith("\n") or len(piece) < PART_OF_LINE:
        return piece, ""
    ends = (max(map(piece.rfind, marks)) for marks in (SENTENCE_ENDS, " "))
    end = next((end + 1 for end in ends if end > len(piece) // 2), len(piece))
    return piece[:end], piece[end:]
