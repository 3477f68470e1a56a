"""Rung 5: one stack of causal self-attention that writes text, GPT-2 or of the Llama family by its settings.

Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2); Touvron et al. 2023, "LLaMA: open
and efficient foundation language models"; grouped queries: Ainslie et al. 2023, "GQA: training generalized multi-query
Transformer models from multi-head checkpoints".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from regard.attention.key_values import KeyValues
from regard.attention.output import AttentionMap, ModelOutput
from regard.config import setting
from regard.errors import RegardError
from regard.kernels import reference
from regard.kernels.dropout import Dropout
from regard.kernels.linear import Linear, linear
from regard.kernels.quantised import quantised
from regard.models.limits import LARGEST_SIZE, LONGEST, MOST_LAYERS
from regard.models.rotary import RotaryConfig, angles, rotate

# positions whose angles are made at a time, at least
LEAST_ANGLES = 1024


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and parts; the defaults are GPT-2's way of building."""

    model_dim: int = setting(128, least=1, most=LARGEST_SIZE)
    num_heads: int = setting(4, least=1, most=LARGEST_SIZE)
    num_key_value_heads: int | None = setting(None, least=1, most=LARGEST_SIZE)
    head_dim: int | None = setting(None, least=1, most=LARGEST_SIZE)
    num_layers: int = setting(4, least=1, most=MOST_LAYERS)
    feed_forward_dim: int = setting(512, least=1, most=LARGEST_SIZE)
    positions: str = setting("learned", choices=("learned", "rotary"))
    norm: str = setting("layer", choices=("layer", "rms"))
    norm_epsilon: float = setting(1e-5, above=0)
    feed_forward: str = setting("gelu", choices=("gelu", "gelu_exact", "swiglu"))
    bias: bool = setting(True)
    query_key_value_bias: bool | None = setting(None)
    feed_forward_bias: bool | None = setting(None)
    query_key_norm: bool = setting(False)
    tied_embeddings: bool = setting(True)
    window: int | None = setting(None, least=1)
    rotary: RotaryConfig = setting(RotaryConfig())
    dropout: float = setting(0.0, least=0, below=1)
    checkpoint_activations: bool = setting(False)
    max_length: int = setting(256, least=2, most=LONGEST)

    def __post_init__(self) -> None:
        if self.head_dim is None and self.model_dim % self.num_heads:
            raise RegardError(f"model_dim {self.model_dim} cannot be cut into {self.num_heads} heads of equal size")
        if self.num_heads % self.key_value_heads:
            raise RegardError(
                f"{self.num_heads} heads cannot share {self.key_value_heads} key/value heads in groups of equal size"
            )
        if self.positions == "rotary" and self.size_of_head % 2:
            raise RegardError(f"rotary positions turn pairs of numbers, and a head has {self.size_of_head}")

    @property
    def key_value_heads(self) -> int:
        return self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def size_of_head(self) -> int:
        return self.model_dim // self.num_heads if self.head_dim is None else self.head_dim


@dataclass(frozen=True)
class Places:
    """Where the tokens of a run stand: angles of their positions, and which keys each sees, None where those before."""

    angles: tuple[Tensor, Tensor] | None
    mask: Bool[Tensor, "#batch 1 query key"] | None


@runtime_checkable
class Step(Protocol):
    """What does for one token what the blocks would do, where it fits."""

    def fits(self, x: Tensor, places: Places, past: KeyValues) -> bool: ...
    def __call__(self, x: Tensor, places: Places, past: KeyValues) -> Tensor: ...


@final
class CausalSelfAttention(nn.Module):
    """Every position looks at itself and at those before it: rung 4's multi-head attention with grouped queries."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.num_heads, self.num_key_heads = config.num_heads, config.key_value_heads
        self.head_dim = config.size_of_head
        bias = config.bias if config.query_key_value_bias is None else config.query_key_value_bias
        # rows for query, key and value, one under the other: one product for all
        size = (self.num_heads + 2 * self.num_key_heads) * self.head_dim
        self.in_proj = Linear(config.model_dim, size, bias=bias)
        self.out_proj = Linear(self.num_heads * self.head_dim, config.model_dim, bias=config.bias)
        self.query_norm = _norm(config, self.head_dim) if config.query_key_norm else None
        self.key_norm = _norm(config, self.head_dim) if config.query_key_norm else None
        self.is_causal = True

    def forward(
        self, x: Float[Tensor, "batch query model_dim"], places: Places, past: KeyValues | None, layer: int, read: bool
    ) -> tuple[Float[Tensor, "batch query model_dim"], AttentionMap | None]:
        heads = self.in_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        # what is turned by its position, and what is not
        turned, value = heads.split([self.num_heads + self.num_key_heads, self.num_key_heads], dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = turned.split([self.num_heads, self.num_key_heads], dim=1)
            turned = torch.cat([self.query_norm(query), self.key_norm(key)], dim=1)
        if places.angles is not None:
            turned = rotate(turned, *places.angles)
        query, key = turned.split([self.num_heads, self.num_key_heads], dim=1)
        if past is not None:
            key, value = past.add(layer, key, value)
        context = _attend(query.to(key.dtype), key, value, places.mask)
        if past is not None and past.queries is not None:
            past.queries.add(layer, query, context)
        output = self.out_proj(context.transpose(1, 2).flatten(2).to(x.dtype))
        if not read:
            return output, None
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        # a mask stands for all there is where some of it is past
        weights = reference.weights(query, key, mask=places.mask, causal=places.mask is None and query.shape[2] > 1)
        return output, AttentionMap("decoder", layer, weights=weights, value=value, context=context)


def _attend(
    query: Float[Tensor, "batch head query head_dim"],
    key: Float[Tensor, "batch key_head key head_dim"],
    value: Float[Tensor, "batch key_head key head_dim"],
    mask: Bool[Tensor, "#batch 1 query key"] | None,
) -> Float[Tensor, "batch head query head_dim"]:
    if torch.compiler.is_exporting() and query.shape[2] == 1 and mask is None:
        # compiled.py: for a single query the arithmetic takes less time than to call a kernel
        grouped = query.view(query.shape[0], key.shape[1], -1, query.shape[3]) * query.shape[3] ** -0.5
        return ((grouped @ key.mT).softmax(dim=-1) @ value).view_as(query)
    if query.shape[2] == 1 and query.shape[1] > key.shape[1]:
        # the heads of a group are so many queries at one key head: keys are read once
        grouped = query.view(query.shape[0], key.shape[1], -1, query.shape[3])
        return functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask).view_as(query)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None and query.shape[2] > 1,
        enable_gqa=query.shape[1] > key.shape[1],
    )


@final
class FeedForward(nn.Module):
    """Each position by itself: GELU between two matrices, or SwiGLU.

    Shazeer 2020, "GLU variants improve Transformer", equation 6.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gated = config.feed_forward == "swiglu"
        self.approximate = "none" if config.feed_forward == "gelu_exact" else "tanh"
        bias = config.bias if config.feed_forward_bias is None else config.feed_forward_bias
        # of a gated one the gate's rows stand first
        self.in_proj = Linear(config.model_dim, config.feed_forward_dim * (1 + self.gated), bias=bias)
        self.out_proj = Linear(config.feed_forward_dim, config.model_dim, bias=bias)

    def forward(self, x: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position dim"]:
        if self.gated:
            gate, up = self.in_proj(x).chunk(2, dim=-1)
            return self.out_proj(functional.silu(gate) * up)
        return self.out_proj(functional.gelu(self.in_proj(x), approximate=self.approximate))


@final
class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config, config.model_dim)
        self.attention = CausalSelfAttention(config)
        self.feed_forward_norm = _norm(config, config.model_dim)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch position dim"], places: Places, past: KeyValues | None, layer: int, read: bool
    ) -> tuple[Float[Tensor, "batch position dim"], AttentionMap | None]:
        attended, map = self.attention(self.attention_norm(x), places, past, layer, read)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), map


@final
class GPT(nn.Module):
    """The language model."""

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.model_dim)
        self.positions = nn.Embedding(config.max_length, config.model_dim) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = _norm(config, config.model_dim)
        self.output: nn.Module | None = None
        if not config.tied_embeddings:
            self.output = Linear(config.model_dim, vocab_size, bias=False)
        self.dropout = Dropout(config.dropout)
        # compiled code for one token after others, see compiled.py
        self.step: Step | None = None
        self._angles: tuple[Tensor, Tensor] | None = None
        _initialise(self)

    def forward(
        self,
        tokens: Int[Tensor, "batch position"],
        past: KeyValues | None = None,
        documents: Int[Tensor, "batch position"] | None = None,
        *,
        read: bool = False,
        last: int = 0,
    ) -> ModelOutput:
        """Logits of the token after each; with `past` after what it holds, to which these are added.

        Tokens that follow each other with one number in `documents` are read as if no others were there.
        With `last` only those after the last so many tokens. Raises RegardError for more tokens than the model takes.
        """
        x, places = self.embedded(tokens, past, documents)
        step = None if read or self.training else self.step
        if step is not None and past is not None and step.fits(x, places, past):
            output = ModelOutput(logits=step(x, places, past), attention=[])
        else:
            output = self.through(x, places, past, read=read, last=last)
        if past is not None:
            past.length += tokens.shape[1]
        return output

    def embedded(
        self,
        tokens: Int[Tensor, "batch position"],
        past: KeyValues | None = None,
        documents: Int[Tensor, "batch position"] | None = None,
    ) -> tuple[Float[Tensor, "batch position model_dim"], Places]:
        """What the blocks are given. Raises RegardError for more tokens than the model takes."""
        start = 0 if past is None else past.length
        end = start + tokens.shape[1]
        most = self.config.max_length
        if end > most and (length := end if past is None else past.longest(end)) > most:
            raise RegardError(f"{length} tokens are more than the {most} that the model takes; shorten the text")
        positions = torch.arange(start, end, device=tokens.device)
        if past is not None and past.padding is not None:
            positions = (positions - past.padding[:, None]).clamp(min=0)
        if documents is not None:
            positions = positions - _starts(documents)
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        x = self.dropout(x)
        mask = self._mask(tokens.shape[1], end, past, tokens.device)
        if documents is not None:
            mask = _within(documents, mask)
        return x, Places(self._turned(positions, end, x.dtype), mask)

    def through(
        self,
        x: Float[Tensor, "batch position model_dim"],
        places: Places,
        past: KeyValues | None,
        *,
        read: bool = False,
        last: int = 0,
    ) -> ModelOutput:
        """All blocks, and the logits of what they give; `past.length` is not moved on."""
        maps = []
        for layer, block in enumerate(self.blocks):
            if self.config.checkpoint_activations and self.training:
                x, map = checkpoint(block, x, places, past, layer, read, use_reentrant=False)  # pyright: ignore
            else:
                x, map = block(x, places, past, layer, read)
            maps += [] if map is None else [map]
        x = self.norm(x[:, -last:] if last else x)
        return ModelOutput(logits=self.logits(x), attention=maps)

    def attention(self, past: KeyValues) -> list[AttentionMap]:
        """What the tokens looked at whose queries `past` has noted, those of its last runs, layer by layer."""
        assert past.queries is not None
        queries = past.queries.layers()
        rows = queries[0][0].shape[2]
        mask = self._mask(rows, past.length, past, past.layers[0][0].device)
        maps = []
        for layer, (query, context) in enumerate(queries):
            shared = query.shape[1] // past.layers[layer][0].shape[1]
            key, value = (part.repeat_interleave(shared, dim=1) for part in past.layer(layer, past.length))
            weights = reference.weights(query.to(key.dtype), key, mask=mask, causal=mask is None and rows > 1)
            maps.append(AttentionMap("decoder", layer, weights=weights, value=value, context=context.to(key.dtype)))
        return maps

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GPT":
        # compiled code would go on with the weights as they were
        self.step = None
        return super()._apply(fn, recurse)

    def logits(self, features: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position vocabulary"]:
        return linear(features, self.embedding.weight) if self.output is None else self.output(features)

    def _turned(self, positions: Tensor, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        if self.config.positions != "rotary":
            return None
        known = self._angles
        if known is None or len(known[0]) < end or known[0].device != positions.device or known[0].dtype != dtype:
            # room to go on, but not for a context of a million tokens that nobody fills
            table = angles(self.config.rotary, self.config.size_of_head, max(LEAST_ANGLES, 2 * end))
            self._angles = tuple(part.to(positions.device, dtype) for part in table)  # pyright: ignore
        cosines, sines = (part[positions] for part in self._angles)  # pyright: ignore[reportOptionalIterable]
        # one row of angles for all heads
        return (cosines[:, None], sines[:, None]) if positions.dim() == 2 else (cosines, sines)

    def _mask(
        self, queries: int, end: int, past: KeyValues | None, device: torch.device
    ) -> Bool[Tensor, "#batch 1 query key"] | None:
        """None where each position sees all before it, which kernels know by themselves."""
        window, padding = self.config.window, None if past is None else past.padding
        if window is not None and end <= window:
            window = None
        if window is None and padding is None and (queries == 1 or queries == end):
            return None
        query, key = torch.arange(end - queries, end, device=device)[:, None], torch.arange(end, device=device)
        mask = key <= query
        if window is not None:
            mask &= key > query - window
        mask = mask[None, None]
        if padding is not None:
            # padding looks at itself, so that no row is empty
            mask = (mask & (key >= padding[:, None, None, None])) | (key == query)
        return mask


def _starts(documents: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """Where the document of each token begins."""
    begins = functional.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
    return (begins * torch.arange(documents.shape[1], device=documents.device)).cummax(dim=1).values


def _within(
    documents: Int[Tensor, "batch position"], mask: Bool[Tensor, "#batch 1 query key"] | None
) -> Bool[Tensor, "#batch 1 query key"]:
    """Of the keys that a query may see those of its own document."""
    if mask is None:
        mask = documents.new_ones(documents.shape[1], documents.shape[1], dtype=torch.bool).tril()
    return mask & (documents[:, None, :, None] == documents[:, None, None])


def _norm(config: GPTConfig, dim: int) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(dim, eps=config.norm_epsilon)
    return nn.LayerNorm(dim, eps=config.norm_epsilon)


def _initialise(model: GPT) -> None:
    """Normal with deviation 0.02, less by depth for what is added to the residual stream (Radford et al. 2019, 2.3)."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            depth = (2 * model.config.num_layers) ** -0.5 if name.endswith("out_proj.weight") else 1.0
            nn.init.normal_(parameter, std=0.02 * depth)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def quantise(model: GPT, dtype: str) -> None:
    """Round weights in place: of linear layers to int8 or int4, of the output layer to int8, all else to bfloat16.

    Raises RegardError elsewhere than on a CPU.
    """
    output = model.embedding if model.output is None else model.output
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear) and child is not model.output:
                setattr(module, name, quantised(child.weight.detach(), child.bias, dtype))
    # rounded to 4 bits it would cost the most likelihood of all
    weight = output.weight
    assert isinstance(weight, Tensor)
    rounded = quantised(weight.detach(), None, "int8")
    model.bfloat16()
    model.output = rounded
