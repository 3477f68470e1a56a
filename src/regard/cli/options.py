"""What several verbs take."""

import dataclasses
import re
from typing import Annotated, Literal

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
