"""The witness of the benchmarks against the models: what it says of their attention is what they computed."""

import pytest
import torch
from benchmarks import witness, written
from benchmarks.scenarios import greedy
from benchmarks.zoo import ARCHITECTURES

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    # torch, where FlexAttention first loads its compiler
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    # transformers, in every mask for FlexAttention and in WavLM
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask"),
]

# of the largest value, and of 1: a few roundings
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.04}
RUNS = [
    (name, implementation, dtype)
    for name, architecture in ARCHITECTURES.items()
    for implementation in architecture.implementations
    for dtype in architecture.dtypes
    if implementation != "flex_attention" or dtype == torch.float32
]


@pytest.fixture(autouse=True)
def uncompiled():
    with torch.compiler.set_stance("force_eager"):
        yield


def seen(name, implementation, dtype):
    architecture = ARCHITECTURES[name]
    model, inputs = architecture.build(implementation, dtype=dtype), architecture.inputs(dtype)
    return witness.capture(model, lambda: model(**inputs), kinds=architecture.kinds)


@pytest.mark.parametrize(("name", "implementation", "dtype"), RUNS)
def test_the_witness_finds_every_layer_and_its_weights_give_the_context(name, implementation, dtype):
    architecture = ARCHITECTURES[name]
    calls = seen(name, implementation, dtype)
    expected = {(kind, layer) for kind, layers in architecture.layers.items() for layer in layers}
    assert expected <= {(call.kind, call.layer) for call in calls}
    for call in calls:
        if call.scores is None and call.context is not None:
            assert witness.context_error(call) < TOLERANCE[dtype]
    assert all(error < TOLERANCE[dtype] for error in witness.eager_errors(calls).values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_in_the_zoo_is_neither_uniform_nor_on_one_key(name):
    for call in seen(name, "eager", torch.float32):
        weights = witness.truth(call)[0]
        visible = (weights > 0).sum(-1)
        entropy = -(weights * weights.clamp(min=1e-30).log()).sum(-1)
        share = entropy[visible > 1].mean() / visible[visible > 1].double().log().mean()
        if call.kind in ARCHITECTURES[name].layers and (visible > 1).any():
            assert 0.1 < share < 0.99


WRITING = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}


GENERATING = [name for name, each in ARCHITECTURES.items() if each.generates and each.steps_agree]


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "beams") for name in GENERATING]
    + [(name, how) for name in ("llama", "mistral", "gptj", "bart", "t5", "whisper") for how in ("greedy", "sampling")],
)
def test_a_run_with_a_cache_has_the_rows_of_one_plain_forward(name, how):
    architecture = ARCHITECTURES[name]
    # Falcon's two implementations of ALiBi differ
    implementation = "sdpa" if "sdpa" in architecture.implementations else "eager"
    model, output = architecture.build(implementation), []
    settings = greedy(architecture) | WRITING[how] | {"max_new_tokens": 6}
    calls = witness.capture(
        model, lambda: output.append(model.generate(**architecture.prompt(), **settings)), kinds=architecture.kinds
    )
    sequences, beams = output[0].sequences, getattr(output[0], "beam_indices", None)
    run = written.from_run(architecture, calls, sequences, beams)
    plain = written.teacher_forced(architecture, sequences, implementation=implementation)
    for rows, expected in zip(run, plain, strict=True):
        assert rows.keys() == expected.keys()
        for place in rows:
            torch.testing.assert_close(rows[place], expected[place], rtol=0, atol=1e-5)
