"""A wrong weight is caught by what the model itself computed, and never handed out."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from regard.attention.output import AttentionMap, ModelOutput
from regard.errors import RegardError
from regard.reading.call import AttentionCall, Visibility
from regard.reading.compute.verify import check, check_rows, complaint
from regard.reading.replay import alignments, replay


def true_map(dtype=torch.float32):
    weights = torch.randn(1, 2, 5, 7, dtype=torch.float64).softmax(-1).to(dtype)
    value = torch.randn(1, 2, 7, 3, dtype=dtype)
    return AttentionMap("cross", 0, weights=weights, value=value, context=weights @ value)


def moved(weights):
    """A little weight goes from one key to another, so that rows still sum to 1."""
    weights = weights.clone()
    row = weights[0, 1, 2]
    most = int(row.argmax())
    part = 0.01 * row[most]
    row[most] -= part
    row[most - 1] += part
    return weights


def poisoned(weights):
    weights = weights.clone()
    weights[0, 0, 0, 0] = torch.nan
    return weights


WRONG = {
    "moved": (moved, "weights times values is not the context that the model used"),
    "scaled": (lambda weights: weights * 1.001, "its rows do not sum to 1: off by 1.0e-03"),
    "keys turned": (lambda weights: weights.flip(-1), "is not the context"),
    "rows turned": (lambda weights: weights.flip(-2), "is not the context"),
    "heads turned": (lambda weights: weights.flip(1), "is not the context"),
    "a row too early": (lambda weights: weights.roll(1, dims=-2), "is not the context"),
    "uniform": (lambda weights: torch.full_like(weights, 1 / weights.shape[-1]), "is not the context"),
    "poisoned": (poisoned, "its weights or values are not numbers (NaN)"),
}
wrongs = pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_let_through(dtype):
    for _ in range(20):
        found = check(true_map(dtype))
        assert complaint(found, dtype) is None
        assert found.rows == 5


def test_the_errors_are_those_of_arithmetic():
    weights = torch.tensor([[[[0.5, 0.5], [0.25, 0.5]]]])
    value = torch.tensor([[[[8.0], [4.0]]]])
    context = torch.tensor([[[[6.0], [5.0]]]])
    # the second row sums to 3/4, and gives 4 instead of 5, where values go up to 8
    assert check(AttentionMap("cross", 0, weights, value, context)) == (0.25, 0.125, 2)


@wrongs
def test_weights_that_are_not_those_used_are_complained_of(spoil, message):
    map = true_map()
    found = complaint(check(map._replace(weights=spoil(map.weights))), torch.float32)
    assert found is not None
    assert message in found


class Spoilt(nn.Module):
    """A model of which some maps are spoilt on their way."""

    def __init__(self, module, spoil, places):
        super().__init__()
        self.module, self.spoil, self.places = module, spoil, places

    def forward(self, batch, read=False):
        output = self.module(batch, read=read)
        maps = [
            map._replace(weights=self.spoil(map.weights)) if (map.kind, map.layer) in self.places else map
            for map in output.attention
        ]
        return ModelOutput(output.logits, maps)


@pytest.fixture
def read_spoilt(module_of, tokenizer, texts):
    """A reading of the transformer with the maps at these places spoilt."""

    def read(spoil, *places):
        module = Spoilt(module_of("transformer"), spoil, places)
        target = tokenizer.encode(texts.target)
        return replay(module, tokenizer, texts.source, target, model="toy", max_length=40)

    return read


@wrongs
def test_a_layer_whose_weights_are_wrong_is_refused_with_the_reason(read_spoilt, spoil, message):
    reading = read_spoilt(spoil, ("cross", 1))
    assert set(reading.refused) == {("cross", 1)}
    assert message.partition(" off by")[0] in reading.refused["cross", 1]
    assert ("cross", 1) not in reading.maps
    # the last layer is the refused one, however it is asked for
    for ask in (
        lambda: reading.weights("cross", 1),
        lambda: reading.weights("cross", -1),
        reading.alignment,
    ):
        with pytest.raises(RegardError, match=r"cross layer 1 was refused: (its rows|weights times|its weights)"):
            ask()


def test_a_refused_layer_takes_no_other_with_it_and_gives_its_place_to_none(read_spoilt):
    whole, reading = read_spoilt(moved), read_spoilt(moved, ("cross", 0), ("encoder", 1))
    assert whole.refused == {}
    assert reading.layers("cross") == [1]
    for kind, layer in (("cross", 1), ("cross", -1), ("encoder", 0), ("encoder", -2), ("decoder", -1)):
        np.testing.assert_array_equal(reading.weights(kind, layer), whole.weights(kind, layer))
    assert set(reading.checks) == set(whole.checks)


def test_where_all_layers_of_a_kind_are_refused_their_reason_is_told_still(read_spoilt):
    reading = read_spoilt(moved, ("cross", 0), ("cross", 1))
    assert reading.kinds == ["encoder", "decoder"]
    with pytest.raises(RegardError, match="cross layer 0 was refused: weights times values"):
        reading.weights("cross", 0)
    with pytest.raises(RegardError, match="cross layer 1 was refused"):
        reading.alignment()


@wrongs
def test_alignments_are_not_read_from_weights_that_are_wrong(module_of, tokenizer, spoil, message):
    module = module_of("transformer")
    sources, targets = ["one two three", "five"], [tokenizer.encode(text) for text in ("un deux trois", "cinq")]
    assert len(list(alignments(module, tokenizer, sources, targets))) == 2
    with pytest.raises(RegardError, match=f"cross layer 1 was refused: .*{re.escape(message.partition(' off by')[0])}"):
        next(alignments(Spoilt(module, spoil, [("cross", 1)]), tokenizer, sources, targets))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_layer_of_a_sound_model_is_refused(read, texts, dtype):
    target = read.tokenizer.encode(texts.target)
    module = copy.deepcopy(read.module).to(dtype)
    reading = replay(module, read.tokenizer, texts.source, target, model="toy", max_length=40)
    assert reading.refused == {}
    assert set(reading.checks) == set(reading.maps)
    for key, found in reading.checks.items():
        assert found.rows == reading.maps[key].shape[1]
        assert 0 <= max(found.row_sum_error, found.context_error) <= 64 * torch.finfo(dtype).eps


def test_a_head_of_small_values_proves_itself_on_its_own_scale():
    torch.manual_seed(1)
    query, key = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    value = torch.randn(1, 2, 6, 8)
    # a thousandth of the other head's
    value[:, 1] /= 1000
    query, key, value = (tensor.bfloat16() for tensor in (query, key, value))
    weights = ((query.double() @ key.double().mT) * 8**-0.5).softmax(-1)
    wrong = weights.clone()
    wrong[:, 1] = wrong[:, 1].flip(-1)
    # the model attended in one way or in another; the softmax is what is read
    for attended, is_right in ((weights, True), (wrong, False)):
        call = AttentionCall(
            module=None,
            path="",
            query=query,
            key=key,
            value=value,
            context=(attended @ value.double()).bfloat16(),
            scale=8**-0.5,
        )
        found = check_rows(
            call,
            Visibility(),
            weights[0],
            torch.zeros(2, 6),
            item=0,
            queries=torch.arange(6),
            keys=slice(0, 6),
        )
        assert (complaint(found, torch.bfloat16) is None) == is_right
