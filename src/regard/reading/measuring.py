"""Measure every head of a model on one prompt after another: one pass each, in memory linear in the prompt's length."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from regard.errors import RegardError
from regard.reading.call import AttentionCall, Visibility
from regard.reading.compute.rows import Wanted, read_call
from regard.reading.compute.statistics import STATISTICS
from regard.reading.compute.sweep import sweep
from regard.reading.compute.tiles import Text
from regard.reading.examples import KEYS
from regard.reading.labels import segments, spell
from regard.reading.layer_watch import LayerWatch
from regard.reading.layouts import Layout
from regard.reading.measures import PREFIX_MATCHING, RETRIEVAL, SWEPT, retrieved, retrieved_by_chance
from regard.reading.options import ReadOptions
from regard.reading.parts import Part
from regard.reading.runs import Run
from regard.reading.tally import PromptRows

SWEPT_STATISTICS = {name: STATISTICS[name] for name in SWEPT}


@final
class Measuring(LayerWatch):
    """Measures what each head of a language model, or a text encoder, does on prompts."""

    def __init__(self, module: nn.Module, kind: str, tokenizer: Any, segments: Any = "sentences") -> None:
        super().__init__(module, kind)
        read = ReadOptions.of({"rows": [], "top_k": KEYS, "statistics": SWEPT, "segments": segments})
        self._wanted = Wanted(**vars(read), tokenizer=tokenizer)
        self._run = Run(batch_size=1)
        self._found: dict[int, Any] = {}
        self._refused: dict[int, str] = {}

    @torch.inference_mode()
    def prompt(self, ids: list[int], run: Callable[[Tensor], Any], *, id: str, place: int) -> PromptRows:
        """What the heads do on a prompt, over which `run` runs the model: token ids [1, token] are what it is given.

        Raises RegardError for a prompt of one token, and where the model attends in no known way.
        """
        if len(ids) < 2:
            raise RegardError(f"it has {len(ids)} tokens, and a head looks back from the second on; give it a text")
        text, spans = spell(ids, self._wanted.tokenizer)
        tokens = torch.tensor(ids)
        own = segments(tokens, self._wanted.segments, self._wanted.tokenizer)
        known = Text(tokens, tokens, own, own, num_segments=int(own.max()) + 1)
        device = next(self.module.parameters()).device
        self._found, self._refused = {}, {}
        self._run = Run(batch_size=1, length=len(ids), texts={(self.kind, 0, (len(ids), len(ids))): known})
        with self.open():
            run(tokens[None].to(device))
        if not self.shapes:
            raise RegardError(f"{type(self.module).__name__} attends in no way that is known here")
        chance = _by_chance(known, is_causal=self.kind == "decoder")
        array = tokens.numpy()
        values, strongest = {}, {}
        for layer, piece in self._found.items():
            strongest[layer] = tuple(table.cpu().numpy() for table in piece.top)
            values[layer] = {name: table.cpu().numpy() for name, table in piece.statistics.items()}
            values[layer][RETRIEVAL] = retrieved(strongest[layer][0][..., 0], array)
        shapes = dict(self.shapes)
        return PromptRows(id, place, text, spans, shapes, values, strongest, chance, dict(self._refused))

    def layer(self, layer: int, call: AttentionCall, part: Part | None) -> str | None:
        """Measure a layer, or note why it cannot be measured."""
        found: Any = call.refused
        size = self._run.length
        if found is None and call.context.shape[:3:2] != (1, size):
            found = f"it looks from {call.num_queries} positions, where the prompt has {size} tokens"
        if found is None and call.num_keys != size:
            found = f"its {size} queries look at {call.num_keys} keys, which are not the prompt's own"
        if found is None:
            everything = Layout(0, slice(0, size), slice(0, size), 0, 0)
            found = read_call(self._run, self.kind, call, [everything], self._wanted, _no_ids)
        if isinstance(found, str):
            self._refused[layer] = found
        else:
            self._found[layer] = found[0]
        return None


def prefix_matching(found: PromptRows) -> PromptRows:
    """Of a text that is given twice only how much each head matches prefixes."""
    values = {layer: {PREFIX_MATCHING: tables["induction"]} for layer, tables in found.values.items()}
    return found._replace(values=values, chance={PREFIX_MATCHING: found.chance["induction"]})


def _no_ids(*_: Any) -> Any:
    raise AssertionError("the run knows its text")


def _by_chance(text: Text, *, is_causal: bool) -> dict[str, np.ndarray]:
    """What a head would have, of each measure and row, that gives as much to every key it sees."""
    size = len(text.query_tokens)
    nothing = torch.zeros(1, 1, size, 1)
    call = AttentionCall(module=None, path="", value=nothing, context=nothing, query=nothing, key=nothing)
    everything = Layout(0, slice(0, size), slice(0, size), 0, 0)
    sees = Visibility(causal=0 if is_causal else None)
    found = sweep(call, sees, everything, item=0, text=text, top_k=None, statistics=SWEPT_STATISTICS).statistics
    rows = {name: table[0].numpy() for name, table in found.items()}
    ids = text.query_tokens.numpy()
    rows[RETRIEVAL] = retrieved_by_chance(ids) if is_causal else np.full(size, np.nan, np.float32)
    return rows
