"""What differs between the libraries that run a language model: one protocol, an adapter for each."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.generation.steps import Beside, Feed, OwnFeed, TransformersFeed, write
from regard.generation.writing import Writing
from regard.models.gpt import GPT
from regard.models.pretrained.needs import quiet, told


@runtime_checkable
class Adapter(Protocol):
    """A language model's module, as the library runs it."""

    # the name in `regard.load(library=)`
    library: str
    module: Any
    writes: bool
    # whether prompts of different lengths share a batch
    pads: bool
    # None where the model does not say
    context_length: int | None

    def feed(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        reads: bool = False,
        beside: Beside | None = None,
    ) -> Feed:
        """The module with a cache for these prompts, which it has not seen yet; `reads` records attention.

        `beside` makes the arguments of a run from its tokens, where there are others, such as pictures.
        """
        ...

    def generate(
        self, tokens: Int[Tensor, "1 prompt"], max_new_tokens: int, ends: frozenset[int], **beside: Any
    ) -> list[int]:
        """What it writes after these tokens, always the most likely token, up to one of `ends`.

        `beside` are other inputs of a prompt, such as pictures.
        """
        ...

    def inputs(self, tokens: Int[Tensor, "1 token"]) -> dict[str, Any]:
        """Arguments of one forward pass that is read."""
        ...

    def settings(self) -> dict[str, Any]:
        """The arguments of such a pass that are no inputs."""
        ...

    def logits(self, tokens: Int[Tensor, "1 token"], at_once: int) -> Iterator[Float[Tensor, "token vocabulary"]]:
        """Logits of the token after each, in parts of `at_once` tokens where the library can."""
        ...

    def own(self, otherwise: str) -> GPT:
        """The module, where it is Regard's own. Raises RegardError where it is not; `otherwise` ends the message."""
        ...


@final
class OwnAdapter:
    """Regard's own GPT."""

    def __init__(self, module: Any, name: str) -> None:
        self.module, self.name, self.library = module, name, "regard"
        self.writes, self.pads = True, True
        self.context_length = module.config.max_length

    def feed(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        reads: bool = False,
        beside: Beside | None = None,
    ) -> Feed:
        lengths = [len(prompt) for prompt in prompts]
        room = max(lengths) + min(max_new_tokens, self.context_length - min(lengths))
        return OwnFeed(self.module, room, reads=reads)

    def generate(
        self, tokens: Int[Tensor, "1 prompt"], max_new_tokens: int, ends: frozenset[int], **beside: Any
    ) -> list[int]:
        prompts, writing = tokens.tolist(), Writing(max_new_tokens=max_new_tokens)
        feed = self.feed(prompts, max_new_tokens)
        steps = write(feed, prompts, writing, ends=ends, context_length=self.context_length, device=tokens.device)
        return [step.tokens[0] for step in steps]

    def inputs(self, tokens: Int[Tensor, "1 token"]) -> dict[str, Any]:
        return {"tokens": tokens, **self.settings()}

    def settings(self) -> dict[str, Any]:
        return {"last": 1}

    def logits(self, tokens: Int[Tensor, "1 token"], at_once: int) -> Iterator[Float[Tensor, "token vocabulary"]]:
        past = KeyValues(tokens.shape[1])
        for part in tokens.split(at_once, dim=1):
            yield self.module(part, past).logits[0]

    def own(self, otherwise: str) -> GPT:
        return self.module


@final
class TransformersAdapter:
    """A model of transformers: decoder-only or encoder-only; one with an encoder and a decoder goes on with no text."""

    def __init__(self, module: Any, name: str) -> None:
        self.module, self.name, self.library = module, name, "transformers"
        config = getattr(module, "config", None)
        is_pair = bool(getattr(config, "is_encoder_decoder", False))
        self.writes = not is_pair and hasattr(module, "can_generate") and bool(module.can_generate())
        self.pads = False
        length = getattr(config, "max_position_embeddings", None)
        self.context_length = length if isinstance(length, int) else None

    def feed(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        reads: bool = False,
        beside: Beside | None = None,
    ) -> Feed:
        return TransformersFeed(self.module, beside)

    def generate(
        self, tokens: Int[Tensor, "1 prompt"], max_new_tokens: int, ends: frozenset[int], **beside: Any
    ) -> list[int]:
        with quiet(), told(f"{self.name}: transformers cannot generate"):
            written = self.module.generate(
                input_ids=tokens,
                **{"attention_mask": torch.ones_like(tokens), **beside},
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                **({"eos_token_id": sorted(ends)} if ends else {}),
            )
        return written[0, tokens.shape[1] :].tolist()

    def inputs(self, tokens: Int[Tensor, "1 token"]) -> dict[str, Any]:
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **self.settings()}

    def settings(self) -> dict[str, Any]:
        # nothing continues from a cache, and nobody reads the logits
        found = {"use_cache": False, "logits_to_keep": 1} if self.writes else {}
        return {
            name: value for name, value in found.items() if name in inspect.signature(self.module.forward).parameters
        }

    def logits(self, tokens: Int[Tensor, "1 token"], at_once: int) -> Iterator[Float[Tensor, "token vocabulary"]]:
        yield self.module(tokens).logits[0]

    def own(self, otherwise: str) -> GPT:
        raise RegardError(f"{self.name} runs in transformers{otherwise}")


# the first whose module it is
ADAPTERS: dict[type[nn.Module], Callable[[Any, str], Adapter]] = {GPT: OwnAdapter, nn.Module: TransformersAdapter}


def ends_of(module: Any) -> frozenset[int]:
    """The ids with which a module of transformers says that a text ends."""
    ends = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def adapter_for(module: nn.Module, name: str) -> Adapter:
    """The adapter of the library whose module this is."""
    return next(adapter for kind, adapter in ADAPTERS.items() if isinstance(module, kind))(module, name)
