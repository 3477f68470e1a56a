"""An encoder–decoder of transformers as a translator: the same calls as of Regard's own, the model's own arithmetic.

Its weights of attention are computed beside the kernel that it runs, from the same queries, keys and masks.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from regard.attention.masks import padding_mask
from regard.attention.output import AttentionMap, Kind, ModelOutput
from regard.data.batch import Batch

# how transformers names the attention of a decoder to the source
CROSS = re.compile(r"encoder_attn|EncDec|cross", re.IGNORECASE)
# the implementation of a model, and the same with its weights beside it
READ = {"sdpa": "regard_sdpa", "eager": "regard_eager"}


@final
class PretrainedCache:
    """What decoding keeps: keys and values of source and target, and the encoded source, a row for each hypothesis."""

    def __init__(
        self,
        past: Any,
        encoded: Float[Tensor, "row source dim"],
        mask: Int[Tensor, "row source"],
        *,
        num_beams: int = 1,
    ) -> None:
        self.past, self.encoded, self.mask, self.num_beams = past, encoded, mask, num_beams

    def select(self, sentences: Int[Tensor, " kept"], beams: Int[Tensor, "kept beam"]) -> None:
        """Keep these sentences, in rising order; hypothesis j of the i-th kept goes on from its beam `beams[i, j]`."""
        same = len(sentences) * beams.shape[1] == len(self.mask) and beams.shape[1] == self.num_beams
        if same and self.num_beams == 1:
            return
        rows = (sentences[:, None] * self.num_beams + beams).flatten()
        self.past.self_attention_cache.reorder_cache(rows)
        if not same:
            # the beams of a sentence have the same of its source
            self.past.cross_attention_cache.reorder_cache(rows)
            self.encoded, self.mask, self.num_beams = self.encoded[rows], self.mask[rows], beams.shape[1]


@final
class PretrainedTranslator(nn.Module):
    """The `model` of transformers; its decoder is given the tokens `given` before the first that a search gives it."""

    def __init__(self, model: Any, *, given: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.given = tuple(given)
        self.train(model.training)

    def forward(self, batch: Batch, read: bool = False) -> ModelOutput:
        """Logits of every target step given the steps before it; `read` adds the attention of all layers."""
        mask = _mask(batch.source, batch.source_lengths)
        with self._reading(read) as maps:
            output = self.model(
                input_ids=batch.source, attention_mask=mask, decoder_input_ids=batch.inputs, use_cache=False
            )
        return ModelOutput(logits=output.logits, attention=maps)

    def encode(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> PretrainedCache:
        """What decoding starts from, one hypothesis a sentence."""
        from transformers import DynamicCache, EncoderDecoderCache

        mask = _mask(source, lengths)
        encoded = self.model.get_encoder()(input_ids=source, attention_mask=mask).last_hidden_state
        cache = PretrainedCache(EncoderDecoderCache(DynamicCache(), DynamicCache()), encoded, mask)
        if self.given:
            self._decode(torch.tensor([self.given], device=source.device).expand(len(source), -1), cache)
        return cache

    def decode_step(self, tokens: Int[Tensor, "batch beam"], cache: PretrainedCache, read: bool = False) -> ModelOutput:
        """Logits after one more token of every hypothesis, which is added to `cache`; `read` adds cross-attention."""
        with self._reading(read) as maps:
            logits = self._decode(tokens.flatten()[:, None], cache)
        # the beams of a sentence are so many queries at it
        beams = partial(torch.unflatten, dim=0, sizes=tuple(tokens.shape))
        attention = [
            AttentionMap(
                map.kind,
                map.layer,
                weights=beams(map.weights)[:, :, :, 0].transpose(1, 2),
                value=beams(map.value)[:, 0],
                context=beams(map.context)[:, :, :, 0].transpose(1, 2),
            )
            for map in maps
            if map.kind == "cross"
        ]
        return ModelOutput(logits=logits.view(*tokens.shape, -1), attention=attention)

    def _decode(self, tokens: Int[Tensor, "row step"], cache: PretrainedCache) -> Float[Tensor, "row step vocabulary"]:
        from transformers.modeling_outputs import BaseModelOutput

        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=cache.encoded),  # pyright: ignore[reportArgumentType]
            attention_mask=cache.mask,
            decoder_input_ids=tokens,
            past_key_values=cache.past,
            use_cache=True,
        ).logits

    @contextmanager
    def _reading(self, read: bool) -> Iterator[list[AttentionMap]]:
        """The maps of what is run meanwhile, if they are asked for; the model's outputs stay what they are."""
        maps: list[AttentionMap] = []
        if not read:
            yield maps
            return
        _register()
        configs = {id(each.config): each.config for each in self.model.modules() if hasattr(each, "config")}
        before = {key: config._attn_implementation for key, config in configs.items()}
        kinds: dict[int, Kind] = {id(module): _kind(path) for path, module in self.model.named_modules()}
        token = READER.set((kinds, maps))
        try:
            for key, config in configs.items():
                config._attn_implementation = READ.get(before[key], before[key])
            yield maps
        finally:
            READER.reset(token)
            for key, config in configs.items():
                config._attn_implementation = before[key]


# the kinds of the modules of the model that is read, and its maps so far
READER: ContextVar[tuple[dict[int, Kind], list[AttentionMap]] | None] = ContextVar("reader", default=None)


def _mask(source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Int[Tensor, "batch source"]:
    return padding_mask(lengths, source.shape[1]).long()


def _kind(path: str) -> Kind:
    if CROSS.search(path):
        return "cross"
    return "decoder" if "decoder" in path else "encoder"


def _register() -> None:
    """Tell transformers of implementations that note weights, with the masks of those that they stand for."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name, own in READ.items():
        ALL_MASK_ATTENTION_FUNCTIONS.register(own, ALL_MASK_ATTENTION_FUNCTIONS[name])
        function = sdpa_attention_forward if name == "sdpa" else _eager
        ALL_ATTENTION_FUNCTIONS.register(own, partial(_attend, function))


def _eager(module: nn.Module, *args: Any, **settings: Any) -> tuple[Tensor, Tensor | None]:
    """The plain implementation, which each family of models has beside it."""
    import sys

    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **settings)


def _attend(
    function: Any,
    module: nn.Module,
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key value_dim"],
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    context, weights = function(module, query, key, value, attention_mask, **settings)
    if (reader := READER.get()) is None or (kind := reader[0].get(id(module))) is None:
        return context, weights
    if weights is None:
        weights = _weights(module, query, key, attention_mask, **settings)
    layer = sum(map.kind == kind for map in reader[1])
    reader[1].append(AttentionMap(kind, layer, weights=weights, value=value, context=context.transpose(1, 2)))
    return context, None


def _weights(
    module: nn.Module,
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    mask: Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> Float[Tensor, "batch head query key"]:
    """What the fused kernel computes and does not keep."""
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if position_bias is not None:
        scores = scores + position_bias
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if mask is None and causal and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)
