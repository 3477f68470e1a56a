"""Bits per byte, against models whose code lengths are known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from regard.attention.output import ModelOutput
from regard.data.batch import EOS
from regard.data.packed import Facts, PackedText
from regard.evaluation.text import bits_per_byte, evaluate_text
from regard.models.gpt import GPT, GPTConfig


class Even(nn.Module):
    """Holds every token of a vocabulary to be as likely as any other."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, tokens, past, documents):
        return ModelOutput(logits=torch.zeros(*tokens.shape, self.size), attention=[])


def text(ids, facts, **settings):
    return PackedText(np.asarray(ids, dtype=np.uint16), facts, context=4, **settings)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary_for_every_token():
    found = evaluate_text(Even(8), text([EOS, 4, 5, 6, EOS, 7, 7, 7, 4], Facts(documents=2, bytes=14, unknown=0)))
    assert found.loss == pytest.approx(math.log(8))
    assert found.perplexity == pytest.approx(8)
    # nine tokens, the ends of both documents among them, of three bits each
    assert found.bits_per_byte == pytest.approx(9 * 3 / 14)
    assert (found.tokens, found.bytes, found.documents) == (9, 14, 2)


def test_an_unknown_character_costs_as_much_as_to_name_it_among_all():
    known, unknown = (bits_per_byte(1.0, 10, Facts(1, 20, count)) for count in (0, 2))
    assert unknown - known == pytest.approx(2 * math.log2(1_114_112) / 20)


@pytest.mark.parametrize("documents", [None, EOS])
@torch.no_grad()
def test_the_loss_is_that_of_each_token_after_those_of_its_window(documents):
    model = GPT(GPTConfig(model_dim=8, num_heads=2, num_layers=1, feed_forward_dim=8, max_length=4), 9).double().eval()
    ids = [EOS, 4, 5, EOS, 7, 8, 4, 4, 6, 5]
    found = evaluate_text(model, text(ids, Facts(2, 9, 0), documents=documents))
    total = 0.0
    for place, follower in enumerate([*ids[1:], EOS]):
        start = place // 4 * 4
        if documents is not None:
            start = max([start, *(at for at in range(start, place + 1) if ids[at] == EOS)])
        log_probs = model(torch.tensor([ids[start : place + 1]])).logits[0, -1].log_softmax(-1)
        total -= log_probs[follower].item()
    # the loss is taken in float32
    assert found.loss == pytest.approx(total / len(ids), rel=1e-6)
    assert not model.training
