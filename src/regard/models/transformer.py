"""Rung 3: the Transformer. No recurrence: every position looks at every other, layer after layer.

Vaswani et al. 2017, "Attention is all you need"; pre-norm after Xiong et al. 2020, "On layer
normalization in the Transformer architecture".
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regard.attention.cache import Cache, Past
from regard.attention.masks import padding_mask
from regard.attention.multi_head import Memory, MultiHeadAttention
from regard.attention.output import KINDS, AttentionMap, AttentionOutput, Kind, ModelOutput
from regard.config import setting
from regard.data.batch import Batch
from regard.errors import RegardError
from regard.kernels.dropout import Dropout
from regard.kernels.linear import Linear
from regard.models.blocks import Embedding, TokenDropout, initialise, sinusoidal_positions
from regard.models.limits import LARGEST_SIZE, LONGEST, MOST_LAYERS


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes; encoder and decoder have `num_layers` each."""

    model_dim: int = setting(256, least=1, most=LARGEST_SIZE)
    num_heads: int = setting(4, least=1, most=LARGEST_SIZE)
    num_layers: int = setting(3, least=1, most=MOST_LAYERS)
    feed_forward_dim: int = setting(1024, least=1, most=LARGEST_SIZE)
    norm: str = setting("pre", choices=("pre", "post"))
    tied_embeddings: bool = setting(True)
    dropout: float = setting(0.1, least=0, below=1)
    token_dropout: float = setting(0.0, least=0, below=1)
    max_length: int = setting(256, least=2, most=LONGEST)

    def __post_init__(self) -> None:
        if self.model_dim % self.num_heads:
            raise RegardError(f"model_dim {self.model_dim} cannot be cut into {self.num_heads} heads of equal size")


@final
class Sublayer(nn.Module):
    """x + f(norm(x)), or, with post-norm as in the paper, norm(x + f(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.model_dim)
        self.pre = config.norm == "pre"
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch step dim"], function: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch step dim"]:
        if self.pre:
            return x + self.dropout(function(self.norm(x)))
        return self.norm(x + self.dropout(function(x)))


@final
class EncoderLayer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(config.model_dim, config.num_heads)
        self.feed_forward = _feed_forward(config)
        self.attention_sublayer = Sublayer(config)
        self.feed_forward_sublayer = Sublayer(config)

    def forward(
        self, x: Float[Tensor, "batch source dim"], mask: Bool[Tensor, "batch 1 source"], reader: "Reader"
    ) -> Float[Tensor, "batch source dim"]:
        def look(x: Tensor) -> Tensor:
            query, memory = self.attention.ask_and_remember(x)
            output, heads = self.attention(query, memory, mask=mask, read="encoder" in reader.kinds)
            reader.note("encoder", memory, heads)
            return output

        return self.feed_forward_sublayer(self.attention_sublayer(x, look), self.feed_forward)


@final
class DecoderLayer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config.model_dim, config.num_heads)
        self.cross_attention = MultiHeadAttention(config.model_dim, config.num_heads)
        self.feed_forward = _feed_forward(config)
        self.self_sublayer = Sublayer(config)
        self.cross_sublayer = Sublayer(config)
        self.feed_forward_sublayer = Sublayer(config)

    def remember(self, encoded: Float[Tensor, "batch source dim"]) -> Memory:
        """What cross-attention looks at, for all steps."""
        return self.cross_attention.remember(encoded)

    def forward(
        self,
        x: Float[Tensor, "batch query dim"],
        source: Memory,
        mask: Bool[Tensor, "batch 1 source"],
        reader: "Reader",
        recall: Callable[[Memory], tuple[Memory, Bool[Tensor, "batch query slot"]]] | None = None,
    ) -> Float[Tensor, "batch query dim"]:
        """One layer over all steps of a target, or, where there is a past to `recall`, over the next of each beam."""

        def look_back(x: Tensor) -> Tensor:
            query, memory = self.self_attention.ask_and_remember(x)
            visible = None
            if recall is not None:
                memory, visible = recall(memory)
            causal = recall is None
            read = "decoder" in reader.kinds
            output, heads = self.self_attention(query, memory, mask=visible, causal=causal, read=read)
            reader.note("decoder", memory, heads)
            return output

        def look_across(x: Tensor) -> Tensor:
            output, heads = self.cross_attention(
                self.cross_attention.ask(x), source, mask=mask, read="cross" in reader.kinds
            )
            reader.note("cross", source, heads)
            return output

        x = self.cross_sublayer(self.self_sublayer(x, look_back), look_across)
        return self.feed_forward_sublayer(x, self.feed_forward)


@final
class Transformer(nn.Module):
    """The Transformer encoder–decoder."""

    positions: Float[Tensor, "position dim"]

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__()
        self.source_embedding = Embedding(vocab_size, config.model_dim)
        self.target_embedding = (
            self.source_embedding if config.tied_embeddings else Embedding(vocab_size, config.model_dim)
        )
        self.output = self.target_embedding if config.tied_embeddings else Embedding(vocab_size, config.model_dim)
        self.encoder_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        last_norm = nn.LayerNorm if config.norm == "pre" else nn.Identity
        self.encoder_norm = last_norm(config.model_dim)
        self.decoder_norm = last_norm(config.model_dim)
        self.dropout = Dropout(config.dropout)
        self.token_dropout = TokenDropout(config.token_dropout)
        self.register_buffer("positions", sinusoidal_positions(config.max_length, config.model_dim), persistent=False)
        initialise(self)

    def forward(self, batch: Batch, read: bool | Kind = False) -> ModelOutput:
        """Logits of every target step given the steps before it; `read` adds all attention, or one kind."""
        kinds: tuple[Kind, ...] = (read,) if isinstance(read, str) else KINDS if read else ()
        reader = Reader(*kinds)
        mask, memories = self._encode(batch.source, batch.source_lengths, reader)
        logits = self._decode(batch.inputs, mask, memories, reader)
        return ModelOutput(logits=logits, attention=reader.maps)

    def encode(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Cache:
        """What decoding starts from, one hypothesis a sentence."""
        mask, memories = self._encode(source, lengths, Reader())
        past = Past(len(source), device=source.device)
        return Cache(source=[mask, *_flat(memories)], hypotheses=[], batch_size=len(source), past=past)

    def decode_step(self, tokens: Int[Tensor, "batch beam"], cache: Cache, read: bool = False) -> ModelOutput:
        """Logits after one more token of every hypothesis, whose keys and values are added to `cache`.

        The beams of a sentence are so many queries at what it has in common; `read` adds their cross-attention.
        """
        assert cache.past is not None
        mask, *source = cache.source
        reader = Reader("cross") if read else Reader()
        cache.past.begin_step()
        logits = self._decode(tokens, mask, _paired(source), reader, cache.past)
        return ModelOutput(logits=logits, attention=reader.maps)

    def _encode(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"], reader: "Reader"
    ) -> tuple[Bool[Tensor, "batch 1 source"], list[Memory]]:
        mask = padding_mask(lengths, source.shape[1])[:, None]
        x = self.dropout(self.source_embedding(source) + self.positions[: source.shape[1]])
        for layer in self.encoder_layers:
            x = layer(x, mask, reader)
        x = self.encoder_norm(x)
        return mask, [layer.remember(x) for layer in self.decoder_layers]  # pyright: ignore[reportCallIssue]

    def _decode(
        self,
        tokens: Int[Tensor, "batch query"],
        mask: Bool[Tensor, "batch 1 source"],
        memories: list[Memory],
        reader: "Reader",
        past: Past | None = None,
    ) -> Float[Tensor, "batch query vocabulary"]:
        positions = self.positions[: tokens.shape[1]] if past is None else self.positions[past.steps - 1]
        x = self.dropout(self.target_embedding(self.token_dropout(tokens)) + positions)
        for index, (layer, memory) in enumerate(zip(self.decoder_layers, memories, strict=True)):
            x = layer(x, memory, mask, reader, None if past is None else partial(past.recall, index))
        return self.output.logits(self.decoder_norm(x))


@final
class Reader:
    """Collects attention maps of these kinds during one forward."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = kinds
        self.maps: list[AttentionMap] = []

    def note(self, kind: Kind, memory: Memory, heads: AttentionOutput) -> None:
        if heads.weights is None:
            return
        layer = sum(map.kind == kind for map in self.maps)
        self.maps.append(AttentionMap(kind, layer, weights=heads.weights, value=memory.value, context=heads.context))


def _feed_forward(config: TransformerConfig) -> nn.Module:
    return nn.Sequential(
        Linear(config.model_dim, config.feed_forward_dim),
        nn.ReLU(),
        Dropout(config.dropout),
        Linear(config.feed_forward_dim, config.model_dim),
    )


def _flat(memories: list[Memory]) -> list[Tensor]:
    return [tensor for memory in memories for tensor in memory]


def _paired(tensors: list[Tensor]) -> list[Memory]:
    return [Memory(key, value) for key, value in zip(tensors[::2], tensors[1::2], strict=True)]
