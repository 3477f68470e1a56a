"""What hiding each token of a prompt would do to an answer, to first order, from one run forward and one backward.

Hidden with strength s, a key j takes part in a row with the weight (1 − s) · w[j] / (1 − s · w[j]). Where g is the
gradient of the answer's log-probability by the context of a row, its derivative by s at 0 is
−w[j] · (g · value[j] − g · context), summed over rows, heads and layers. Rows of a passage's own tokens still see each
other: what is hidden is hidden from the rest. So no table of all pairs is kept, and hooks on contexts are all it takes.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.reading.call import AttentionCall, Visibility, contexts, exact_weights
from regard.reading.capture import patches, session
from regard.reading.capture.torch_functions import seeing
from regard.reading.compute.rows import unflattened
from regard.reading.compute.tiles import Text, Tile, rows_of, tiles
from regard.reading.compute.verify import SAMPLE, check_rows, complaint
from regard.reading.layers import crosses
from regard.reading.layouts import Layout

# numbers that a block keeps of each token for its gradient, in units of model_dim; bytes from which on they are not
# kept but computed again, block by block
KEPT_PER_BLOCK = 18
MOST_KEPT = 1 << 30
_LOCK = threading.RLock()
# enters what a tile says of every key, or part
_Enter = Callable[[Tile, Tensor], None]


@final
class Probe(session.CallWatch):
    """A watch on one run of a causal language model over tokens, of each of which `passages` has its part's number.

    −1 is no part; a part is a stretch of positions, with `bounds` any of them. The first `begun` tokens are in a cache,
    and the run is over the others. `effects` are the derivatives by key, once gradients have been taken. Of each layer
    that was seen, `rows` are the weights of these queries summed, [head, key]; `given` is what each query gives to each
    part, on the mean of `heads`, which are named by their layer's path. `refused` has the layers that give no gradient.

    With `bounds` effects are by part, and none below 0: how far hiding the part moves each context, times the length of
    the gradient by that context, summed over rows, heads and layers. To first order no hiding can do more. A row that
    looks at one part alone has a derivative of nearly 0, but its context is moved far. `across` is how many tokens the
    text has where `passages` are of another sequence, which its cross-attention looks at.
    """

    sees_again = True

    def __init__(
        self,
        module: nn.Module,
        passages: Int[Tensor, " token"],
        queries: Sequence[int],
        *,
        begun: int = 0,
        heads: Sequence[tuple[str, int]] = (),
        bounds: bool = False,
        across: int | None = None,
    ) -> None:
        super().__init__(module)
        self.bounds, self.across = bounds, across
        self.passages, self.queries, self.begun, self.heads = passages, queries, begun, list(heads)
        self.rows: dict[str, Float[Tensor, "head token"]] = {}
        self.refused: dict[str, str] = {}
        # whether blocks are run again when gradients are taken
        self.recomputes = False
        # the first position of each passage and the one after its last
        values, counts = torch.unique_consecutive(passages, return_counts=True)
        ends = counts.cumsum(0).tolist()
        self._spans = [
            (end - count, end)
            for number, end, count in zip(values.tolist(), ends, counts.tolist(), strict=True)
            if number >= 0
        ]
        parts = torch.arange(int(passages.max()) + 1)
        self._members = passages[:, None] == parts
        self.effects: Float[Tensor, " of"] = torch.zeros(len(parts if bounds else passages), dtype=torch.float64)
        self.given: Float[Tensor, "query part"] = torch.zeros(len(queries), len(parts), dtype=torch.float64)
        # which of a call's masks was proved
        self._proofs: dict[str, int] = {}
        # calls that wait for their context's gradient
        self._calls: dict[str, tuple[AttentionCall, Visibility]] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open the model is seen in this thread, by this watch alone."""
        session.refuse_changed(self.module)
        with patches.opened(self, [self.module]), session.only(self):
            yield

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """The same, with gradients of what depends on the tokens; parameters take none."""
        embedding = _embedding(self.module)
        with contextlib.ExitStack() as stack:
            # a model is prepared for one probe at a time
            stack.enter_context(_LOCK)
            stack.enter_context(self.watched())
            here = threading.get_ident()

            def begin(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
                # a copy, for some models scale it in place
                return output.detach().requires_grad_().clone() if threading.get_ident() == here else None

            hook = embedding.register_forward_hook(begin)
            stack.callback(hook.remove)
            tokens = len(self.passages) if self.across is None else self.across
            self.recomputes = not self.begun and tokens > fitting(self.module)
            if self.recomputes:
                stack.enter_context(_recomputed(self.module))
            frozen = [each for each in self.module.parameters() if each.requires_grad]
            stack.callback(lambda: [each.requires_grad_() for each in frozen])
            for each in frozen:
                each.requires_grad_(False)
            stack.enter_context(torch.enable_grad())
            yield

    # what capture asks of a watch

    def failed(self, path: str, error: Exception) -> None:
        self.refused.setdefault(path, f"{type(error).__name__}: {error}")

    def saw(self, call: AttentionCall) -> None:
        if self.across is not None and not crosses(call):
            return
        is_again = torch._C._current_graph_task_id() != -1
        if (is_again and call.path not in self.rows) or call.path in self.refused:
            return
        if call.flat and call.refused is None:
            call = unflattened(call, 1)
        if is_again:
            # the same numbers as before, when they were proved
            self._calls[call.path] = call, call.visibilities[self._proofs[call.path]]
            return
        if call.path in self.rows:
            self.refused[call.path] = "it attends several times in one run"
            return
        proof = self._proof(call)
        if isinstance(proof, str):
            self.refused[call.path] = proof
            return
        self._proofs[call.path], visibility = proof, call.visibilities[proof]
        queries = torch.tensor(list(self.queries), device=call.value.device) - self.begun
        weights, _ = exact_weights(call, visibility, item=0, queries=queries)
        self.rows[call.path] = weights.sum(1).cpu()
        for head in [head for path, head in self.heads if path == call.path]:
            self.given += (weights[head] @ self._members.to(weights)).cpu() / len(self.heads)
        if call.output is None or not call.output.requires_grad:
            self.refused[call.path] = "its context has no gradient"
            return
        if not self.recomputes:
            self._calls[call.path] = call, visibility
        output, path, shape = call.output, call.path, (call.context.shape, call.context.stride())
        offset = call.context.storage_offset() - output.storage_offset()
        layout = output.shape, output.stride()

        def noted(gradient: Tensor) -> None:
            with session.harmless(self, path):
                placed = torch.empty_strided(*layout, dtype=gradient.dtype, device=gradient.device).copy_(gradient)
                self._note(path, placed.as_strided(*shape, offset))

        output.register_hook(noted)

    def _proof(self, call: AttentionCall) -> int | str:
        """Which of the call's masks reproduces its context, or why it cannot be probed."""
        if call.refused is not None:
            return call.refused
        keys = len(self.passages)
        queries = keys - self.begun if self.across is None else self.across
        if len(call.context) != 1 or (call.num_queries, call.num_keys) != (queries, keys):
            told = (
                f"{keys} tokens" if self.across is None else f"{queries} tokens and the {keys} that they look across at"
            )
            return f"its {call.num_queries} queries and {call.num_keys} keys are not the {told}"
        step = max(1, call.num_queries // SAMPLE)
        queries = torch.arange(0, call.num_queries, step, device=call.value.device)
        why = ""
        for number, visibility in enumerate(call.visibilities):
            weights, outside = exact_weights(call, visibility, item=0, queries=queries)
            keys = slice(0, call.num_keys)
            rounded = weights if call.value.dtype == torch.float64 else weights.float()
            check = check_rows(call, visibility, rounded, outside, item=0, queries=queries, keys=keys)
            if (complained := complaint(check, call.value.dtype)) is not None:
                why = why or complained
            elif not self.bounds and weights[:, 0, self.begun + 1 :].any():
                return "its first query looks at later keys; sources need a causal language model"
            else:
                return number
        return why

    def _note(self, path: str, gradient: Float[Tensor, "1 head query dim"]) -> None:
        """Enter what the gradient of a layer's context says of every key, or part."""
        if (found := self._calls.pop(path, None)) is None:
            self.refused.setdefault(path, "it was not seen again when its block was")
            return
        call, visibility = found
        none = self.passages.new_zeros(0)
        layout = Layout(0, slice(0, call.num_queries), slice(0, len(self.passages)), 0, 0)
        softmax, text = rows_of(call, visibility, layout, k=0), Text(none, none, none, none, 0)
        enter = (self._bounds if self.bounds else self._derivatives)(call, gradient[0].float())
        found = torch.zeros(len(self.effects), dtype=torch.float64, device=call.value.device)
        for tile in tiles(call, visibility, layout, softmax, item=0, text=text):
            enter(tile, found)
        self.effects += found.cpu()

    def _derivatives(self, call: AttentionCall, gradient: Float[Tensor, "head query dim"]) -> _Enter:
        value, group = call.value[0].float(), call.num_heads // len(call.value[0])
        along = (gradient * call.context[0].float()).sum(-1, keepdim=True)
        # what a row pulls a key's value by, and what it would lose of its context
        pulls = torch.cat([gradient, along], dim=-1)

        def enter(tile: Tile, found: Float[Tensor, " token"]) -> None:
            self._see_own(tile)
            numerators = tile.numerators.unflatten(0, (-1, group)).flatten(1, 2).float()
            scaled = pulls[tile.heads, tile.rows] / tile.totals[..., None].float()
            pulled = numerators.mT @ scaled.unflatten(0, (-1, group)).flatten(1, 2)
            values = value[tile.heads.start // group : (tile.heads.stop - 1) // group + 1, tile.columns]
            found[tile.columns] += (pulled[..., -1] - (values * pulled[..., :-1]).sum(-1)).sum(0)

        return enter

    def _bounds(self, call: AttentionCall, gradient: Float[Tensor, "head query dim"]) -> _Enter:
        value, context = call.value[0].float(), call.context[0].float()
        group, lengths, members = call.num_heads // len(value), gradient.norm(dim=-1), self._members.to(value.device)
        passages = self.passages.to(value.device)
        # the keys of each part, side by side, and none where it has fewer than another
        places, part = members.nonzero().unbind(1)
        order = part.argsort(stable=True)
        counts = members.sum(0)
        keys = torch.nn.utils.rnn.pad_sequence(list(places[order].split(counts.tolist())), batch_first=True)
        is_key = torch.arange(keys.shape[1], device=keys.device) < counts[:, None]
        # [key_head, part, key, dim]
        values = value[:, keys] * is_key[..., None]

        def enter(tile: Tile, found: Float[Tensor, " part"]) -> None:
            first, heads = tile.columns.start, slice(tile.heads.start // group, (tile.heads.stop - 1) // group + 1)
            seen = is_key & (keys >= first) & (keys < tile.columns.stop)
            weights, seen_context = tile.weights.float(), context[tile.heads, tile.rows]
            # [head, query, part, key]
            own = weights[..., (keys - first).clamp(0, weights.shape[-1] - 1)] * seen
            given = own.sum(-1)
            stacked = own.unflatten(0, (-1, group)).permute(0, 3, 1, 2, 4)
            taken = (
                (stacked.flatten(2, 3) @ values[heads]).unflatten(2, (group, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
            )
            moved = (given[..., None] * seen_context[:, :, None] - taken).norm(dim=-1) / (1 - given)
            # of a part that a row looks at alone, 1 − W would be rounding
            most = given.argmax(-1, keepdim=True)
            others = weights * (passages[tile.columns] != most)
            left = others.sum(-1, keepdim=True) + tile.has_sinks * (1 - weights.sum(-1, keepdim=True))
            apart = contexts(others / left.clamp(min=1e-30), value[heads, tile.columns])
            moved.scatter_(-1, most, (apart - seen_context).norm(dim=-1, keepdim=True))
            if self.across is None:
                # the part's own rows still see it
                moved = moved * ~members[tile.rows]
            found += (moved * lengths[tile.heads, tile.rows, None]).sum((0, 1))

        return enter

    def _see_own(self, tile: Tile) -> None:
        """Rows of a passage's own tokens still see each other: their weights are left out."""
        first = self.begun + tile.rows.start
        for start, end in self._spans:
            rows = slice(max(0, start - first), max(0, end - first))
            columns = slice(max(0, start - tile.columns.start), max(0, end - tile.columns.start))
            tile.numerators[:, rows, columns] = 0.0


def _stacks(module: nn.Module) -> list[nn.ModuleList]:
    """Lists of blocks that stand in no other."""
    lists = {path: each for path, each in module.named_modules() if isinstance(each, nn.ModuleList)}
    return [each for path, each in lists.items() if not any(path.startswith(f"{other}.") for other in lists)]


def fitting(module: nn.Module) -> int:
    """How many tokens may have a gradient at once: what blocks keep of them fits into memory."""
    weight: Any = _embedding(module).weight
    layers = sum(len(blocks) for blocks in _stacks(module))
    return MOST_KEPT // max(1, layers * weight.shape[-1] * KEPT_PER_BLOCK * weight.element_size())


def _embedding(module: nn.Module) -> nn.Module:
    find: Any = getattr(module, "get_input_embeddings", None)
    found = find() if find is not None else getattr(module, "embedding", None)
    if not isinstance(found, nn.Module):
        raise RegardError(f"{type(module).__name__} embeds no tokens that gradients could begin from")
    return found


@contextlib.contextmanager
def _recomputed(module: nn.Module) -> Iterator[None]:
    """While this is open, blocks keep what they are given, and compute the rest again when gradients are taken."""
    blocks = [block for stack in _stacks(module) for block in stack]

    def wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def body(*args: Any, **kwargs: Any) -> Any:
            if torch._C._current_graph_task_id() != -1:
                # caches are filled
                args = tuple(None if _is_cache(each) else each for each in args)
                kwargs = {name: None if _is_cache(each) else each for name, each in kwargs.items()}
            return forward(*args, **kwargs)

        return lambda *args, **kwargs: checkpoint(
            body, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), seeing()), **kwargs
        )

    for block in blocks:
        vars(block)["forward"] = wrapped(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]


def _is_cache(value: Any) -> bool:
    return isinstance(value, KeyValues) or hasattr(value, "get_seq_length")
