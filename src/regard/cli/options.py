"""What several verbs take."""

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from regard.config import texts
from regard.data.messages import check_messages
from regard.errors import RegardError
from regard.files import read_whole
from regard.generation.decoding import Decoding
from regard.generation.options import SamplingOptions
from regard.reading.options import ReadOptions

if TYPE_CHECKING:
    from regard.data.formats import Pair

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float64"]
Heuristic = Literal["grow-diag-final-and", "grow-diag-final", "grow-diag", "intersection", "union"]
Split = Literal["train", "dev", "test"]
# bytes of a text that a model is given at once
LONGEST_TEXT = 1 << 26
Count = Annotated[int, Parameter(validator=Number(gte=1))]
# pairs that are read together: enough to find many of like length
CHUNK = 1024
# one with both sides or two aligned ones; and those in place of a split
PairFiles = Annotated[tuple[Path, ...], Parameter(allow_leading_hyphen=True, show_default=False)]
TestFiles = Annotated[tuple[Path, ...], Parameter(consume_multiple=True, show_default=False)]


def _accepted_by(kind: type, check: Callable[[Any], object]) -> Callable[[object, Any], None]:
    """A validator: options that the library refuses are a usage error, in which num_beams is --num-beams."""
    names = "|".join(field.name if "_" in field.name else f"^{field.name}" for field in dataclasses.fields(kind))

    def validate(_: object, options: Any) -> None:
        try:
            check(options)
        except RegardError as error:
            told = re.sub(r"^(decoding|reading): ", "", str(error))
            raise ValueError(re.sub(rf"\b({names})\b", lambda name: f"--{name[0].replace('_', '-')}", told)) from None

    return validate


# an option for each field
DecodingOptions = Annotated[
    Decoding, Parameter(name="*", validator=_accepted_by(Decoding, lambda options: Decoding.of(options, {})))
]
GREEDY = Decoding()


def _not_an_option(_: object, text: str | None) -> None:
    # `-` has to be let through, and with it comes every misspelled option
    if text and text != "-" and text.startswith("-") and len(text.split()) == 1:
        raise ValueError(f"there is no option {text}; a text that starts with a hyphen can come from standard input")


HyphenOrText = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_not_an_option)]


def pair_chunks(files: tuple[Path, ...]) -> Iterator[tuple[list["Pair"], Callable[[int], str]]]:
    """The pairs of one file or of two, blank ones too, some at a time, and what errors call each of these."""
    from regard.data.formats import display_name, read_all_pairs

    pairs, done, name = read_all_pairs(files), 0, " and ".join(map(display_name, files))
    while chunk := list(itertools.islice(pairs, CHUNK)):
        yield chunk, lambda index, first=done + 1: f"{name}: pair {first + index}"
        done += len(chunk)


def test_set(split: str | None, file: tuple[Path, ...]) -> tuple[str, list[Path] | None, dict[str, Any]]:
    """The split and the files that a run is measured on, and how a JSON document names them."""
    if file and split is not None:
        raise RegardError("--file takes the place of a split; leave out --split")
    if file:
        return "test", list(file), {"files": list(map(str, file))}
    return split or "test", None, {"split": split or "test"}


def text_or_standard_input(text: str) -> str:
    """The text, or the lines of standard input where it is `-`. Raises RegardError if they are not UTF-8 text."""
    from regard.data.formats import read_lines

    if text != "-":
        return text
    lines, length = [], 0
    for line in read_lines("-"):
        lines.append(line)
        length += len(line) + 1
        if length > LONGEST_TEXT:
            raise RegardError(f"standard input: more than {LONGEST_TEXT:,} characters, which no model takes; give less")
    return "\n".join(lines).strip("\n")


def text_of_file(path: Path | str) -> str:
    """All of a text file, or of standard input where it is `-`, without the newline that ends it.

    Raises RegardError if it cannot be read or is not UTF-8 text.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read(LONGEST_TEXT + 1) if str(path) == "-" else read_whole(Path(path), LONGEST_TEXT)
    except OSError as error:
        raise RegardError(f"{name}: cannot be read: {error.strerror or error}; check the path") from None
    if len(data) > LONGEST_TEXT:
        raise RegardError(f"{name}: more than {LONGEST_TEXT:,} bytes, which no model takes; give less")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RegardError(f"{name}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None


def messages_of_file(path: Path) -> list[dict[str, Any]]:
    """The messages of a JSON file, or of standard input where it is `-`. Raises RegardError, with the place in it."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        found = json.loads(text_of_file(path))
    except json.JSONDecodeError as error:
        raise RegardError(f"{name}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise RegardError(f"{name}: nested too deeply, or with numbers too long, for a list of messages") from None
    check_messages(found, name, has_parts=True)
    return found


def with_system(system: str, prompt: str) -> list[dict[str, Any]]:
    """A conversation of a system message and the user's prompt."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    check_messages(messages, "--system and prompt")
    return messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageFlags:
    """From which language to which a pretrained translator of several translates.

    Parameters
    ----------
    source_language
        The language of the source, for a pretrained translator of several: a tag as its tokenizer has it, such as
        eng_Latn, en_XX or en.
    target_language
        The language to write, as a tag.
    source_prefix
        What stands before each source, for a pretrained model of several tasks: "translate English to French: ".
    """

    source_language: str | None = None
    target_language: str | None = None
    source_prefix: str | None = None


Languages = Annotated[LanguageFlags, Parameter(name="*")]
NO_LANGUAGES = LanguageFlags()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadFlags(ReadOptions):
    """What is read of a language model, and how it writes.

    Parameters
    ----------
    chat
        The prompt is a user's message, put into the model's chat template. A model without one is given a page, up to
        the last blank line, and `Question: … Answer:`, in Chinese for a Chinese question.
    """

    chat: bool = False
    max_new_tokens: Annotated[Count, Parameter(help=texts(SamplingOptions)["max_new_tokens"])] = 64
    # as they are typed
    rows: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    statistics: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = ()
    layers: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    segments: str = "sentences"

    @property
    def reading(self) -> dict[str, Any]:
        """The options of reading that were given."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(ReadOptions)}
        return {name: value for name, value in told.items() if value is not None}

    def changed(self) -> list[str]:
        """The options that were given, as they are spelt."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]


ReadingFlags = Annotated[
    ReadFlags, Parameter(name="*", validator=_accepted_by(ReadOptions, lambda flags: ReadOptions.of(flags.reading)))
]
USUAL = ReadFlags()
