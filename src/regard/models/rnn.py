"""Rung 1: an RNN encoder–decoder. All that the decoder knows of the source is one hidden state.

Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for statistical machine
translation", section 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from regard.attention import MECHANISMS
from regard.attention.masks import padding_mask
from regard.attention.output import AttentionMap
from regard.config import setting, shown
from regard.errors import RegardError
from regard.kernels.gru import gru
from regard.kernels.linear import Linear, linear
from regard.models.limits import LARGEST_SIZE, LONGEST, MOST_LAYERS

# a GRU's state is (hidden,), an LSTM's (hidden, cell): each "layer row hidden"
State = tuple[Tensor, ...]
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RNNConfig:
    """Sizes of rungs 1 and 2; `attention` is what makes the second of the first."""

    attention: str = setting("none")
    cell: str = setting("gru", choices=tuple(CELLS))
    embedding_dim: int = setting(256, least=1, most=LARGEST_SIZE)
    hidden_dim: int = setting(256, least=1, most=LARGEST_SIZE)
    num_layers: int = setting(1, least=1, most=MOST_LAYERS)
    bidirectional: bool = setting(True)
    input_feeding: bool = setting(False)
    tied_embeddings: bool = setting(True)
    dropout: float = setting(0.1, least=0, below=1)
    token_dropout: float = setting(0.0, least=0, below=1)
    max_length: int = setting(256, least=2, most=LONGEST)

    def __post_init__(self) -> None:
        if self.attention not in (known := ("none", *MECHANISMS)):
            raise RegardError(f"attention must be one of {', '.join(known)}, not {shown(self.attention)}")
        if self.input_feeding and self.attention in ("none", "additive"):
            raise RegardError("input_feeding belongs to Luong's attention: set attention to dot, general or concat")
        if self.attention in ("dot", "scaled_dot_product") and self.bidirectional:
            raise RegardError(
                f"attention {self.attention!r} compares states of one size, but a bidirectional encoder's are twice as "
                "wide as the decoder's; set bidirectional = false, or attention = 'general'"
            )

    @property
    def source_dim(self) -> int:
        """Width of the encoder's states."""
        return self.hidden_dim * (2 if self.bidirectional else 1)


@dataclass(frozen=True)
class Source:
    """What the encoder leaves: its last state alone is all that rung 1 may use, rung 2 looks at every state."""

    last: Float[Tensor, "batch source_dim"]
    states: Float[Tensor, "batch source source_dim"]
    mask: Bool[Tensor, "batch source"]


@final
class RNNEncoder(nn.Module):
    """Reads the source forwards and, if bidirectional, backwards too, each way by an RNN of its own."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.forwards = recurrent(config, config.embedding_dim)
        self.backwards = recurrent(config, config.embedding_dim) if config.bidirectional else None
        num_states = config.num_layers * (2 if config.cell == "lstm" else 1)
        self.bridge = Linear(config.source_dim, num_states * config.hidden_dim)
        self.num_layers = config.num_layers

    def forward(
        self, embedded: Float[Tensor, "batch source dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Source, State]:
        """The states at every token, and the decoder's first state, made of the last one (Bahdanau, A.2.2)."""
        mask = padding_mask(lengths, embedded.shape[1])
        # padding stands behind the tokens, so that it comes too late to change their states
        states, _ = run(self.forwards, [embedded], self._zeros(embedded))
        last = states[torch.arange(len(states)), lengths - 1]
        if self.backwards is not None:
            order = _back_to_front(mask, lengths)
            reversed_states, _ = run(self.backwards, [_reordered(embedded, order)], self._zeros(embedded))
            backward_states = _reordered(reversed_states, order)
            states = torch.cat([states, backward_states], dim=-1)
            last = torch.cat([last, backward_states[:, 0]], dim=-1)
        first = self.bridge(last).tanh().unflatten(-1, (-1, self.num_layers, self.forwards.hidden_size))
        return Source(last=last, states=states, mask=mask), tuple(
            state.transpose(0, 1).contiguous() for state in first.unbind(1)
        )

    def _zeros(self, embedded: Float[Tensor, "batch source dim"]) -> State:
        zeros = embedded.new_zeros(self.num_layers, len(embedded), self.forwards.hidden_size)
        return (zeros,) if isinstance(self.forwards, nn.GRU) else (zeros, zeros)


@final
class RNNDecoder(nn.Module):
    """Each step: move on with the last hidden state of the source, the same at every step."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.rnn = recurrent(config, config.embedding_dim + config.source_dim)
        self.readout = Linear(config.hidden_dim + config.embedding_dim + config.source_dim, config.embedding_dim)

    def start(self, source: Source, state: State) -> tuple[list[Tensor], State]:
        """Of the source one vector is kept."""
        return [source.last], state

    def forward(
        self, embedded: Float[Tensor, "row step dim"], state: State, source: list[Tensor], *, read: bool
    ) -> tuple[Float[Tensor, "row step dim"], State, list[AttentionMap]]:
        (last,) = source
        rows, steps, _ = embedded.shape
        context = last.repeat_interleave(rows // len(last), dim=0)[:, None]
        hidden, state = run(self.rnn, [embedded, context], state)
        features = self.readout(torch.cat([hidden, embedded, context.expand(-1, steps, -1)], dim=-1)).tanh()
        return features, state, []


def recurrent(config: RNNConfig, input_dim: int) -> nn.GRU | nn.LSTM:
    """An RNN one way, as deep as the recipe says."""
    return CELLS[config.cell](
        input_dim,
        config.hidden_dim,
        config.num_layers,
        batch_first=True,
        dropout=config.dropout if config.num_layers > 1 else 0.0,
    )


def run(
    rnn: nn.GRU | nn.LSTM, inputs: Sequence[Float[Tensor, "row #step _"]], state: State
) -> tuple[Float[Tensor, "row step hidden"], State]:
    """The RNN over some steps, with its state as a tuple for either cell.

    Of inputs that stand side by side, one with a single step is the same at every step.
    """
    if isinstance(rnn, nn.GRU) and inputs[0].device.type == "cpu":
        return _run_gru(rnn, inputs, state)
    steps = inputs[0].shape[1]
    joined = torch.cat([part.expand(-1, steps, -1) for part in inputs], dim=-1)
    outputs, state_after = rnn(joined, state[0] if len(state) == 1 else state)
    return outputs, (state_after,) if isinstance(state_after, Tensor) else tuple(state_after)


def _run_gru(
    rnn: nn.GRU, inputs: Sequence[Float[Tensor, "row #step _"]], state: State
) -> tuple[Float[Tensor, "row step hidden"], State]:
    states, last = inputs[0], []
    for layer in range(rnn.num_layers):
        if layer:
            inputs = [functional.dropout(states, rnn.dropout, rnn.training)]
        weights = gru_weights(rnn, layer)
        states = gru(_gates(weights, inputs), state[0][layer], weights.recurrent, weights.recurrent_bias)
        last.append(states[:, -1])
    return states, (torch.stack(last),)


class GRUWeights(NamedTuple):
    """The weights of a layer; rows are the gates reset, update and new."""

    input: Float[Tensor, "three_gates dim"]
    input_bias: Float[Tensor, " three_gates"]
    recurrent: Float[Tensor, "three_gates hidden"]
    recurrent_bias: Float[Tensor, " three_gates"]


def gru_weights(rnn: nn.GRU, layer: int) -> GRUWeights:
    return GRUWeights(*(getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")))


def _gates(
    weights: GRUWeights, inputs: Sequence[Float[Tensor, "row #step _"]]
) -> Float[Tensor, "row step three_gates"]:
    """What inputs that stand side by side add to the gates."""
    parts = weights.input.split([part.shape[-1] for part in inputs], dim=1)
    first, *others = (linear(part, weight) for part, weight in zip(inputs, parts, strict=True))
    return sum(others, start=first + weights.input_bias)


def _back_to_front(mask: Bool[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Int[Tensor, "batch source"]:
    """The positions of each sentence from its last token to its first, with the padding left behind them."""
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, lengths[:, None] - 1 - positions, positions)


def _reordered(
    vectors: Float[Tensor, "batch source dim"], order: Int[Tensor, "batch source"]
) -> Float[Tensor, "batch source dim"]:
    return vectors.gather(1, order[:, :, None].expand_as(vectors))
