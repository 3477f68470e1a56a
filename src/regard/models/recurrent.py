"""Rungs 1 and 2 as whole translators: one encoder, and the decoder that `attention` names."""

from typing import final

from jaxtyping import Int
from torch import Tensor, nn

from regard.attention.cache import Cache
from regard.attention.output import ModelOutput
from regard.data.batch import Batch
from regard.kernels.dropout import Dropout
from regard.models.bahdanau import BahdanauDecoder, LuongDecoder
from regard.models.blocks import Embedding, TokenDropout, initialise
from regard.models.rnn import RNNConfig, RNNDecoder, RNNEncoder, State

# every other mechanism is used as Luong's: after the step
DECODERS = {"none": RNNDecoder, "additive": BahdanauDecoder}


@final
class RNNTranslator(nn.Module):
    """An RNN encoder–decoder, without attention or with it."""

    def __init__(self, config: RNNConfig, vocab_size: int) -> None:
        super().__init__()
        self.source_embedding = Embedding(vocab_size, config.embedding_dim)
        self.target_embedding = (
            self.source_embedding if config.tied_embeddings else Embedding(vocab_size, config.embedding_dim)
        )
        self.output = self.target_embedding if config.tied_embeddings else Embedding(vocab_size, config.embedding_dim)
        self.encoder = RNNEncoder(config)
        self.decoder = DECODERS.get(config.attention, LuongDecoder)(config)
        self.dropout = Dropout(config.dropout)
        self.token_dropout = TokenDropout(config.token_dropout)
        initialise(self)

    def forward(self, batch: Batch, read: bool = False) -> ModelOutput:
        """Logits of every target step given the steps before it; `read` adds the attention."""
        source, state = self._encode(batch.source, batch.source_lengths)
        return self._decode(batch.inputs, state, source, read=read)[0]

    def encode(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Cache:
        """What decoding starts from, one hypothesis a sentence."""
        kept, state = self._encode(source, lengths)
        return Cache(source=kept, hypotheses=_by_row(state), batch_size=len(source))

    def decode_step(self, tokens: Int[Tensor, "batch beam"], cache: Cache, read: bool = False) -> ModelOutput:
        """Logits after one more token of every hypothesis, whose state in `cache` moves on; `read` adds the attention.

        The beams of a sentence are so many queries.
        """
        state = tuple(tensor.transpose(0, 1).contiguous() for tensor in cache.hypotheses)
        output, state = self._decode(tokens.reshape(-1, 1), state, cache.source, read=read)
        cache.hypotheses = _by_row(state)
        shape = (len(tokens), 1, tokens.shape[1], -1)
        attention = [
            map._replace(weights=map.weights.reshape(shape), context=map.context.reshape(shape))
            for map in output.attention
        ]
        return ModelOutput(logits=output.logits.reshape(*tokens.shape, -1), attention=attention)

    def _encode(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]
    ) -> tuple[list[Tensor], State]:
        return self.decoder.start(*self.encoder(self.dropout(self.source_embedding(source)), lengths))

    def _decode(
        self, tokens: Int[Tensor, "row step"], state: State, source: list[Tensor], *, read: bool
    ) -> tuple[ModelOutput, State]:
        embedded = self.dropout(self.target_embedding(self.token_dropout(tokens)))
        features, state, attention = self.decoder(embedded, state, source, read=read)
        return ModelOutput(logits=self.output.logits(self.dropout(features)), attention=attention), state


def _by_row(state: State) -> list[Tensor]:
    return [tensor.transpose(0, 1) for tensor in state]
