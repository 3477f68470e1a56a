"""Rung 1: an RNN encoder–decoder. All that the decoder knows of the source is one hidden state.

Cho et al. 2014, "Learning phrase representations using RNN encoder–decoder for statistical machine
translation", section 2.2.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

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
    """Reads the source forwards and, if bidirectional, backwards too, each way by an RNN of its own."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.forwards = recurrent(config, config.embedding_dim)
        self.backwards = recurrent(config, config.embedding_dim) if config.bidirectional else None
        num_states = config.num_layers * (2 if config.cell == "lstm" else 1)
        self.bridge = nn.Linear(config.source_dim, num_states * config.hidden_dim)
        self.num_layers = config.num_layers

    def forward(
        self, embedded: Float[Tensor, "batch source dim"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Source, State]:
        """The states at every token, and the decoder's first state, made of the last one (Bahdanau, A.2.2)."""
        mask = padding_mask(lengths, embedded.shape[1])
        # padding stands behind the tokens, so that it comes too late to change their states
        states, _ = self.forwards(embedded)
        last = states[torch.arange(len(states)), lengths - 1]
        if self.backwards is not None:
            order = _back_to_front(mask, lengths)
            reversed_states, _ = self.backwards(_reordered(embedded, order))
            backward_states = _reordered(reversed_states, order)
            states = torch.cat([states, backward_states], dim=-1)
            last = torch.cat([last, backward_states[:, 0]], dim=-1)
        first = self.bridge(last).tanh().unflatten(-1, (-1, self.num_layers, self.forwards.hidden_size))
        return Source(last=last, states=states, mask=mask), tuple(
            state.transpose(0, 1).contiguous() for state in first.unbind(1)
        )


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
    rnn: nn.GRU | nn.LSTM, inputs: Float[Tensor, "row step dim"], state: State
) -> tuple[Float[Tensor, "row step hidden"], State]:
    """The RNN over some steps, with its state as a tuple for either cell."""
    outputs, state_after = rnn(inputs, state[0] if len(state) == 1 else state)
    return outputs, (state_after,) if isinstance(state_after, Tensor) else tuple(state_after)


def _back_to_front(mask: Bool[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Int[Tensor, "batch source"]:
    """The positions of each sentence from its last token to its first, with the padding left behind them."""
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask, lengths[:, None] - 1 - positions, positions)


def _reordered(
    vectors: Float[Tensor, "batch source dim"], order: Int[Tensor, "batch source"]
) -> Float[Tensor, "batch source dim"]:
    return vectors.gather(1, order[:, :, None].expand_as(vectors))
