"""What a part of the text did: its effect beside an independent way to hide it, and ranks beside hand-made ones."""

import numpy as np
import pytest
import torch
from benchmarks.zoo import ARCHITECTURES

import regard
from regard.errors import RegardError
from regard.reading.effects import Effects
from regard.reading.ranks import rank_correlation
from regard.reading.record import Check, Reading, Sequence, Token

transformers = pytest.importorskip("transformers")

IDS = torch.randint(3, 101, (1, 14), generator=torch.Generator().manual_seed(2))
SPANS = [(0, 1), (2, 5), (4, 9), (8, 9), (0, 8)]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def log_probability(model, row, span, *, hidden):
    """Of the token after `row`, in one forward with a 4-D mask that hides the span from that row on, and that alone."""
    seen = torch.ones(row + 1, row + 1, dtype=torch.bool).tril()
    if hidden:
        seen[row:, slice(*span)] = False
    mask = torch.zeros(1, 1, row + 1, row + 1).masked_fill(~seen, torch.finfo(torch.float32).min)
    positions = torch.arange(row + 1)[None]
    logits = model(input_ids=IDS[:, : row + 1], attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[0, -1].double().log_softmax(-1)[IDS[0, row + 1]].item()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gpt_neox", "deepseek_v3", "gemma"])
def test_an_effect_is_what_hiding_by_a_mask_changes(name):
    architecture = ARCHITECTURES[name]
    eager = architecture.build("eager")
    effects = Effects(architecture.build("sdpa"), IDS[0].tolist())
    for row in (8, 12):
        found = effects(row, SPANS)
        for span, effect in zip(SPANS, found, strict=True):
            expected = log_probability(eager, row, span, hidden=True) - log_probability(eager, row, span, hidden=False)
            assert effect == pytest.approx(expected, abs=2e-5)
        assert abs(found).max() > 1e-3


def test_spans_are_hidden_each_by_itself_however_many_there_are():
    effects = Effects(ARCHITECTURES["llama"].build("sdpa"), IDS[0].tolist())
    spans = [(start, start + 1) for start in range(12)] * 2
    together = effects(11, spans)
    assert together == pytest.approx([effects(11, [span])[0] for span in spans], abs=1e-5)
    # positions stay: what is far behind and hidden is not what is not there
    assert len({round(value, 4) for value in together[:12]}) > 6
    assert list(effects(11, [])) == []


@pytest.mark.parametrize(
    ("row", "span", "message"),
    [
        (13, (0, 1), "row 13 wrote no token that is known; rows 0 to 12 did"),
        (-1, (0, 1), "row -1 wrote no token"),
        (5, (3, 7), "row 5 sees positions 0 to 5"),
        (5, (3, 3), "the span 3:3"),
        (5, (-1, 2), "the span -1:2"),
        (5, (0, 6), "is all that row 5 sees"),
    ],
)
def test_what_cannot_be_hidden_is_an_error(row, span, message):
    effects = Effects(ARCHITECTURES["llama"].build("sdpa"), IDS[0].tolist())
    with pytest.raises(RegardError, match=message):
        effects(row, [span])


def test_a_model_that_moves_the_rest_is_refused():
    # BLOOM's biases count what is not hidden
    effects = Effects(ARCHITECTURES["bloom"].build("eager"), IDS[0].tolist())
    with pytest.raises(RegardError, match="takes position_ids"):
        effects(5, [(0, 2)])


def test_a_window_that_does_not_see_a_span_is_left_as_it_is():
    effects = Effects(ARCHITECTURES["mistral"].build("sdpa"), IDS[0].tolist())
    # layers look five tokens back: what only they could have brought from further is in what they wrote before
    assert effects(12, [(0, 3)])[0] == pytest.approx(0, abs=1e-6)
    assert abs(effects(12, [(9, 11)])[0]) > 1e-3


def test_effects_need_the_model():
    model = ARCHITECTURES["llama"].build("sdpa")
    with regard.watching(model) as watch:
        model(input_ids=IDS)
    with pytest.raises(RegardError, match="effects need the model itself"):
        watch.reading(0).effect(5, (0, 2))


# ranks


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4, 5], [10, 20, 30, 40, 50], 1.0),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], -1.0),
        # 1 − 6·Σd² / (n·(n² − 1)): d² of 1 + 1 + 1 + 1 = 4 over 5 values
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 1 - 6 * 4 / (5 * 24)),
        # ranks 1, 2½, 2½, 4 against 1, 2, 3, 4: 4.5 / √(4.5 · 5)
        ([1, 7, 7, 9], [0, 1, 2, 3], 4.5 / np.sqrt(4.5 * 5)),
        ([1, 1, 1], [1, 2, 3], np.nan),
    ],
)
def test_rank_correlation_is_spearmans(first, second, expected):
    assert rank_correlation(np.array(first), np.array(second)) == pytest.approx(expected, nan_ok=True)


def test_agreement_ranks_the_mean_of_layers_and_heads_against_what_is_lost():
    tokens = [Token(id, str(id), id, id + 1, []) for id in range(5)]
    # row 3 sees four tokens; the mean over two layers of two heads is 0.4, 0.3, 0.2, 0.1
    weights = np.zeros((2, 2, 1, 4), dtype=np.float32)
    weights[0, 0, 0], weights[0, 1, 0] = (0.8, 0.2, 0, 0), (0, 0.4, 0.4, 0.2)
    weights[1, 0, 0], weights[1, 1, 0] = (0.8, 0.2, 0, 0), (0, 0.4, 0.4, 0.2)
    norms = np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32)[None, None]
    reading = Reading(
        model="toy",
        sequences={"text": Sequence("01234", tokens, [])},
        maps={("decoder", layer): weights[layer] for layer in (0, 1)},
        checks={("decoder", layer): Check(0.0, 0.0, 1) for layer in (0, 1)},
        sides={"decoder": ("text", "text")},
        kept={"decoder": [3]},
        statistics={("decoder", layer): {"value_norm": norms} for layer in (0, 1)},
        # hiding makes the token less likely by 0.5, 0.1, 0.2 and more likely by 0.3: ranks 4, 2, 3, 1
        knockout=lambda row, spans: np.array([{0: -0.5, 1: -0.1, 2: -0.2, 3: 0.3}[start] for start, _ in spans]),
    )
    found = reading.agreement([3])
    # weights rank 4, 3, 2, 1: d² = 0 + 1 + 1 + 0
    assert found["weights"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    # norms rank 1, 2, 3, 4: d² = 9 + 0 + 0 + 9
    assert found["value_norm"] == pytest.approx(1 - 6 * 18 / (4 * 15))
    assert "output_norm" not in found
    assert reading.effect(3, (2, 3)) == pytest.approx(-0.2)
    with pytest.raises(RegardError, match="row 1 sees 2 tokens"):
        reading.agreement([1])
