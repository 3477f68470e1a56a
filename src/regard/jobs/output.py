"""Where the translations of a job go: each line once, whole, and behind what an earlier try has written."""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, final

from regard.data.growing import GrowingFile, check_no_other_record, check_record, growing_file, recorded
from regard.errors import RegardError
from regard.files import is_stream, new_file, same_file
from regard.jobs.lines import Line


@final
class Consumed:
    """How many lines of the input have been translated, and a hash of them, by which another input is known."""

    def __init__(self) -> None:
        self._lines = 0
        self._hash = hashlib.sha256()

    def add(self, line: Line) -> None:
        self._lines += 1
        self._hash.update(f"{line.text}\n{line.prefix}\n".encode())

    def told(self) -> dict[str, Any]:
        """What goes into the record."""
        return {"consumed": {"lines": self._lines, "sha256": self._hash.hexdigest()}}

    def differs(self, before: object) -> bool:
        """Whether as many lines were others, by what a record tells of them."""
        if not isinstance(before, dict) or before.get("lines") != self._lines:
            return False
        return before.get("sha256") != self._hash.hexdigest()


@final
class Output:
    """Translations and alignments grow by whole lines, with a record of the lines that they are of."""

    def __init__(
        self,
        text: GrowingFile | TextIO,
        aligned: GrowingFile | TextIO | None,
        *,
        consumed: Consumed,
        note: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._text = text
        self._aligned = aligned
        self._consumed = consumed
        self._note = note

    @property
    def is_aligned(self) -> bool:
        """Whether alignments are asked for."""
        return self._aligned is not None

    def add(self, lines: list[Line], text: str) -> None:
        """The translations of these lines, at once to be read. Raises RegardError where there is no room for them."""
        self._text.write(text)
        if not isinstance(self._text, GrowingFile):
            self._text.flush()
        for line in lines:
            self._consumed.add(line)

    def add_alignments(self, text: str) -> None:
        """Those of the lines added last."""
        assert self._aligned is not None
        self._aligned.write(text)

    def note(self) -> None:
        """Record the lines whose translations and alignments have been added."""
        self._note(self._consumed.told())


@contextlib.contextmanager
def opened_output(
    out: Path | None,
    alignments: Path | None,
    *,
    lines: Iterator[Line],
    name: str,
    work: Mapping[str, Any],
    resume: bool = False,
    lines_each: int = 1,
    format: str = "text",
    skipped: Callable[[Line], None] = lambda line: None,
) -> Iterator[Output]:
    """The output of a job over `lines`, those of the text called `name`; without `out` it is the standard output.

    With `resume` it goes on behind the lines that `out` has translations of, `lines_each` a line, and `skipped` is
    told of each. `work` says what else the translations follow from.
    Raises RegardError where other work began to fill it, or of other lines.
    """
    begun = None
    if out is not None and resume:
        begun = check_record(out, work)
    elif out is not None:
        check_no_other_record(out, work)
    with contextlib.ExitStack() as stack:
        text = sys.stdout if out is None else stack.enter_context(growing_file(out, resume=resume))
        aligned = None
        if alignments is not None:
            # where nothing could go on behind it, it appears whole or not at all
            opened = _whole_file(alignments) if out is None else growing_file(alignments, resume=resume)
            aligned = stack.enter_context(opened)
        consumed = Consumed()
        if isinstance(text, GrowingFile) and resume:
            done = _whole_lines(text, aligned, lines_each, is_known=begun is not None)
            line = None
            for line in _done(lines, done, f"{text.path}", name):
                consumed.add(line)
                if begun is not None and consumed.differs(begun.get("consumed")):
                    raise RegardError(
                        f"{name}, or what --prefixes names, begins otherwise than when {out} was begun; put it back, "
                        "or choose another --out"
                    )
                skipped(line)
            if format == "json" and line is not None and _source(text.line(line.place)) != line.text:
                raise RegardError(f"{out}:{done}: its source is not {name}:{done}; choose another --out")
            # what is half done goes
            text.keep(done * lines_each)
            if isinstance(aligned, GrowingFile):
                aligned.keep(done)
        note = stack.enter_context(recorded(out, work)) if out is not None else lambda progress: None
        output = Output(text, aligned, consumed=consumed, note=note)
        output.note()
        yield output


def check_written(written: Mapping[str, Path | None], read: Mapping[str, Path | None], *, resume: bool) -> None:
    """What is written must be neither what is read nor another file of what is written, nor put an end to any other.

    Both are named by their options. Raises RegardError.
    """
    others = [(name, path) for name, path in read.items() if path is not None and path.is_file()]
    for option, path in written.items():
        if path is None or is_stream(path):
            continue
        for name, other in others:
            if same_file(path, other):
                raise RegardError(f"{path} is {option} and {name} at once; choose another {option}")
        others.append((option, path))
        if not resume and path.exists() and path.stat().st_size:
            remedy = "--resume goes on behind it, or choose" if written["--out"] is not None else "choose"
            raise RegardError(f"{path} exists already; {remedy} another {option}")


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


def _whole_lines(text: GrowingFile, aligned: GrowingFile | TextIO | None, lines_each: int, *, is_known: bool) -> int:
    """How many lines have all of their translations and alignments.

    Translations without alignments are `is_known` to be of this work, or might be anybody's.
    """
    done = text.lines // lines_each
    if not isinstance(aligned, GrowingFile):
        return done
    if done and not aligned.lines and not is_known:
        raise RegardError(
            f"{aligned.path} has no alignments of the translations in {text.path}; leave it out, or begin anew"
        )
    return min(done, aligned.lines)


def _done(lines: Iterator[Line], count: int, out: str, name: str) -> Iterator[Line]:
    for number in range(count):
        line = next(lines, None)
        if line is None:
            raise RegardError(
                f"{out} has translations of {count} lines, {name} has {number}: they are of another text; choose "
                "another --out"
            )
        yield line


def _source(line: str) -> object:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document.get("source") if isinstance(document, dict) else None
