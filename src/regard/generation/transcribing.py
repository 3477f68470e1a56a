"""A speech model writes down what it hears: one sound, always the most likely token."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Transcript(NamedTuple):
    """What was written after `prefix`, to the token that ended it, and its log-probability."""

    prefix: list[int]
    tokens: list[int]
    log_probability: float
    finished: bool


@torch.inference_mode()
def transcribe(
    module: Any,
    features: dict[str, Tensor],
    prefix: Sequence[int],
    *,
    languages: Sequence[int] = (),
    ends: frozenset[int] = frozenset(),
    suppressed: Sequence[int] = (),
    suppressed_first: Sequence[int] = (),
    max_new_tokens: int,
) -> Transcript:
    """Write after `prefix`; where there are `languages`, the model chooses one of them after its first token.

    `suppressed` tokens are never written, `suppressed_first` not as the first one.
    """
    encoded = module.get_encoder()(**features)
    begun = list(prefix)
    device = module.device

    def logits(tokens: Sequence[int], cache: Any = None) -> tuple[Float[Tensor, " vocabulary"], Any]:
        ids = torch.tensor([list(tokens)], device=device)
        found = module(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
        return found.logits[0, -1].float(), found.past_key_values

    if languages:
        scores, _ = logits(begun[:1])
        begun.insert(1, max(languages, key=lambda id: float(scores[id])))
    scores, cache = logits(begun)
    written: list[int] = []
    total = 0.0
    for _ in range(max_new_tokens):
        hidden = [*suppressed, *(suppressed_first if not written else ())]
        if hidden:
            scores[hidden] = -torch.inf
        token = int(scores.argmax())
        total += float(scores.log_softmax(-1)[token])
        written.append(token)
        if token in ends:
            return Transcript(begun, written, total, True)
        scores, cache = logits([token], cache)
    return Transcript(begun, written, total, False)
