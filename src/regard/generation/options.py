"""Sampling, in the names of Hugging Face's GenerationConfig: one entry for library, command line and page."""

from dataclasses import dataclass

from regard.config import setting


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """What translators (`Decoding`) and language models (`Writing`) share.

    Parameters
    ----------
    max_new_tokens
        Write at most this many tokens, prompt and prefix not counted. A translation may by default have twice the
        tokens of its source and 20 more.
    temperature
        Divide logits by this before sampling: below 1 favours likely tokens, above 1 unlikely ones. A language model
        also takes 0, its default: the most likely token each time.
    top_k
        Sample from the K most likely tokens.
    top_p
        Sample from the smallest set of most likely tokens whose probabilities sum to at least P (Holtzman et al. 2020).
    min_p
        Sample from tokens whose probability is at least this share of the most likely token's (Nguyen et al. 2024).
    seed
        Samples depend on the seed and the text's index, not on the batch.
    """

    max_new_tokens: int | None = setting(None, least=1)
    temperature: float = setting(1.0, above=0)
    top_k: int | None = setting(None, least=1)
    top_p: float = setting(1.0, above=0, most=1)
    min_p: float = setting(0.0, least=0, most=1)
    seed: int = setting(0, least=0)
