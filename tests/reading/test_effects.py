"""What a part of the text did: its effect beside an independent way to hide it, and ranks beside hand-made ones."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.zoo import ARCHITECTURES, DECODERS
from benchmarks.zoo.decoders import UNWRITTEN
from torch.overrides import TorchFunctionMode

import regard
from regard.attention.key_values import KeyValues
from regard.errors import RegardError
from regard.models.gpt import GPT, GPTConfig
from regard.reading.effects import Effects, effects_of
from regard.reading.ranks import rank_correlation
from regard.reading.reading import Reading
from regard.reading.record import Check, Sequence, Token

transformers = pytest.importorskip("transformers")
from transformers.models.llama.modeling_llama import LlamaAttention  # noqa: E402

IDS = torch.randint(3, 101, (1, 14), generator=torch.Generator().manual_seed(2))
SPANS = [(0, 1), (2, 5), (5, 8), (6, 7), (0, 8)]
# neither attends, nor has logits
NOTHING_TO_HIDE = {"mamba": "attends in no way", "mamba2": "attends in no way", "rwkv": "attends in no way"}
NOTHING_TO_HIDE |= {"qwen2_vl_text": "gives no logits of tokens"}
# Falcon's own biases differ between the two where they are rounded
EAGER = {name for name, each in DECODERS.items() if "sdpa" not in each.implementations} | {"falcon_alibi"}
SOFTMAXES = (torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


class Masked(TorchFunctionMode):
    """Masks a span from the last query of every softmax over scores of all queries and keys, sinks beside them."""

    def __init__(self, length, span):
        super().__init__()
        self.length, self.span, self.count = length, span, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in SOFTMAXES and args[0].dim() > 2 and args[0].shape[-2] == self.length <= args[0].shape[-1]:
            scores = args[0].clone()
            scores[..., -1, slice(*self.span)] = -torch.inf
            args, self.count = (scores, *args[1:]), self.count + 1
        return func(*args, **(kwargs or {}))


def log_probability(model, row, span):
    """Of the token after `row`, in one plain forward over all before it whose last query does not see the span."""
    with Masked(row + 1, span) as masked:
        logits = model(input_ids=IDS[:, : row + 1]).logits
    assert masked.count
    return logits[0, -1].double().log_softmax(-1)[IDS[0, row + 1]].item()


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in UNWRITTEN])
def test_an_effect_is_what_masking_the_scores_changes(name):
    architecture, implementation = DECODERS[name], "eager" if name in EAGER else "sdpa"
    effects = Effects(architecture.build(implementation), IDS[0].tolist())
    if name in NOTHING_TO_HIDE:
        with pytest.raises(RegardError, match=NOTHING_TO_HIDE[name]):
            effects(8, SPANS)
        return
    eager = architecture.build("eager")
    found = effects(8, SPANS)
    expected = [log_probability(eager, 8, span) - log_probability(eager, 8, (0, 0)) for span in SPANS]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert abs(found).max() > 1e-3


def test_spans_are_hidden_each_by_itself_however_many_there_are():
    effects = Effects(ARCHITECTURES["llama"].build("sdpa"), IDS[0].tolist())
    spans = [(start, start + 1) for start in range(12)] * 2
    together = effects(11, spans)
    assert together == pytest.approx([effects(11, [span])[0] for span in spans], abs=1e-5)
    # positions stay: what is far behind and hidden is not what is not there
    assert len({round(value, 4) for value in together[:12]}) > 6
    assert list(effects(11, [])) == []


class Fed:
    """How many sequences of how many tokens a module's embedding is given."""

    def __init__(self, module):
        self.shapes = []
        module.register_forward_hook(lambda _, inputs, output: self.shapes.append(tuple(inputs[0].shape)))


def test_what_stands_before_is_run_once_and_few_copies_are_made_where_they_are_large(monkeypatch):
    model, spans = ARCHITECTURES["llama"].build("sdpa"), [(start, start + 1) for start in range(12)] * 3
    effects = Effects(model, IDS[0].tolist())
    before = effects(11, spans)
    fed = Fed(model.get_input_embeddings())
    # keys and values of two layers, two heads, 11 tokens, 16 numbers of four bytes
    cache = 2 * 2 * 2 * 11 * 16 * 4
    for number, limit in ((16, 1 << 28), (3, 3 * cache + 1), (1, 1)):
        fed.shapes.clear()
        monkeypatch.setattr("regard.reading.effects.BYTES", limit)
        np.testing.assert_allclose(effects(11, spans), before, atol=1e-5)
        # two runs of two tokens prove the model
        _, _, _, whole, *hidden = fed.shapes
        assert whole == (1, 11)
        assert max(count for count, _ in hidden) == number
        assert sum(count for count, _ in hidden) == 1 + len(spans)


def test_an_own_model_runs_all_spans_in_one_sequence(monkeypatch):
    torch.manual_seed(0)
    sizes = {"model_dim": 16, "num_heads": 4, "num_key_value_heads": 2, "num_layers": 2, "feed_forward_dim": 16}
    model = GPT(GPTConfig(**sizes, positions="rotary", norm="rms", window=6), 101).double().eval()
    spans = [(6, 8), (8, 9), (11, 12), (0, 3), (7, 12)] * 8
    effects = Effects(model, IDS[0].tolist())
    found = effects(11, spans)
    for span, effect in zip(spans[:5], found, strict=False):
        # the last query alone, after the tokens before it
        past, probabilities = KeyValues(12), []
        model(IDS[:, :11], past)
        x, places = model.embedded(IDS[:, 11:12], past)
        for start, end in ((0, 0), span):
            mask = places.mask.clone()
            mask[..., start:end] = False
            logits = model.through(x, replace(places, mask=mask), past).logits[0, 0]
            probabilities.append(logits.log_softmax(-1)[IDS[0, 12]].item())
        assert effect == pytest.approx(probabilities[1] - probabilities[0], abs=1e-12)
    fed = Fed(model.blocks[0])
    assert np.array_equal(effects(11, spans), found)
    assert [shape[:2] for shape in fed.shapes] == [(1, 11), (1, 41)]
    monkeypatch.setattr("regard.reading.effects.BYTES", 1)
    np.testing.assert_allclose(effects(11, spans), found, atol=1e-12)
    with pytest.raises(RegardError, match="the span 5:12 is all that row 11 sees in its window"):
        effects(11, [(5, 12)])


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


def test_position_biases_stay_where_keys_are_hidden():
    # BLOOM and Falcon count positions over what a mask leaves visible: hiding by a mask moves the biases of the rest
    for name in ("bloom", "falcon_alibi", "mpt"):
        model = DECODERS[name].build("eager")
        (found,) = Effects(model, IDS[0].tolist())(10, [(2, 6)])
        mask = torch.ones(1, 11, dtype=torch.int64)
        mask[:, 2:6] = 0
        by_padding = (
            model(input_ids=IDS[:, :11], attention_mask=mask).logits[0, -1].double().log_softmax(-1)[IDS[0, 11]]
        )
        assert found == pytest.approx(log_probability(model, 10, (2, 6)) - log_probability(model, 10, (0, 0)), abs=2e-4)
        assert abs(found + log_probability(model, 10, (0, 0)) - by_padding.item()) > 1e-2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert", "looks at later keys|gives no logits"),
        ("t5", "does not run on tokens alone"),
        ("whisper", "does not run on tokens alone"),
        ("vit", "does not run on tokens alone"),
        ("clip", "gives no logits|does not run on tokens alone"),
    ],
)
def test_a_model_that_writes_no_text_from_tokens_alone_is_refused(name, message):
    model = ARCHITECTURES[name].build("eager")
    with pytest.raises(RegardError, match=message):
        Effects(model, IDS[0].tolist())(5, [(0, 2)])
    assert effects_of(model, IDS[0].tolist()) is None


def test_a_model_that_is_not_causal_is_refused():
    config = transformers.BertConfig(**ARCHITECTURES["bert"].build("eager").config.to_diff_dict())
    model = transformers.BertForMaskedLM(config).eval()
    with pytest.raises(RegardError, match="looks at later keys"):
        Effects(model, IDS[0].tolist())(5, [(0, 2)])


def test_a_model_in_training_mode_and_a_span_that_is_a_whole_window_are_refused():
    model = DECODERS["mistral"].build("sdpa")
    with pytest.raises(RegardError, match="the span 4:9 is all that it sees"):
        # the window of row 8 is 4 to 8
        Effects(model, IDS[0].tolist())(8, [(4, 9)])
    with pytest.raises(RegardError, match=r"call model\.eval\(\)"):
        Effects(model.train(), IDS[0].tolist())(8, [(0, 2)])


def test_a_module_that_drops_what_its_kernel_gives_is_refused():
    class Deaf(LlamaAttention):
        def forward(self, hidden_states, **kwargs):
            output, weights = super().forward(hidden_states, **kwargs)
            return output.nan_to_num(0.0), weights

    model = DECODERS["llama"].build("sdpa")
    model.model.layers[1].self_attn.__class__ = Deaf
    with pytest.raises(RegardError, match="does not reach its output"):
        Effects(model, IDS[0].tolist())(8, [(0, 2)])


def test_effects_are_had_of_language_models_that_are_fed_ids_and_nothing_else():
    ids = IDS[0].tolist()
    model = DECODERS["llama"].build("sdpa")
    effects = effects_of(model, ids)
    assert effects(8, SPANS).tolist() == Effects(model, ids)(8, SPANS).tolist()
    assert effects_of(model, [*ids[:4], -1, *ids[5:]]) is None
    assert effects_of(model, [*ids, 101]) is None
    assert effects_of(model, ids[:1]) is None
    assert effects_of(torch.nn.Linear(3, 3), ids) is None


def test_nothing_stays_on_a_model_whose_effects_were_asked_for():
    model = DECODERS["bloom"].build("eager")
    before = {key: value for module in model.modules() for key, value in vars(module).items()}
    first = model(input_ids=IDS).logits
    Effects(model, IDS[0].tolist())(8, SPANS)
    assert torch.equal(model(input_ids=IDS).logits, first)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert before.keys() == {key: value for module in model.modules() for key, value in vars(module).items()}.keys()


def test_a_window_that_does_not_see_a_span_is_left_as_it_is():
    effects = Effects(ARCHITECTURES["mistral"].build("sdpa"), IDS[0].tolist())
    # layers look five tokens back: what only they could have brought from further is in what they wrote before
    assert effects(12, [(0, 3)])[0] == pytest.approx(0, abs=1e-6)
    assert abs(effects(12, [(9, 11)])[0]) > 1e-3


def test_a_watch_that_is_open_does_not_see_the_runs_of_an_effect():
    model = DECODERS["llama"].build("sdpa")
    with regard.watching(model) as watch:
        model(input_ids=IDS)
        before = watch.reading(0)
        effect = Effects(model, IDS[0].tolist())(8, [(0, 2)])
        model(input_ids=IDS[:, :5])
    assert [len(watch.reading(0, call=call).sequences["text"].tokens) for call in (0, 1)] == [14, 5]
    assert np.array_equal(watch.reading(0, call=0).weights("decoder", 0), before.weights("decoder", 0))
    assert effect == Effects(model, IDS[0].tolist())(8, [(0, 2)])
    with pytest.raises(RegardError, match="no call 2"):
        watch.reading(0, call=2)


def test_effects_need_the_model():
    model = ARCHITECTURES["llama"].build("sdpa")
    with regard.watching(model) as watch:
        model(input_ids=IDS)
    with pytest.raises(RegardError, match="effects need the model itself"):
        copy.deepcopy(watch.reading(0)).effect(5, (0, 2))


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
