"""Attention of any torch module is read: fused, flexible, multi-head or written by hand, beside dense float64 sums."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention, softmax

import regard
from regard.errors import RegardError

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]

BATCH, HEADS, LENGTH, SIZE = 2, 4, 9, 8
MODEL = HEADS * SIZE
CAUSAL = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
LOCAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(-2).tril(2)
SLOPES = -0.3 * (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs().float()
NOTHING = torch.zeros(LENGTH, LENGTH)


@pytest.fixture(autouse=True)
def uncompiled():
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        yield


class Block(nn.Module):
    """Self-attention that lets `attend` do it, and keeps what it gave it."""

    def __init__(self, attend, *, key_heads=HEADS):
        super().__init__()
        self.attend = attend
        sizes = [HEADS * SIZE, key_heads * SIZE, key_heads * SIZE]
        self.project = nn.ModuleList(nn.Linear(MODEL, size) for size in sizes)

    def forward(self, x):
        self.given = [project(x).unflatten(-1, (-1, SIZE)).transpose(1, 2) * 2 for project in self.project]
        return x + self.attend(*self.given).transpose(1, 2).flatten(2)

    def truth(self, bias, scale):
        query, key = (tensor.double() for tensor in self.given[:2])
        key = key.repeat_interleave(HEADS // key.shape[1], dim=1)
        return (query @ key.mT * scale + bias).softmax(-1)


def with_bmm(query, key, value):
    query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))
    weights = nn.functional.dropout(torch.bmm(query, key.mT).add(CAUSAL).softmax(dim=2), 0.1, training=False)
    return torch.bmm(weights, value).unflatten(0, (-1, HEADS))


def with_einsum(query, key, value):
    weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", query, key) / math.sqrt(SIZE) + CAUSAL, dim=-1)
    return torch.einsum("bhij,bhjd->bhid", weights, value)


def with_three_axes(query, key, value):
    heads = [scaled_dot_product_attention(query[:, head], key[:, head], value[:, head]) for head in range(HEADS)]
    return torch.stack(heads, dim=1)


def with_flex(query, key, value):
    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, LENGTH, LENGTH, device="cpu")
    return flex_attention(query, key, value, block_mask=mask, score_mod=lambda s, b, h, q, k: s - 0.3 * (q - k).abs())


# how it attends, what is added to the scores, their scale, and the kind that this is
ATTENDING = {
    "fused": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), CAUSAL, None, "decoder"),
    "by name": (lambda q, k, v: scaled_dot_product_attention(q, k, v, scale=0.2), NOTHING, 0.2, "encoder"),
    "mask": (
        lambda q, k, v: scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=LOCAL),
        NOTHING.masked_fill(~LOCAL, -torch.inf),
        None,
        "encoder",
    ),
    "bias": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SLOPES + CAUSAL),
        SLOPES + CAUSAL,
        None,
        "decoder",
    ),
    "flexible": (with_flex, SLOPES + CAUSAL, None, "decoder"),
    "flexible, whole": (lambda q, k, v: flex.flex_attention(q, k, v, scale=0.5), NOTHING, 0.5, "encoder"),
    "by hand": (lambda q, k, v: softmax(q @ k.transpose(-1, -2) + CAUSAL, -1) @ v, CAUSAL, 1.0, "decoder"),
    "method": (lambda q, k, v: (q @ k.mT).softmax(-1).matmul(v), NOTHING, 1.0, "encoder"),
    "upcast": (lambda q, k, v: (q @ k.mT).float().softmax(-1).type_as(v) @ v, NOTHING, 1.0, "encoder"),
    "bmm": (with_bmm, CAUSAL, 1.0, "decoder"),
    "einsum": (with_einsum, CAUSAL, None, "decoder"),
}


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize("key_heads", [HEADS, 2])
def test_a_module_that_attends_by_itself_is_read(name, key_heads):
    attend, bias, scale, kind = ATTENDING[name]
    if key_heads < HEADS and name not in ("fused", "flexible"):
        return
    if key_heads < HEADS:
        attend = {
            "fused": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
            "flexible": lambda q, k, v: flex_attention(q, k, v, enable_gqa=True),
        }[name]
        bias, kind = (CAUSAL, "decoder") if name == "fused" else (NOTHING, "encoder")
    model = nn.Sequential(*(Block(attend, key_heads=key_heads) for _ in range(2)))
    x = torch.randn(BATCH, LENGTH, MODEL)
    plain = model(x)
    with regard.watching(model, rows="all", top_k=2, statistics=("received",)) as watch:
        assert torch.equal(model(x), plain)
    for item in range(BATCH):
        reading = watch.reading(item)
        assert (reading.kinds, reading.layers(kind), reading.refused) == ([kind], [0, 1], {})
        for layer, block in enumerate(model):
            truth = block.truth(bias, SIZE**-0.5 if scale is None else scale)[item]
            found = torch.as_tensor(reading.weights(kind, layer)).double()
            torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
            received = torch.as_tensor(reading.statistic("received", kind, layer)).double()
            torch.testing.assert_close(received, truth.sum(1), rtol=0, atol=1e-5)


def test_one_head_after_the_other_is_refused():
    model, x = Block(with_three_axes), torch.randn(BATCH, LENGTH, MODEL)
    plain = model(x)
    with regard.watching(model, rows="all") as watch:
        assert torch.equal(model(x), plain)
    # which heads they are nobody says
    assert "several times" in watch.reading(1).refused["encoder", 0]
    assert not watch.reading(1).maps


def test_layers_that_did_not_attend_are_an_error():
    model = nn.Sequential(Block(ATTENDING["fused"][0]))
    with regard.watching(model, layers=[7]) as watch:
        model(torch.randn(BATCH, LENGTH, MODEL))
    with pytest.raises(RegardError, match=r"none of the layers \[7\] attended"):
        watch.reading(0)


def multi_head_truth(module, query, key, hidden=None):
    """The weights [batch, head, query, key] of nn.MultiheadAttention in float64, inputs [batch, position, dim]."""
    separate = module.in_proj_weight is None
    matrices = (module.q_proj_weight, module.k_proj_weight) if separate else module.in_proj_weight.chunk(3)[:2]
    biases = (0, 0) if module.in_proj_bias is None else module.in_proj_bias.double().chunk(3)[:2]
    query, key = (
        (x.double() @ matrix.double().T + bias).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for x, matrix, bias in zip((query, key), matrices, biases, strict=True)
    )
    scores = query @ key.mT * module.head_dim**-0.5
    return (scores if hidden is None else scores + hidden).softmax(-1)


PADDED = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
PADDING = torch.zeros(2, 1, 1, 7).masked_fill(PADDED[:, None, None], -torch.inf)
MASK = torch.zeros(5, 7).masked_fill(torch.arange(7) > torch.arange(5)[:, None] + 2, -torch.inf)
MASKS = torch.randn(6, 5, 7)

MULTI_HEAD = {
    "batch first": ({"batch_first": True}, {}, None),
    "positions first": ({}, {}, None),
    "without bias": ({"bias": False}, {}, None),
    "other sizes": ({"kdim": 5, "vdim": 4}, {}, None),
    "weights asked for": ({}, {"need_weights": True}, None),
    "weights of heads asked for": ({"batch_first": True}, {"need_weights": True, "average_attn_weights": False}, None),
    "padding": ({"batch_first": True}, {"key_padding_mask": PADDED}, PADDING),
    "padding as numbers": ({"batch_first": True}, {"key_padding_mask": PADDING[:, 0, 0]}, PADDING),
    "mask": ({}, {"attn_mask": MASK.isinf()}, MASK),
    "mask as numbers": ({}, {"attn_mask": MASK, "need_weights": True}, MASK),
    "masks": ({"batch_first": True}, {"attn_mask": MASKS}, MASKS.view(2, 3, 5, 7)),
    "masks that hide": (
        {},
        {"attn_mask": MASKS > 1},
        NOTHING[:5, :7].masked_fill(MASKS > 1, -torch.inf).view(2, 3, 5, 7),
    ),
    "mask and padding": ({}, {"attn_mask": MASK, "key_padding_mask": PADDING[:, 0, 0]}, MASK + PADDING),
}


@pytest.mark.parametrize("form", MULTI_HEAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_multi_head_attention_is_read_in_all_its_forms(form, dtype):
    settings, given, hidden = MULTI_HEAD[form]
    cast = {name: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for name, x in given.items()}
    module = nn.MultiheadAttention(24, 3, dtype=dtype, **settings).eval()
    query, key, value = (
        torch.randn(2, count, size, dtype=dtype)
        for count, size in ((5, 24), (7, settings.get("kdim", 24)), (7, settings.get("vdim", 24)))
    )
    if "other" not in form:
        value = key
    inputs = [query, key, value]
    if not settings.get("batch_first"):
        turned = {id(x): x.transpose(0, 1) for x in inputs}
        inputs = [turned[id(x)] for x in inputs]
    arguments = {"need_weights": False} | cast
    plain = module(*inputs, **arguments)
    with regard.watching(module, rows="all") as watch:
        watched = module(*inputs, **arguments)
    assert all(x is y is None or torch.equal(x, y) for x, y in zip(plain, watched, strict=True))
    hidden = None if hidden is None else hidden.to(dtype).double()
    truth = multi_head_truth(module, query, key, hidden)
    for item in range(2):
        reading = watch.reading(item)
        assert (reading.kinds, reading.refused) == (["cross"], {})
        expected = truth[item]
        if "key_padding_mask" in given:
            expected = expected[..., ~PADDED[item]]
        found = torch.as_tensor(reading.weights("cross", 0)).double()
        # in half precision the queries and keys are rounded before
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("need_weights", [True, False])
def test_one_sequence_without_a_batch_is_read(need_weights):
    module, x = nn.MultiheadAttention(24, 3, batch_first=True).eval(), torch.randn(6, 24)
    plain = module(x, x, x, need_weights=need_weights)[0]
    with regard.watching(module, rows="all") as watch:
        assert torch.equal(module(x, x, x, need_weights=need_weights)[0], plain)
    found = torch.as_tensor(watch.reading(0).weights("encoder", 0)).double()
    torch.testing.assert_close(found, multi_head_truth(module, x[None], x[None])[0], rtol=0, atol=1e-6)
    with pytest.raises(RegardError, match="no item 1"):
        watch.reading(1)


def inputs_of(model, paths, run):
    """What modules at these paths are called with."""
    found, handles = {}, []
    for path in paths:

        def note(module, args, kwargs, path=path):
            found[path] = args

        handles.append(model.get_submodule(path).register_forward_pre_hook(note, with_kwargs=True))
    # a gradient keeps torch from running a layer as one kernel
    with torch.enable_grad():
        run()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("padded", [True, False])
def test_an_encoder_of_torch_is_read_run_as_one_kernel_or_not(norm_first, batch_first, activation, padded):
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=batch_first, norm_first=norm_first, activation=activation)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 7, 24)
    given = x if batch_first else x.transpose(0, 1)
    settings = {"src_key_padding_mask": PADDED if padded else None}
    plain = model(given, **settings)
    paths = [f"layers.{number}.self_attn" for number in range(2)]
    with regard.watching(model, rows="all") as watch:
        assert torch.equal(model(given, **settings), plain)
    seen = inputs_of(model, paths, lambda: model(given, **settings))
    for item in range(2):
        reading = watch.reading(item)
        assert (reading.kinds, reading.layers("encoder"), reading.refused) == (["encoder"], [0, 1], {})
        for number, path in enumerate(paths):
            own = seen[path][0] if batch_first else seen[path][0].transpose(0, 1)
            truth = multi_head_truth(model.get_submodule(path), own, own, PADDING if padded else None)[item]
            if padded:
                truth = truth[:, ~PADDED[item]][..., ~PADDED[item]]
            found = torch.as_tensor(reading.weights("encoder", number)).double()
            torch.testing.assert_close(found, truth, rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_of_torch_has_three_kinds(batch_first):
    model = nn.Transformer(24, 3, 2, 2, 32, batch_first=batch_first).eval()
    source, target = torch.randn(2, 7, 24), torch.randn(2, 5, 24)
    turned = (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))
    mask = nn.Transformer.generate_square_subsequent_mask(5)

    def run():
        return model(turned(source), turned(target), tgt_mask=mask, tgt_is_causal=True)

    plain = run()
    with regard.watching(model, rows="all") as watch:
        assert torch.equal(run(), plain)
    reading = watch.reading(1)
    assert reading.kinds == ["encoder", "decoder", "cross"]
    assert not reading.refused
    places = {"decoder": "decoder.layers.{}.self_attn", "cross": "decoder.layers.{}.multihead_attn"}
    places["encoder"] = "encoder.layers.{}.self_attn"
    for kind, path in places.items():
        assert reading.layers(kind) == [0, 1]
        for number in range(2):
            path_here = path.format(number)
            query, key = (turned(x) for x in inputs_of(model, [path_here], run)[path_here][:2])
            truth = multi_head_truth(model.get_submodule(path_here), query, key, mask if kind == "decoder" else None)[1]
            found = torch.as_tensor(reading.weights(kind, number)).double()
            torch.testing.assert_close(found, truth, rtol=0, atol=2e-6)


def test_nested_tensors_are_refused_with_the_remedy():
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 7, 24)
    plain = model(x, src_key_padding_mask=PADDED)
    with regard.watching(model) as watch:
        assert torch.equal(model(x, src_key_padding_mask=PADDED), plain)
    refused = watch.reading(0).refused
    assert [place[1] for place in refused] == [0, 1]
    assert all("enable_nested_tensor=False" in why for why in refused.values())


@pytest.mark.parametrize("settings", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"dropout": 0.1}])
def test_multi_head_attention_that_changes_what_it_attends_to_is_refused(settings):
    module, x = nn.MultiheadAttention(24, 3, batch_first=True, **settings), torch.randn(2, 6, 24)
    with regard.watching(module) as watch:
        module(x, x, x)
    assert list(watch.reading(0).refused) == [("encoder", 0)]
