"""The settings of decoding, for the library and the command line alike.

Names are those of Hugging Face's GenerationConfig wherever it has the same setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from regard.config import from_dict, setting
from regard.errors import RegardError

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")


@final
@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a translation is chosen: greedily, by beam search or by sampling. `Decoding.of` checks the settings.

    Parameters
    ----------
    num_beams
        Hypotheses kept at each step; 1 is greedy.
    n_best
        Translations of each text: the best of a beam search, best first, or samples, in the order drawn.
    length_penalty
        What log-probability is divided by for a score: length, EOS counted, to this power.
    length_normalization
        power, as above, or gnmt: ((5 + length) / 6) to that power (Wu et al. 2016).
    coverage_penalty
        Weight of the coverage penalty of Wu et al. 2016: source tokens that were looked at little cost score. It ranks
        what a beam search has finished, by cross-attention, the last layer's mean over heads.
    max_new_tokens
        Where a translation ends at the latest, a prefix not counted; by default twice the source and 20 more.
    do_sample
        Draw each token by its probability instead of searching for the likeliest; a score stays the model's own.
    temperature
        What logits are divided by before a draw: below 1 likely tokens gain, above 1 unlikely ones.
    top_k
        Draw from the so many likeliest tokens.
    top_p
        Draw from the fewest tokens, the likeliest, whose probabilities sum to this at least (Holtzman et al. 2020).
    min_p
        Draw from tokens at least so likely as this share of the likeliest one's probability (Nguyen et al. 2024).
    seed
        What is drawn for a text follows from this and from its place among all, not from the batch it shares.
    """

    num_beams: int = setting(1, least=1)
    n_best: int = setting(1, least=1)
    # farther out length ** length_penalty is no number any more
    length_penalty: float = setting(1.0, least=-10, most=10)
    length_normalization: str = setting("power", choices=("power", "gnmt"))
    coverage_penalty: float = setting(0.0, least=0, most=100)
    max_new_tokens: int | None = setting(None, least=1)
    do_sample: bool = setting(False)
    temperature: float = setting(1.0, above=0)
    top_k: int | None = setting(None, least=1)
    top_p: float = setting(1.0, above=0, most=1)
    min_p: float = setting(0.0, least=0, most=1)
    seed: int = setting(0, least=0)

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
        """What the log-probability of so many tokens is divided by for a score."""
        return (length if self.length_normalization == "power" else (5 + length) / 6) ** self.length_penalty

    def _contradiction(self) -> str | None:
        if self.do_sample and self.num_beams > 1:
            return "do_sample goes one way at a time, without num_beams; n_best draws several samples"
        if not self.do_sample and self.n_best > self.num_beams:
            return f"n_best {self.n_best} needs as many num_beams; it has {self.num_beams}"
        if self.coverage_penalty and self.num_beams == 1:
            return "coverage_penalty ranks the hypotheses of a beam search; set num_beams to 2 or more"
        defaults = {field.name: field.default for field in fields(self)}
        useless = [name for name in SAMPLING if getattr(self, name) != defaults[name]]
        if useless and not self.do_sample:
            return f"{useless[0]} belongs to sampling; add do_sample, or leave it out"
        return None
