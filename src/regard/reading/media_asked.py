"""An answer about pictures or sounds whose sources are sought: its model, its tokens, and runs of the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.pretrained.needs import quiet
from regard.reading.answer_run import FOREIGN
from regard.reading.record import Sequence as Tokens
from regard.reading.record import Token


@dataclass(frozen=True, eq=False)
class AskedMedia:
    """A model, the tokens of a prompt and its answer, and the arguments of a run over token ids.

    `fed` are the ids of prompt and answer, `prompt` counts the prompt's, `ends` those that only end the answer.
    Pictures and sounds stand in the text itself, or in the sequence that it looks `across` at.
    """

    module: Any
    tokens: Tokens
    fed: list[int]
    prompt: int
    inputs: Callable[[Tensor], Mapping[str, Any]]
    ends: int = 0
    across: Tokens | None = None

    @property
    def answer(self) -> list[int]:
        return self.fed[self.prompt : len(self.fed) - self.ends]

    @property
    def answer_tokens(self) -> list[Token]:
        return self.tokens.tokens[self.prompt : self.prompt + len(self.answer)]

    @property
    def text(self) -> str:
        """The answer's, without what only ends it."""
        own = self.answer_tokens
        return self.tokens.text[own[0].start : own[-1].end].strip()

    @property
    def length(self) -> int:
        """How many tokens a run is fed: nothing is asked of the answer's last."""
        return self.prompt + len(self.answer) - 1

    @property
    def keys(self) -> list[Token]:
        """What may be hidden stands among these."""
        return self.tokens.tokens[: self.prompt] if self.across is None else self.across.tokens

    @property
    def attends(self) -> nn.Module:
        """The part of the model that runs over the tokens; what encodes pictures or sounds is no part of it."""
        find = getattr(self.module, "get_decoder", None)
        found = None if find is None else find()
        return found if isinstance(found, nn.Module) else self.module

    def run(self) -> Float[Tensor, " answer"]:
        """log p of each token of the answer."""
        fed, count = self.fed[: self.length], len(self.answer)
        device = next(self.module.parameters()).device
        arguments = self.inputs(torch.tensor([fed], device=device))
        try:
            with quiet():
                logits = self.module(**{**arguments, "use_cache": False}).logits
        except FOREIGN as error:
            name = type(self.module).__name__
            raise RegardError(f"{name} does not run on these inputs: {type(error).__name__}: {error}") from error
        found = logits[0, -count:].double().log_softmax(-1)
        found = found.gather(1, torch.tensor(self.answer, device=device)[:, None])[:, 0]
        if not found.isfinite().all():
            raise RegardError(f"{type(self.module).__name__} gives no finite probability of the answer")
        return found
