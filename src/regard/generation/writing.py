"""The settings of a language model's writing, for the library and the command line alike.

Names are those of Hugging Face's GenerationConfig wherever it has the same setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from regard.config import from_dict, setting
from regard.errors import RegardError


@final
@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a language model chooses its tokens. `Writing.of` checks the settings.

    Parameters
    ----------
    max_new_tokens
        Where a text ends at the latest; the model's context is a limit too.
    temperature
        What logits are divided by before a draw: below 1 likely tokens gain, above 1 unlikely ones; 0 takes the
        likeliest token each time.
    top_k
        Draw from the so many likeliest tokens.
    top_p
        Draw from the fewest tokens, the likeliest, whose probabilities sum to this at least (Holtzman et al. 2020).
    min_p
        Draw from tokens at least so likely as this share of the likeliest one's probability (Nguyen et al. 2024).
    repetition_penalty
        Divides positive logits of tokens that are there already, the prompt's too, and multiplies negative ones (Keskar
        et al. 2019, section 4.1); 1 leaves them.
    stop
        A text at which it ends, and which is no part of what it wrote; there may be several.
    seed
        What is drawn for a prompt follows from this and from its place among all, not from the batch it shares.
    """

    max_new_tokens: int = setting(256, least=1)
    temperature: float = setting(0.0, least=0)
    top_k: int | None = setting(None, least=1)
    top_p: float = setting(1.0, above=0, most=1)
    min_p: float = setting(0.0, least=0, most=1)
    repetition_penalty: float = setting(1.0, above=0)
    stop: tuple[str, ...] = ()
    seed: int = setting(0, least=0)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Writing":
        """Raises RegardError for what is no setting or is out of range."""
        given = settings.get("stop", ())
        stop = (given,) if isinstance(given, str) else given
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
            raise RegardError(f"writing: stop must be a text or a list of texts, not {given!r}")
        if "" in stop:
            raise RegardError("writing: an empty stop text would end it before it begins; leave it out")
        return from_dict(cls, {**settings, "stop": tuple(stop)}, where="writing:")
