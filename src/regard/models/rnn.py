"""Rung 1: an RNN encoder–decoder. All that the decoder knows of the source is one hidden state.

Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for statistical machine
translation", section 2.2.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from regard.attention.masks import padding_mask
from regard.attention.output import AttentionMap
from regard.config import setting
from regard.errors import RegardError

# a GRU's state is (hidden,), an LSTM's (hidden, cell): each "layer row hidden"
State = tuple[Tensor, ...]
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RNNConfig:
    """Sizes of rungs 1 and 2; `attention` is what makes the second of the first."""

    attention: str = setting("none", choices=("none", "additive", "dot", "general", "concat"))
    cell: str = setting("gru", choices=tuple(CELLS))
    embedding_dim: int = setting(256, least=1)
    hidden_dim: int = setting(256, least=1)
    num_layers: int = setting(1, least=1)
    bidirectional: bool = setting(True)
    input_feeding: bool = setting(False)
    tied_embeddings: bool = setting(True)
    dropout: float = setting(0.1, least=0, below=1)
    max_length: int = setting(256, least=2)

    def __post_init__(self) -> None:
        if self.input_feeding and self.attention not in ("dot", "general", "concat"):
            raise RegardError("input_feeding belongs to Luong's attention: set attention to dot, general or concat")
        if self.attention == "dot" and self.bidirectional:
            raise RegardError(
                "attention 'dot' compares states of one size, but a bidirectional encoder's are twice as wide as "
                "the decoder's; set bidirectional = false, or attention = 'general'"
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
    """Reads the source, each way if bidirectional, skipping padding altogether."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.rnn = recurrent(config, config.embedding_dim, bidirectional=config.bidirectional)
        self.bridges = nn.ModuleList(
            nn.Linear(config.source_dim, config.hidden_dim) for _ in range(_num_states(config))
        )

    def forward(
        self, embedded: Float[Tensor, "batch source dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Source, State]:
        """The states at every token, and the last of every layer made into the decoder's first state."""
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, last = self.rnn(packed)
        states, _ = pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])
        joined = [_join_directions(state, self.rnn) for state in _as_tuple(last)]
        source = Source(last=joined[0][-1], states=states, mask=padding_mask(lengths, embedded.shape[1]))
        return source, tuple(bridge(state).tanh() for bridge, state in zip(self.bridges, joined, strict=True))


@final
class RNNDecoder(nn.Module):
    """Each step: move on with the last hidden state of the source, the same at every step."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.rnn = recurrent(config, config.embedding_dim + config.source_dim)
        self.readout = nn.Linear(config.hidden_dim + config.embedding_dim + config.source_dim, config.embedding_dim)

    def start(self, source: Source, state: State) -> tuple[list[Tensor], State]:
        """Of the source one vector is kept."""
        return [source.last], state

    def forward(
        self, embedded: Float[Tensor, "row step dim"], state: State, source: list[Tensor], *, read: bool
    ) -> tuple[Float[Tensor, "row step dim"], State, list[AttentionMap]]:
        (last,) = source
        rows, steps, _ = embedded.shape
        context = last.repeat_interleave(rows // len(last), dim=0)[:, None].expand(-1, steps, -1)
        hidden, state = run(self.rnn, torch.cat([embedded, context], dim=-1), state)
        return self.readout(torch.cat([hidden, embedded, context], dim=-1)).tanh(), state, []


def recurrent(config: RNNConfig, input_dim: int, *, bidirectional: bool = False) -> nn.GRU | nn.LSTM:
    return CELLS[config.cell](
        input_dim,
        config.hidden_dim,
        config.num_layers,
        batch_first=True,
        bidirectional=bidirectional,
        dropout=config.dropout if config.num_layers > 1 else 0.0,
    )


def run(
    rnn: nn.GRU | nn.LSTM, inputs: Float[Tensor, "row step dim"], state: State
) -> tuple[Float[Tensor, "row step hidden"], State]:
    """The RNN over some steps, with its state as a tuple for either cell."""
    outputs, state_after = rnn(inputs, state[0] if len(state) == 1 else state)
    return outputs, _as_tuple(state_after)


def _as_tuple(state: Tensor | tuple[Tensor, Tensor]) -> State:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def _num_states(config: RNNConfig) -> int:
    return 2 if config.cell == "lstm" else 1


def _join_directions(
    state: Float[Tensor, "layer_and_direction batch hidden"], rnn: nn.RNNBase
) -> Float[Tensor, "layer batch source_dim"]:
    return state.unflatten(0, (rnn.num_layers, -1)).transpose(1, 2).flatten(2)
