"""What earlier heads and feed-forwards gave to the input of a layer, and what each part gives to a query and a key.

The residual stream is a sum of what each part of each block has added to it (Elhage et al. 2021, "A mathematical
framework for transformer circuits"), and with norms frozen, as they scaled in the real run, queries and keys are linear
in it. Both are taken from the blocks' own code: it is run on one part at a time, with all else 0 or as it was.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.gpt import GPT
from regard.reading import layers
from regard.reading.answer_run import run_foreign
from regard.reading.call import AttentionCall
from regard.reading.capture import patches, session
from regard.reading.capture.torch_functions import seeing
from regard.reading.compute.output_norm import PROJECTIONS
from regard.reading.compute.rows import unflattened
from regard.reading.frozen import TOLERANCE, Hooks, error_of, is_norm
from regard.reading.runs import LayerKey


class Component(NamedTuple):
    """A part of the residual stream: what a part of an earlier block gave, or the embedding, or a bias.

    `kind` is `embedding`, `token embedding`, `position embedding`, `head`, `attention` (whose heads cannot be told
    apart), `attention bias`, `feed-forward`, `block` (one without softmax attention, as a whole) or `bias` (what
    projections and norms of the asked layer add to a query or key by themselves).
    """

    kind: str
    layer: int | None = None
    head: int | None = None

    def __str__(self) -> str:
        if self.head is not None:
            return f"head {self.layer}.{self.head}"
        return self.kind if self.layer is None else f"{self.kind} {self.layer}"


@dataclass(eq=False)
class _Block:
    """What a block was given and gave in the real run, at the positions that are asked for."""

    module: nn.Module
    number: int
    before: Float[Tensor, "position dim"]
    after: Float[Tensor, "position dim"] | None = None
    # of each head, where it attends; what it gave
    contexts: Float[Tensor, "position head dim"] | None = None
    # what the parts beside attention and norms were given
    given: dict[nn.Module, Float[Tensor, "position _"]] = field(default_factory=dict)
    projection: nn.Module | None = None
    projected: Float[Tensor, "position context"] | None = None

    @property
    def heads(self) -> list[int]:
        """The heads whose contexts the output projection was given one beside the other; none where it was not so."""
        if self.contexts is None or self.projected is None:
            return []
        contexts = self.contexts.flatten(1).to(self.projected.dtype)
        return list(range(self.contexts.shape[1])) if torch.equal(contexts, self.projected) else []


class _Calls(session.CallWatch):
    """The attention of one run: contexts at some positions by the path of their module, and the call of one of them."""

    def __init__(self, module: nn.Module, positions: Sequence[int], asked: str | None) -> None:
        super().__init__(module)
        self.positions, self.asked = list(positions), asked
        self.contexts: dict[str, Float[Tensor, "position head dim"]] = {}
        self.call: AttentionCall | None = None
        self.numbers: dict[LayerKey, int] = {}
        self.why: str | None = None

    def failed(self, path: str, error: Exception) -> None:
        self.why = self.why or f"{path}: {type(error).__name__}: {error}"

    def saw(self, call: AttentionCall) -> None:
        if call.path in self.contexts:
            self.why = self.why or f"{call.path} attends several times in one run"
        key = ("decoder", call.path, 0)
        self.numbers[key] = layers.number_of(key, call.module, [call.path], self.numbers)
        if call.path == self.asked:
            self.call = call
        # all else of the other layers is let go of
        context = call.context[0] if call.refused is None else call.context[0, :, :0]
        self.contexts[call.path] = context[:, self.positions if context.shape[1] else []].transpose(0, 1).clone()


class _Done(Exception):
    """The asked layer has run, and what comes after it is not needed."""


class Stream:
    """The real run of a model over tokens, and runs of its blocks on parts of what they were given there.

    `positions` are a key and a row. Raises RegardError where the model is not built of blocks that add to one stream.
    """

    def __init__(self, module: nn.Module, ids: Sequence[int], positions: tuple[int, int], layer: int) -> None:
        self.module, self.ids, self.positions = module, ids, positions
        self.name = type(module).__name__
        device = next((each.device for each in module.parameters() if each.device.type != "meta"), None)
        self._tokens = torch.tensor([ids], device=device)
        # what embeddings gave, and whether they were given the tokens
        self._embeddings: list[tuple[bool, Tensor]] = []
        self.blocks: list[_Block] = []
        self.asked, self.call = self._run(layer)

    # runs

    def _feed(self, items: int | None = None) -> None:
        """Run the model over all tokens, or `items` times over two tokens at the asked positions."""
        module, key_and_row = self.module, list(self.positions)
        tokens = self._tokens if items is None else self._tokens[:, key_and_row].repeat(items, 1)
        with contextlib.suppress(_Done):
            if not isinstance(module, GPT):
                places = torch.tensor([key_and_row], device=tokens.device).repeat(items, 1) if items else None
                run_foreign(module, tokens, None, caches=False, last=1, positions=places)
            elif items is None:
                module(tokens)
            else:
                x, places = module.embedded(self._tokens)
                angles = places.angles and (places.angles[0][key_and_row], places.angles[1][key_and_row])
                module.through(x[:, key_and_row].repeat(items, 1, 1), replace(places, angles=angles, mask=None), None)

    @contextlib.contextmanager
    def _watched(self, asked: str | None = None, positions: Sequence[int] = ()) -> Iterator[tuple[_Calls, Hooks]]:
        watch = _Calls(self.module, positions, asked)
        with session.only(watch), patches.opened(watch, []), seeing(), Hooks() as hooks:
            yield watch, hooks
        if watch.why is not None:
            raise RegardError(f"{self.name} cannot be taken apart: {watch.why}")

    def _at(self, x: Tensor) -> Float[Tensor, "position dim"]:
        """What of [1, position, dimension] is of the asked positions."""
        if x.dim() == 2:
            x = x[None]
        if x.dim() != 3 or x.shape[:2] != self._tokens.shape:
            raise RegardError(f"{self.name} cannot be taken apart: its blocks are not given [batch, position, dim]")
        return x[0, list(self.positions)].clone()

    def _run(self, layer: int) -> tuple[str, AttentionCall]:
        """Note the blocks up to the asked one as they run; the path of its attention, and the call."""
        numbers = self._numbers()
        path = next((path for path, number in numbers.items() if number == layer), None)
        if path is None:
            raise RegardError(f"{self.name} has no decoder layer {layer}; it has {sorted(numbers.values())}")
        stack, index = self._stack(path)
        with self._watched(path, self.positions) as (watch, hooks):
            for each in self.module.modules():
                if isinstance(each, nn.Embedding):
                    hooks.after(each, self._embeds)
            for number, (place, block) in enumerate(stack[: index + 1]):
                hooks.before(block, partial(self._begins, block, number))
                hooks.after(block, partial(self._ends, last=number == index))
                for name, child in block.named_children():
                    own = [path for path in numbers if f"{path}.".startswith(f"{place}.{name}.")]
                    if own:
                        attention = self.module.get_submodule(own[0])
                        named = (getattr(attention, each, None) for each in PROJECTIONS)
                        projection = next((each for each in named if isinstance(each, nn.Module)), None)
                        if projection is not None:
                            hooks.before(projection, partial(self._projects, projection))
                    elif not is_norm(child) and next(child.parameters(), None) is not None:
                        hooks.before(child, partial(self._begins_part, child))
            self._feed()
        for each in self.blocks:
            place = f"{stack[each.number][0]}."
            each.contexts = next((found for path, found in watch.contexts.items() if path.startswith(place)), None)
        for one, other in itertools.pairwise(self.blocks):
            if one.after is None or not torch.equal(one.after, other.before):
                raise RegardError(f"{self.name} cannot be taken apart: something stands between its layers")
        if watch.call is None:
            raise RegardError(f"{self.name} cannot be taken apart: {path} did not attend to the text")
        return path, watch.call

    # what hooks note

    def _embeds(self, ids: Tensor, x: Tensor) -> None:
        if not self.blocks and x.shape[-2] == self._tokens.shape[1]:
            is_tokens = ids.shape == self._tokens.shape and torch.equal(ids, self._tokens)
            self._embeddings.append((is_tokens, self._at(x)))

    def _begins(self, block: nn.Module, number: int, x: Tensor) -> None:
        if any(each.module is block for each in self.blocks):
            raise RegardError(f"{self.name} cannot be taken apart: layer {number} runs several times")
        self.blocks.append(_Block(block, number, self._at(x)))

    def _begins_part(self, part: nn.Module, x: Tensor) -> None:
        self.blocks[-1].given.setdefault(part, self._at(x))

    def _projects(self, projection: nn.Module, x: Tensor) -> None:
        self.blocks[-1].projection, self.blocks[-1].projected = projection, self._at(x)

    def _ends(self, _: Tensor, x: Tensor, *, last: bool) -> None:
        self.blocks[-1].after = self._at(x)
        if last:
            raise _Done

    # which layer

    def _numbers(self) -> dict[str, int]:
        """The layers that attend, by the path of their module, from a run over two places."""
        with self._watched() as (watch, _):
            self._feed(1)
        return {path: number for (_, path, _), number in watch.numbers.items()}

    def _stack(self, path: str) -> tuple[list[tuple[str, nn.Module]], int]:
        """The blocks in a row of which one has the attention at a path, with their paths; which of them it is."""
        match = re.match(r"(.*?)\.(\d+)\.", path)
        listed = self.module.get_submodule(match[1]) if match else None
        if match is None or not isinstance(listed, nn.ModuleList):
            raise RegardError(f"{self.name} cannot be taken apart: {path} is not part of one block in a list of blocks")
        return [(f"{match[1]}.{number}", block) for number, block in enumerate(listed)], int(match[2])

    # parts

    def contributions(self) -> tuple[list[Component], Float[Tensor, "component position dim"]]:
        """What the asked layer's input is the sum of.

        Raises RegardError where a block adds something else than its attention and its feed-forward.
        """
        first = self.blocks[0].before
        names, parts = [Component("embedding")], [first]
        kinds = ["token embedding" if is_token else "position embedding" for is_token, _ in self._embeddings]
        both = [x for _, x in self._embeddings]
        if len(set(kinds)) == len(kinds) == 2 and error_of(both[0] + both[1], first) <= TOLERANCE:
            names, parts = [Component(kind) for kind in kinds], both
        for gave in self._split(self.blocks[:-1]):
            names += gave
            parts += gave.values()
        return names, torch.stack(parts)

    def _split(self, blocks: Sequence[_Block]) -> list[dict[Component, Tensor]]:
        """What each block added, part by part: its code run with each head's context alone, and nothing else."""
        heads = [block.heads for block in blocks]
        # after the heads, all by themselves: no head, no attention, all heads
        none = max(map(len, heads), default=0)
        items = none + 3
        gave: list[Tensor] = []
        with self._watched() as (_, hooks):
            for block, own in zip(blocks, heads, strict=True):
                hooks.before(block.module, torch.zeros_like)
                hooks.after(block.module, lambda _, x: gave.append(x.clone()))
                for part, given in block.given.items():
                    hooks.before(part, partial(_repeated, given))
                if block.projection is not None:
                    assert block.projected is not None
                    alone = block.projected.new_zeros(items, *block.projected.shape)
                    alone[-1] = block.projected
                    for head, dims in zip(own, torch.arange(alone.shape[-1]).chunk(len(own) or 1), strict=False):
                        alone[head][..., dims] = block.projected[..., dims]
                    hooks.before(block.projection, lambda _, alone=alone: alone)
                    hooks.after(block.projection, lambda _, x: _without(x, none + 1))
                hooks.freeze(block.module, block.given)
            hooks.before(self.blocks[-1].module, _stop)
            self._feed(items)
        found = []
        for block, own, x in zip(blocks, heads, gave, strict=True):
            assert block.after is not None
            if block.contexts is None:
                found.append({Component("block", block.number): block.after - block.before})
                continue
            each = {Component("head", block.number, head): x[head] - x[none] for head in own}
            if not own:
                each = {Component("attention", block.number): x[-1] - x[none]}
            if (bias := x[none] - x[none + 1]).any():
                each[Component("attention bias", block.number)] = bias
            each[Component("feed-forward", block.number)] = x[none + 1]
            error = error_of(block.before + sum(each.values()), block.after)
            if not error <= TOLERANCE:
                raise RegardError(
                    f"{self.name} cannot be taken apart: what attention and feed-forward of layer {block.number} give "
                    f"is not what it adds to the residual stream: off by {error:.1e}"
                )
            found.append(each)
        return found

    def queries_and_keys(
        self, parts: Float[Tensor, "component position dim"], head: int
    ) -> tuple[Float[Tensor, "component dim"], Float[Tensor, "component dim"]]:
        """What each component gives to the head's query and key; the last is what remains without any, their bias."""
        block = self.blocks[-1]
        parts = torch.cat([parts, torch.zeros_like(parts[:1]), block.before[None]])
        call = self._asked(parts)
        query, key = self.of_head(call, head, [0, 1])
        real = self.of_head(self.call, head, self.positions)
        for what, found, wanted in (("query", query[-1], real[0][0]), ("key", key[-1], real[1][0])):
            if not (error := error_of(found, wanted)) <= TOLERANCE:
                raise RegardError(
                    f"{self.name} cannot be taken apart: its {what} depends on more than its position and the residual "
                    f"stream there: off by {error:.1e}"
                )
        query, key = (torch.cat([each[:-2] - each[-2], each[-2:-1]]) for each in (query.double(), key.double()))
        return query, key

    def _asked(self, parts: Float[Tensor, "component position dim"]) -> AttentionCall:
        """The asked layer's attention on each component, its norms frozen as the last has them."""
        block = self.blocks[-1]

        def run(items: int) -> AttentionCall:
            with self._watched(self.asked) as (watch, hooks):
                hooks.before(block.module, lambda _: parts)
                hooks.after(block.module, _stop)
                hooks.freeze(block.module, block.given)
                self._feed(items)
            call = watch.call
            if call is None or call.refused is not None:
                raise RegardError(f"{self.name} cannot be taken apart: {call and call.refused}")
            return unflattened(call, len(parts)) if call.flat else call

        try:
            # earlier blocks run on one item, whose masks and angles are the same for all
            return run(1)
        except RegardError:
            # some models have masks with a batch of their own
            return run(len(parts))

    def of_head(self, call: AttentionCall, head: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The queries and keys of a head, at the positions of the row and of the key."""
        shared = call.query.shape[1] // call.key.shape[1]
        key, row = positions
        return call.query[:, head, row], call.key[:, head // shared, key]


def _stop(*_: Tensor) -> None:
    raise _Done


def _repeated(given: Float[Tensor, "position _"], like: Tensor) -> Tensor:
    """What a part was given in the real run, for every item; some are given all positions of a batch in a row."""
    return given.repeat(like.numel() // given.numel(), 1, 1).view(like.shape)


def _without(x: Tensor, item: int) -> Tensor:
    x = x.clone()
    x[item] = 0
    return x
