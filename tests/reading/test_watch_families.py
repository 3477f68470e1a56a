"""`regard.watching` over models of every family, beside a witness that shares none of its code: exact, or refused.

The measure is the plain implementation's own error: rows may be off from float64 mathematics on the same query, key
and mask by twice as much, and by the rounding of a float32 result.
"""

import functools
import math

import pytest
import torch
from benchmarks import witness, written
from benchmarks.judging import tensors
from benchmarks.truths import by_place, without_padding
from benchmarks.zoo import ARCHITECTURES
from benchmarks.zoo.architecture import older_than

import regard

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    # torch, where FlexAttention first loads its compiler
    pytest.mark.filterwarnings("ignore:.torch.jit.script"),
    # transformers, in every mask for FlexAttention and in WavLM
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask"),
]

# of a weight, which is at most 1
FLOAT32_ROUNDING = 2.0**-24
RUNS = [
    (name, implementation, dtype)
    for name, architecture in ARCHITECTURES.items()
    for implementation in architecture.implementations
    for dtype in architecture.dtypes
]
# nothing tells which tiles of a batch are of which sequence
TILED = {("vision", 0), ("vision", 1)}
REFUSED = {"llava_next": TILED, "llava_onevision": TILED}
# transformers lets FSMT's decoder see padding, and what comes later, where it keeps a cache
REFUSED |= {} if older_than("5.18") else {"fsmt": {("decoder", 0), ("decoder", 1)}}


@pytest.fixture(autouse=True)
def uncompiled():
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        yield


@functools.cache
def eager_errors(name, dtype):
    architecture = ARCHITECTURES[name]
    model, inputs = architecture.build("eager", dtype=dtype), architecture.inputs(dtype)
    return witness.eager_errors(witness.capture(model, lambda: model(**inputs), kinds=architecture.kinds))


@pytest.mark.parametrize(("name", "implementation", "dtype"), RUNS)
def test_every_layer_is_read_exactly_or_refused_and_the_output_is_what_it_was(name, implementation, dtype):
    architecture = ARCHITECTURES[name]
    model, inputs = architecture.build(implementation, dtype=dtype), architecture.inputs(dtype)

    def run():
        # Reformer hashes at random
        torch.manual_seed(0)
        return list(tensors(model(**inputs)))

    plain = run()
    with regard.watching(model, rows="all", top_k=3, statistics=("received", "entropy")) as watch:
        watched = run()
    calls = witness.capture(model, run, kinds=architecture.kinds)
    assert len(plain) == len(watched)
    for before, after in zip(plain, watched, strict=True):
        assert torch.equal(before.nan_to_num(), after.nan_to_num())

    truths = by_place(calls)
    errors = eager_errors(name, dtype)
    for item in range(2):
        reading = watch.reading(item)
        told = reading.maps.keys() | reading.refused.keys()
        for parts in (architecture.layers, architecture.unread):
            assert {(kind, layer) for kind, layers in parts.items() for layer in layers} <= told
        expected = {(kind, layer) for kind, layers in architecture.layers.items() for layer in layers}
        assert reading.refused.keys() & expected == REFUSED.get(name, set())
        assert all(len(why) > 20 for why in reading.refused.values())
        for place in reading.maps:
            truth = without_padding(architecture, inputs, place[0], truths[place], item)
            bound = 2 * errors.get(place, max(errors.values(), default=0.0)) + FLOAT32_ROUNDING
            compare(reading, place, truth, bound)


def compare(reading, place, truth, bound):
    weights = torch.as_tensor(reading.weights(*place)).double()
    assert weights.shape == truth.shape
    assert (weights - truth).abs().max() <= bound
    assert reading.rows(place[0]) == list(range(truth.shape[1]))
    check = reading.checks[place]
    assert max(check.row_sum_error, check.context_error) < 0.05
    assert check.rows >= truth.shape[1]

    positions, highest = map(torch.as_tensor, reading.top(*place))
    count = min(3, truth.shape[2])
    assert (highest[..., :count] - truth.topk(count).values).abs().max() <= bound + 1e-6
    at = truth.gather(-1, positions[..., :count].clamp(min=0)).where(positions[..., :count] >= 0, 0.0)
    assert (highest[..., :count] - at).abs().max() <= bound + 1e-6

    received = torch.as_tensor(reading.statistic("received", *place))
    assert (received - truth.sum(1)).abs().max() <= truth.shape[1] * (bound + 1e-6)
    entropy = torch.as_tensor(reading.statistic("entropy", *place))
    found = torch.special.entr(truth).sum(-1)
    # entropy is steep at 0
    assert (entropy - found).abs().max() <= truth.shape[2] * (1e-5 + bound * (1 + abs(math.log(bound))))


WRITING = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
}
GENERATING = [name for name, each in ARCHITECTURES.items() if each.generates and each.layers]
SOME = ("llama", "mistral", "gpt_oss", "gptj", "falcon", "jamba", "llava", "bart", "t5", "whisper")


@pytest.mark.parametrize(
    ("name", "how"), [(name, "beams") for name in GENERATING] + [(name, how) for name in SOME for how in WRITING]
)
def test_the_rows_of_all_written_tokens_are_those_of_the_run_that_wrote_them(name, how):
    architecture = ARCHITECTURES[name]
    model = architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")
    settings = WRITING[how] | {"max_new_tokens": 5, "return_dict_in_generate": True, "suppress_tokens": [0, 1]}
    outputs = []

    def run():
        torch.manual_seed(1)
        outputs.append(model.generate(**architecture.prompt(), **settings))

    run()
    with regard.watching(model, rows="generated") as watch:
        calls = witness.capture(model, run, kinds=architecture.kinds)
    plain, output = outputs
    assert torch.equal(plain.sequences, output.sequences)
    truths = written.from_run(architecture, calls, output.sequences, getattr(output, "beam_indices", None))
    for item, truth in enumerate(truths):
        reading = watch.reading(item)
        unread = {(kind, layer) for kind in architecture.unread for layer in architecture.unread[kind]}
        assert unread <= reading.refused.keys()
        for place in truth:
            kept = torch.as_tensor(reading.weights(*place)).double()
            first = reading.rows(place[0])[0]
            assert reading.rows(place[0]) == list(range(first, first + kept.shape[1]))
            assert kept.shape == truth[place].shape
            assert (kept - truth[place]).abs().max() < 1e-6
