"""What several verbs take."""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from regard.errors import RegardError
from regard.generation.decoding import Decoding

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float64"]
Split = Literal["train", "dev", "test"]
Count = Annotated[int, Parameter(validator=Number(gte=1))]


def _makes_sense(_: object, decoding: Decoding) -> None:
    try:
        Decoding.of(decoding, {})
    except RegardError as error:
        names = "|".join(field.name for field in dataclasses.fields(Decoding))
        told = str(error).removeprefix("decoding: ")
        # what a library calls num_beams is --num-beams here, and a matter of usage
        raise ValueError(re.sub(rf"\b({names})\b", lambda name: f"--{name[0].replace('_', '-')}", told)) from None


# an option for each field
DecodingOptions = Annotated[Decoding, Parameter(name="*", validator=_makes_sense)]
GREEDY = Decoding()


def _not_an_option(_: object, text: str | None) -> None:
    # `-` has to be let through, and with it comes every misspelled option
    if text and text != "-" and text.startswith("-") and len(text.split()) == 1:
        raise ValueError(f"there is no option {text}; a text that starts with a hyphen can come from standard input")


HyphenOrText = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_not_an_option)]


def text_or_standard_input(text: str) -> str:
    """The text, or the lines of standard input where it is `-`. Raises RegardError if they are not UTF-8 text."""
    from regard.data.formats import read_lines

    return "\n".join(read_lines("-")).strip("\n") if text == "-" else text


ROWS = ("last", "all", "generated")


def _rows(_: object, text: str | None) -> None:
    if text is not None and text not in ROWS:
        as_positions(text)


def _layers(_: object, text: str | None) -> None:
    if text is not None:
        as_layers(text)


def text_of_file(path: Path | str) -> str:
    """All of a text file, or of standard input where it is `-`, without the newline that ends it.

    Raises RegardError if it cannot be read or is not UTF-8 text.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise RegardError(f"{name}: cannot be read: {error.strerror or error}; check the path") from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise RegardError(f"{name}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None


def as_positions(text: str) -> list[int] | slice:
    """`3,5,-1` as a list, `10:20`, `:5` or `-4:` as a slice. Raises ValueError for anything else."""
    try:
        if ":" in text:
            first, last = (int(end) if end.strip() else None for end in text.split(":"))
            return slice(first, last)
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is no list of positions such as 3,5,-1 and no range such as 10:20") from None


def as_layers(text: str) -> list[int]:
    """`0,5,-1` or `0:4`, which is 0, 1, 2 and 3. Raises ValueError for anything else."""
    found = as_positions(text)
    if isinstance(found, list):
        return found
    if found.start is None or found.stop is None or not 0 <= found.start < found.stop:
        raise ValueError(f"{text!r} is no range of layers such as 0:4")
    return list(range(found.start, found.stop))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageOptions:
    """What is to be read of a model of transformers, and how it writes.

    Parameters
    ----------
    chat
        The prompt is a user's message, put into the model's chat template.
    max_new_tokens
        Where the answer ends at the latest.
    rows
        The queries whose weights are kept: last, all, generated, positions such as 3,5,-1 or a range such as 10:20. By
        default those that wrote the answer, of --text the last, of an encoder all.
    top_k
        Keeps the so many strongest keys of every query too.
    statistics
        Names of statistics to keep, with commas between or given again: received, entropy, first_token, …
    layers
        The layers that are read, such as 0,5,-1 or 0:4; by default all.
    segments
        What the parts of the prompt are: sentences, paragraphs, turns or documents.
    """

    chat: bool = False
    max_new_tokens: Count = 64
    rows: Annotated[str | None, Parameter(allow_leading_hyphen=True, validator=_rows)] = None
    top_k: Count | None = None
    statistics: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = ()
    layers: Annotated[str | None, Parameter(allow_leading_hyphen=True, validator=_layers)] = None
    segments: Literal["sentences", "paragraphs", "turns", "documents"] = "sentences"

    def settings(self) -> dict[str, Any]:
        """As `LanguageModel.read` takes them."""
        rows = self.rows if self.rows is None or self.rows in ROWS else as_positions(self.rows)
        return {
            **vars(self),
            "rows": rows,
            "statistics": [name.strip() for part in self.statistics for name in part.split(",") if name.strip()],
            "layers": None if self.layers is None else as_layers(self.layers),
        }

    def changed(self) -> list[str]:
        """The options that were given, as they are spelt."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]


LanguageSettings = Annotated[LanguageOptions, Parameter(name="*")]
EVERYTHING = LanguageOptions()
