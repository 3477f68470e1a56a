"""Plain text to learn a language from: documents, in three splits that share none of their passages."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regard.config import suggest
from regard.data.corpus import Files, file_paths, hash_ranges, plain_hash
from regard.data.formats import check_whole, display_name, file_suffix, parse_json_line, read_lines
from regard.errors import RegardError

# a document is held out in passages, which end at the first end of a paragraph after PASSAGE_LENGTH characters, or of a
# line after LONGEST_PASSAGE times as many
PASSAGE_LENGTH = 2000
LONGEST_PASSAGE = 4


class Passage(NamedTuple):
    """A piece of a document; what was before it is another's where it `begins` one."""

    text: str
    begins: bool


@dataclass(frozen=True)
class Text:
    """Documents under `train`, `dev` and `test`, each split in files: plain ones of one document, or JSON lines.

    `hashes` names the splits that are a part of their files: the passages whose hash lies between first and last.
    """

    name: str
    splits: Mapping[str, Sequence[Path | str]]
    licence: str | None = None
    attribution: str | None = None
    hashes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    # no words of another language are linked to it
    links: Mapping[str, Path] = field(default_factory=dict)

    def passages(self, split: str) -> Iterator[Passage]:
        """The passages of a split, streamed; where one was held out between two, the second begins a document.

        Raises RegardError if there is no such split or its files are bad.
        """
        if split not in self.splits:
            raise RegardError(f"corpus {self.name} has no split {split!r}{suggest(split, self.splits)}")
        return self._passages(split)

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

    def _passages(self, split: str) -> Iterator[Passage]:
        first, last = self.hashes.get(split, (0, 2**64 - 1))
        torn = False
        for passage in read_passages(self.splits[split]):
            if first <= plain_hash(passage.text) <= last:
                yield Passage(passage.text, passage.begins or torn)
                torn = False
            else:
                torn = True

    @classmethod
    def from_files(
        cls,
        train: Files,
        dev: Files | None = None,
        test: Files | None = None,
        *,
        hashes: Mapping[str, tuple[int, int]] | None = None,
    ) -> "Text":
        """A user's own files: plain text, each a document, or `.jsonl` with a document in "text" on each line.

        Where `dev` or `test` is not given, 1,000 passages or 5 % of those of `train`, whichever is less, are held out
        for it by their hashes; a passage is a document of a .jsonl file, or whole paragraphs of a plain one.
        `hashes` are those of an earlier call. Raises RegardError for files that cannot be used.
        """
        given = {"train": file_paths(train), "dev": file_paths(dev), "test": file_paths(test)}
        if any(str(path) == "-" for paths in given.values() for path in paths):
            raise RegardError("plain text is read several times and cannot be standard input (-); save it as a file")
        name = " and ".join(display_name(path) for path in given["train"])
        missing = [split for split, paths in given.items() if not paths]
        if hashes is None:
            found = (plain_hash(passage.text) for passage in read_passages(given["train"])) if missing else ()
            hashes = hash_ranges(name, found, missing, "passages", "text") if missing else {}
        elif lacking := [split for split in missing if split not in hashes]:
            raise RegardError(f"{name}: it is not recorded which passages are {lacking[0]}; give files for them")
        # a split that has been given a file of its own since is all of that file
        hashes = {split: ends for split, ends in hashes.items() if split in missing or split == "train"}
        return cls(name=name, splits={split: paths or given["train"] for split, paths in given.items()}, hashes=hashes)


def read_passages(paths: Iterable[Path | str]) -> Iterator[Passage]:
    """The passages of files, those without anything to read left out. Raises RegardError for what is not text."""
    for path in paths:
        passages = _read_documents(path) if file_suffix(path) == ".jsonl" else _read_plain(path)
        yield from (passage for passage in passages if passage.text.strip())


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """One document a line, as JSON."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": document}, ensure_ascii=False) + "\n" for document in documents)


def _read_plain(path: Path | str) -> Iterator[Passage]:
    lines: list[str] = []
    length, begins = 0, True
    for line in read_lines(path):
        lines.append(f"{line}\n")
        length += len(line) + 1
        enough = length >= PASSAGE_LENGTH * (LONGEST_PASSAGE if line.strip() else 1)
        if enough and any(map(str.strip, lines)):
            yield Passage("".join(lines), begins)
            lines, length, begins = [], 0, False
    yield Passage("".join(lines), begins)


def _read_documents(path: Path | str) -> Iterator[Passage]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{display_name(path)}:{number}"
        record = parse_json_line(line, where)
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise RegardError(f'{where}: needs a text under "text", like {{"text": "Once upon a time"}}')
        check_whole(text, where)
        yield Passage(text, True)
