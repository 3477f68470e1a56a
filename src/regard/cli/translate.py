"""`regard translate`: line in, line out."""

import contextlib
import hashlib
import itertools
import json as json_module
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

from cyclopts import Parameter

from regard.cli.options import GREEDY, Count, DecodingOptions, Device, Dtype, HyphenOrText
from regard.data.growing import GrowingFile, check_no_other_record, check_record, growing_file, recorded
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.api import Generation

# lines translated together: enough to find many of like length
CHUNK = 1024


class Line(NamedTuple):
    """A line of the input, its place from 0, and what its translation is to begin with."""

    place: int
    text: str
    prefix: str


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
        """Whether so many lines were others, by what a record tells of them."""
        if not isinstance(before, dict) or before.get("lines") != self._lines:
            return False
        return before.get("sha256") != self._hash.hexdigest()


def translate(
    run: Path,
    file: HyphenOrText = "-",
    /,
    *,
    decoding: DecodingOptions = GREEDY,
    prefix: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    prefixes: Path | None = None,
    replace_unknown: bool = False,
    batch_size: Count = 64,
    out: Path | None = None,
    resume: bool = False,
    alignments: Path | None = None,
    layer: int = -1,
    head: int | None = None,
    scores: bool = False,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Translate a text, line in, line out. An empty line stays an empty line.

    Parameters
    ----------
    run
        A run folder.
    file
        A text file, plain, gzip or xz; `-` is standard input.
    prefix
        What each translation begins with, to the letter; it may end anywhere, also within a word.
    prefixes
        A text file with a prefix for each line.
    replace_unknown
        Models of words write, for a word they do not know, the source word that they looked at most: one that they do
        not know either, where there is one.
    batch_size
        Sentences translated at a time. In float32 it changes the last digits of scores alone; the coarser rounding of
        bfloat16 turns some translations into others.
    out
        Where the translations go in place of standard output, line by line.
    resume
        Go on behind the translations that --out has, and the alignments.
    alignments
        Writes the word alignment of each best translation, a line of source-target pairs (Pharaoh format).
    layer
        The cross layer that --alignments reads; -1 is the last. Where there are gold links, `regard evaluate` tells
        which layer and head align best.
    head
        The head that --alignments reads; by default the mean of all.
    scores
        Before each translation its score and its log-probability, with tabs between.
    json
        One JSON object a line: source, translations with score and log-probability, and whether each is finished.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_run
    from regard.data.download import file_sha256
    from regard.data.formats import display_name
    from regard.reading.replay import pharaoh
    from regard.training.run import WEIGHTS

    _check(prefix=prefix, prefixes=prefixes, out=out, resume=resume, scores=scores, json=json)
    _check_written(
        {"--out": out, "--alignments": alignments}, {"FILE": Path(file), "--prefixes": prefixes}, resume=resume
    )
    translator = load_run(run, device=device, dtype=dtype)
    # told before anything is translated
    if alignments is not None:
        translator.check_cross_attention(layer=layer, head=head)
    if replace_unknown:
        translator.check_replace_unknown()
    show = _json if json else _table if scores else _text
    inputs, size, unfinished = _inputs(file, prefix, prefixes), _size(file), 0
    work: dict[str, Any] = {}
    begun, consumed = None, Consumed()
    if out is not None:
        work = {
            "run": str(run.resolve()),
            "weights": file_sha256(run / WEIGHTS),
            "input": file if file == "-" else str(Path(file).resolve()),
            "prefix": prefix,
            "prefixes": prefixes and str(prefixes.resolve()),
            "replace_unknown": replace_unknown,
            "format": "json" if json else "scores" if scores else "text",
            "dtype": dtype,
            **vars(decoding),
            "alignments": alignments and {"file": os.path.realpath(alignments), "layer": layer, "head": head},
        }
        if resume:
            begun = check_record(out, work)
        else:
            check_no_other_record(out, work)
    with contextlib.ExitStack() as stack:
        written = None if out is None else stack.enter_context(growing_file(out, resume=resume))
        aligned = None
        if alignments is not None:
            # where nothing could go on behind it, it appears whole or not at all
            opened = _whole_file(alignments) if out is None else growing_file(alignments, resume=resume)
            aligned = stack.enter_context(opened)
        weigh: Callable[[Line], int] = _bytes if size else lambda line: 1
        advance = stack.enter_context(_progress(translator.name, size, hidden=out is None and sys.stdout.isatty()))
        if resume and written is not None:
            lines_each = 1 if json else decoding.n_best
            known = begun is not None
            skipped = _skip(inputs, written, aligned, lines_each=lines_each, json=json, file=file, known=known)
            for line in skipped:
                consumed.add(line)
                if begun is not None and consumed.differs(begun.get("consumed")):
                    raise RegardError(
                        f"{display_name(file)}, or what --prefixes names, begins otherwise than when {out} was begun; "
                        "put it back, or choose another --out"
                    )
                advance(weigh(line))
        note = stack.enter_context(recorded(out, work)) if out is not None else lambda progress: None
        note(consumed.told())

        def translate_lines(lines: list[Line]) -> "list[list[Generation]]":
            each = sum(map(weigh, lines)) / len(lines)
            return translator.translate_n_best(
                [line.text for line in lines],
                decoding,
                prefixes=[line.prefix for line in lines] if prefix or prefixes else None,
                replace_unknown=replace_unknown,
                batch_size=batch_size,
                first=lines[0].place,
                progress=lambda sentences: advance(each * sentences),
                name=lambda index: f"{display_name(file)}:{lines[index].place + 1}",
            )

        # someone who types wants an answer to each line
        chunks = _chunks(inputs, 1 if file == "-" and sys.stdin.isatty() else CHUNK)
        for lines, found in (part for chunk in chunks for part in _translated(translate_lines, chunk)):
            sources, best = [line.text for line in lines], [generations[0] for generations in found]
            text = "".join(show(*each, decoding.n_best) for each in zip(sources, found, strict=True))
            if written is None:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                written.write(text)
            if aligned is not None:
                tables = translator.alignments(sources, best, layer=layer, head=head)
                aligned.write("".join(pharaoh(table) + "\n" for table in tables))
            for line in lines:
                consumed.add(line)
            note(consumed.told())
            unfinished += sum(not generation.finished for generation in best)
    if unfinished:
        print(f"regard: {unfinished} translations were cut at the limit; see --max-new-tokens", file=sys.stderr)


def _check(*, prefix: str, prefixes: Path | None, out: Path | None, resume: bool, scores: bool, json: bool) -> None:
    if prefix and prefixes is not None:
        raise RegardError("--prefix is for all lines, --prefixes has one for each; give one of the two")
    if scores and json:
        raise RegardError("--json has the scores already; leave out --scores")
    if resume and out is None:
        raise RegardError("--resume goes on behind what --out has; name that file")


def _check_written(written: dict[str, Path | None], read: dict[str, Path | None], *, resume: bool) -> None:
    """What is written must be neither what is read nor another file of what is written, nor put an end to any other."""
    from regard.files import is_stream, same_file

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


def _inputs(file: str, prefix: str, prefixes: Path | None) -> Iterator[Line]:
    from regard.data.formats import display_name, read_lines

    if prefixes is None:
        yield from (Line(index, text, prefix) for index, text in enumerate(read_lines(file)))
        return
    for index, (text, begin) in enumerate(itertools.zip_longest(read_lines(file), read_lines(prefixes))):
        if text is None or begin is None:
            shorter, longer = (display_name(file), prefixes) if text is None else (prefixes, display_name(file))
            raise RegardError(f"{shorter} has {index} lines, {longer} more; each line needs its own prefix, if empty")
        yield Line(index, text, begin)


def _size(file: str) -> int | None:
    """The bytes of a file, where they say how much there is to translate."""
    from regard.data.formats import COMPRESSION_SUFFIXES

    path = Path(file)
    return path.stat().st_size if path.is_file() and path.suffix not in COMPRESSION_SUFFIXES else None


def _bytes(line: Line) -> int:
    return len(line.text.encode()) + 1


def _progress(name: str, size: int | None, *, hidden: bool) -> contextlib.AbstractContextManager[Callable]:
    from regard.view.progress import counting

    if hidden:
        return contextlib.nullcontext(lambda count: None)
    return counting(f"{name} translates {'lines' if size is None else 'bytes'}", size)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    from regard.files import new_file

    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


def _skip(
    inputs: Iterator[Line],
    written: GrowingFile,
    aligned: GrowingFile | TextIO | None,
    *,
    lines_each: int,
    json: bool,
    file: str,
    known: bool,
) -> Iterator[Line]:
    """The lines that are translated already, read one by one; then what is half done is dropped from the files.

    Translations without alignments are `known` to be of this work, or might be anybody's.
    """
    from regard.data.formats import display_name

    done, line = written.lines // lines_each, None
    if isinstance(aligned, GrowingFile):
        if done and not aligned.lines and not known:
            raise RegardError(
                f"{aligned.path} has no alignments of the translations in {written.path}; leave it out, or begin anew"
            )
        done = min(done, aligned.lines)
    for number in range(done):
        line = next(inputs, None)
        if line is None:
            raise RegardError(
                f"{written.path} has translations of {done} lines, {display_name(file)} has {number}: they are of "
                "another text; choose another --out"
            )
        yield line
    if json and line is not None and _source(written.line(line.place)) != line.text:
        raise RegardError(f"{written.path}:{done}: its source is not {display_name(file)}:{done}; choose another --out")
    written.keep(done * lines_each)
    if isinstance(aligned, GrowingFile):
        aligned.keep(done)


def _source(line: str) -> object:
    try:
        document = json_module.loads(line)
    except (ValueError, RecursionError):
        return None
    return document.get("source") if isinstance(document, dict) else None


def _chunks(inputs: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """So many lines at a time; where reading fails, what was read before, and then the error."""
    chunk = []
    try:
        for line in inputs:
            chunk.append(line)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except RegardError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _translated(
    translate_lines: "Callable[[list[Line]], list[list[Generation]]]", lines: list[Line]
) -> "Iterator[tuple[list[Line], list[list[Generation]]]]":
    """Lines with their translations; where one cannot be translated, those before it, and then the error."""
    try:
        found = translate_lines(lines)
    except RegardError:
        if len(lines) == 1:
            raise
        half = len(lines) // 2
        yield from _translated(translate_lines, lines[:half])
        yield from _translated(translate_lines, lines[half:])
    else:
        yield lines, found


def _text(line: str, generations: "list[Generation]", count: int) -> str:
    # one line in is one line out, whatever the model wrote
    texts = [generation.text.replace("\n", " ").replace("\r", " ") + "\n" for generation in generations]
    return "".join(texts) + "\n" * (count - len(generations))


def _table(line: str, generations: "list[Generation]", count: int) -> str:
    rows = [
        f"{generation.score:.6f}\t{generation.log_probability:.6f}\t{_text(line, [generation], 1)}"
        for generation in generations
    ]
    return "".join(rows) + "\t\t\n" * (count - len(generations))


def _json(line: str, generations: "list[Generation]", count: int) -> str:
    translations = [
        {
            "text": generation.text,
            "score": generation.score,
            "log_probability": generation.log_probability,
            "finished": generation.finished,
        }
        for generation in generations
    ]
    return json_module.dumps({"source": line, "translations": translations}, ensure_ascii=False) + "\n"
