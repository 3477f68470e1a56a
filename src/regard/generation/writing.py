"""How a language model writes, in the names of Hugging Face's GenerationConfig wherever it has the same setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from regard.config import from_dict, setting
from regard.errors import RegardError
from regard.generation.options import SamplingOptions


@final
@dataclass(frozen=True, kw_only=True)
class Writing(SamplingOptions):
    """How a language model chooses its tokens. `Writing.of` checks the settings.

    Parameters
    ----------
    repetition_penalty
        Divide positive logits of tokens that occur already, in the prompt too, by this, and multiply negative ones
        (Keskar et al. 2019, section 4.1); 1 changes nothing.
    stop
        End before this text; may be given several times.
    prefix
        Begin the text with this, to the letter, the space before its first word included; the model chooses the tokens
        that spell it.
    past_context
        What to do once prompt and text fill the model's context: slide, go on from the last half of them as often as
        it takes, or end the text. Either way the log says so.
    """

    # other defaults than a translator's
    max_new_tokens: int = setting(256, least=1)
    temperature: float = setting(0.0, least=0)
    repetition_penalty: float = setting(1.0, above=0)
    stop: tuple[str, ...] = ()
    prefix: str = ""
    past_context: str = setting("slide", choices=("slide", "end"))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Writing":
        """Raises RegardError for what is no setting or is out of range."""
        given = settings.get("stop", ())
        stop = (given,) if isinstance(given, str) else given
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
            raise RegardError(f"writing: stop must be a text or a list of texts, not {given!r}")
        if "" in stop:
            raise RegardError("writing: an empty stop text would end it before it begins; leave it out")
        writing = from_dict(cls, {**settings, "stop": tuple(stop)}, where="writing:")
        if (within := next((text for text in stop if text in writing.prefix), None)) is not None:
            raise RegardError(f"writing: the prefix holds {within!r}, at which the text would end; change one of them")
        return writing
