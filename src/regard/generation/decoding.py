"""How a translator decodes, in the names of Hugging Face's GenerationConfig wherever it has the same setting."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from regard.config import from_dict, setting
from regard.errors import RegardError
from regard.generation.options import SamplingOptions


@final
@dataclass(frozen=True, kw_only=True)
class Decoding(SamplingOptions):
    """How a translation is chosen: greedily, by beam search or by sampling. `Decoding.of` checks the settings.

    Parameters
    ----------
    num_beams
        Keep this many hypotheses at each step; 1 is greedy.
    n_best
        Return this many translations of each text: the best of a beam search, best first, or samples as drawn.
    length_penalty
        Divide a hypothesis's log-probability by its length, EOS included, to this power.
    length_normalization
        power, as above, or gnmt: ((5 + length) / 6) to that power (Wu et al. 2016).
    coverage_penalty
        Weight of the coverage penalty of Wu et al. 2016: source tokens that received little attention lower the score
        of a finished hypothesis. It reads cross-attention, the mean over heads of the last layer.
    do_sample
        Sample each token instead of searching for the most likely translation; scores remain the model's own.
    """

    num_beams: int = setting(1, least=1)
    n_best: int = setting(1, least=1)
    # beyond these length ** length_penalty overflows
    length_penalty: float = setting(1.0, least=-10, most=10)
    length_normalization: str = setting("power", choices=("power", "gnmt"))
    coverage_penalty: float = setting(0.0, least=0, most=100)
    do_sample: bool = setting(False)

    @classmethod
    def of(cls, decoding: "Decoding | None", settings: Mapping[str, Any]) -> "Decoding":
        """`decoding`, or the default one, with these settings over its own.

        Raises RegardError for what is no setting, is out of range, or does not go with another setting.
        """
        merged = from_dict(cls, {**vars(decoding or cls()), **settings}, where="decoding:")
        if (complaint := merged._contradiction()) is not None:
            raise RegardError(f"decoding: {complaint}")
        return merged

    def normalizer(self, length: int) -> float:
        """The divisor that turns the log-probability of `length` tokens into a score."""
        return (length if self.length_normalization == "power" else (5 + length) / 6) ** self.length_penalty

    def _contradiction(self) -> str | None:
        if self.do_sample and self.num_beams > 1:
            return "do_sample goes one way at a time, without num_beams; n_best draws several samples"
        if not self.do_sample and self.n_best > self.num_beams:
            return f"n_best {self.n_best} needs as many num_beams; it has {self.num_beams}"
        if self.coverage_penalty and self.num_beams == 1:
            return "coverage_penalty ranks the hypotheses of a beam search; set num_beams to 2 or more"
        for field in fields(SamplingOptions):
            # a limit holds for a search too
            if field.name != "max_new_tokens" and not self.do_sample and getattr(self, field.name) != field.default:
                return f"{field.name} belongs to sampling; add do_sample, or leave it out"
        return None
