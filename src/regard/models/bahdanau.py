"""Rung 2: the decoder looks back at every source token, at each step. The rest is rung 1.

Bahdanau looks before each step and feeds what was found into the RNN (Bahdanau, Cho and Bengio 2015,
appendix A.2.2); Luong looks after it (Luong, Pham and Manning 2015, sections 3.1 and 3.3).
"""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regard.attention import MECHANISMS
from regard.attention.additive import AdditiveAttention
from regard.attention.mechanism import AttentionMechanism
from regard.attention.output import AttentionMap, AttentionOutput
from regard.kernels.gru import attentive_gru
from regard.kernels.linear import Linear, linear
from regard.models.rnn import RNNConfig, Source, State, gru_weights, recurrent, run


@final
class BahdanauDecoder(nn.Module):
    """Each step: look with the last hidden state, then move on with the context found."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.attention = AdditiveAttention(config.hidden_dim, config.source_dim)
        self.rnn = recurrent(config, config.embedding_dim + config.source_dim)
        self.readout = Linear(config.hidden_dim + config.embedding_dim + config.source_dim, config.embedding_dim)

    def start(self, source: Source, state: State) -> tuple[list[Tensor], State]:
        """Each hypothesis keeps a state; the source states are kept for all steps, once."""
        return [self.attention.prepare(source.states), source.states, source.mask], state

    def forward(
        self, embedded: Float[Tensor, "row step dim"], state: State, source: list[Tensor], *, read: bool
    ) -> tuple[Float[Tensor, "row step dim"], State, list[AttentionMap]]:
        # decoding comes step by step, with beams that share a source
        whole = embedded.shape[1] > 1 and self._has_kernel(embedded)
        look_and_move = self._all_steps if whole else self._step_by_step
        hidden, look, state = look_and_move(embedded, state, *source)
        features = self.readout(torch.cat([hidden, embedded, look.context], dim=-1)).tanh()
        return features, state, [_read(look, source[1])] if read else []

    def _has_kernel(self, embedded: Tensor) -> bool:
        return embedded.device.type == "cpu" and isinstance(self.rnn, nn.GRU) and self.rnn.num_layers == 1

    def _step_by_step(
        self, embedded: Tensor, state: State, prepared: Tensor, states: Tensor, mask: Tensor
    ) -> tuple[Tensor, AttentionOutput, State]:
        steps, looks = [], []
        for token in embedded.split(1, dim=1):
            look = attend_rows(self.attention, state[0][-1][:, None], prepared, states, mask)
            hidden, state = run(self.rnn, [token, look.context], state)
            steps.append(hidden)
            looks.append(look)
        return torch.cat(steps, dim=1), _joined(looks), state

    def _all_steps(
        self, embedded: Tensor, state: State, prepared: Tensor, states: Tensor, mask: Tensor
    ) -> tuple[Tensor, AttentionOutput, State]:
        assert isinstance(self.rnn, nn.GRU)
        rnn = gru_weights(self.rnn, 0)
        input_weight, context_weight = rnn.input.split([embedded.shape[-1], states.shape[-1]], dim=1)
        hidden, context, weights = attentive_gru(
            linear(embedded, input_weight, rnn.input_bias),
            state[0][0],
            rnn.recurrent,
            rnn.recurrent_bias,
            context_weight=context_weight,
            query_weight=self.attention.query_proj.weight,
            score_weight=self.attention.score_proj.weight[0],
            prepared=prepared,
            values=states,
            mask=mask,
        )
        return hidden, AttentionOutput(context, weights), (hidden[:, -1][None],)


@final
class LuongDecoder(nn.Module):
    """Each step: move on, then look with the new hidden state; input feeding tells the next step what was found."""

    def __init__(self, config: RNNConfig) -> None:
        super().__init__()
        self.input_feeding = config.input_feeding
        feed_dim = config.embedding_dim if config.input_feeding else 0
        self.attention = MECHANISMS[config.attention](config.hidden_dim, config.source_dim)
        self.rnn = recurrent(config, config.embedding_dim + feed_dim)
        self.readout = Linear(config.hidden_dim + config.source_dim, config.embedding_dim)

    def start(self, source: Source, state: State) -> tuple[list[Tensor], State]:
        """With input feeding, what was found last is one more part of the state: nothing, at first."""
        kept = [self.attention.prepare(source.states), source.states, source.mask]
        if not self.input_feeding:
            return kept, state
        feed = state[0].new_zeros(1, state[0].shape[1], len(self.readout.weight))
        return kept, (*state, feed)

    def forward(
        self, embedded: Float[Tensor, "row step dim"], state: State, source: list[Tensor], *, read: bool
    ) -> tuple[Float[Tensor, "row step dim"], State, list[AttentionMap]]:
        prepared, states, mask = source
        features, looks = [], []
        # without feeding no step waits for the one before it: all of them are one
        for tokens in embedded.split(1 if self.input_feeding else embedded.shape[1], dim=1):
            if self.input_feeding:
                state, feed = state[:-1], state[-1]
                tokens = torch.cat([tokens, feed[0][:, None]], dim=-1)
            hidden, state = run(self.rnn, [tokens], state)
            look = attend_rows(self.attention, hidden, prepared, states, mask)
            features.append(self.readout(torch.cat([look.context, hidden], dim=-1)).tanh())
            looks.append(look)
            if self.input_feeding:
                state = (*state, features[-1].transpose(0, 1))
        return torch.cat(features, dim=1), state, [_read(_joined(looks), states)] if read else []


def attend_rows(
    attention: AttentionMechanism,
    query: Float[Tensor, "row step query_dim"],
    prepared: Float[Tensor, "batch source query_dim"],
    states: Float[Tensor, "batch source source_dim"],
    mask: Bool[Tensor, "batch source"],
) -> AttentionOutput:
    """Attention of rows that are sentence × beam: all beams of a sentence look at its one copy."""
    batch_size, steps = len(states), query.shape[1]
    look = attention.attend(query.reshape(batch_size, -1, query.shape[-1]), prepared, states, mask[:, None])
    assert look.weights is not None
    context, weights = (part.reshape(-1, steps, part.shape[-1]) for part in (look.context, look.weights))
    return AttentionOutput(context=context, weights=weights)


def _joined(looks: list[AttentionOutput]) -> AttentionOutput:
    """Steps one after the other."""
    context, weights = (torch.cat(parts, dim=1) for parts in zip(*looks, strict=True))
    return AttentionOutput(context=context, weights=weights)


def _read(look: AttentionOutput, states: Float[Tensor, "batch source source_dim"]) -> AttentionMap:
    """One layer of one head. Reading is asked for without beams, so that a row is a sentence."""
    assert look.weights is not None
    return AttentionMap(
        kind="cross", layer=0, weights=look.weights[:, None], value=states[:, None], context=look.context[:, None]
    )
