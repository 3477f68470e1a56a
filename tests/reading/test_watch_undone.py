"""What a watch leaves behind: nothing, however it ends, beside others, and in whatever thread the model runs."""

import contextlib
import copy
import threading

import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from torch import nn
from torch.overrides import _get_current_function_mode_stack

import regard
from regard.attention.key_values import KeyValues

transformers = pytest.importorskip("transformers")

WRITE = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [0, 1, 2]}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def model_of(name):
    return ARCHITECTURES[name].build("sdpa"), ARCHITECTURES[name].inputs()


def truths(model, **inputs):
    """By kind and layer, the weights [batch, head, query, key] of a run in float64."""
    calls = witness.capture(model, lambda: model(**inputs, use_cache=False))
    return {(call.kind, call.layer): witness.truth(call) for call in calls}


def agrees(reading, expected, *, tolerance=1e-6):
    assert expected
    for place, weights in expected.items():
        found = torch.as_tensor(reading.weights(*place)).double()
        torch.testing.assert_close(found, weights[0], rtol=0, atol=tolerance)


def everything():
    """All that a watch could leave behind."""
    from transformers.cache_utils import Cache, EncoderDecoderCache
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
    from transformers.utils.generic import GeneralInterface

    owners = [AttentionInterface, GeneralInterface, Cache, EncoderDecoderCache, transformers.GenerationMixin]
    owners += [
        nn.MultiheadAttention,
        nn.TransformerEncoderLayer,
        nn.TransformerEncoder,
        torch.nn.attention.flex_attention,
        KeyValues,
    ]
    found = [dict(vars(owner)) for owner in owners]
    return [*found, dict(ALL_ATTENTION_FUNCTIONS), list(_get_current_function_mode_stack())]


def hooks(model):
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def test_afterwards_everything_is_as_it_was():
    model, inputs = model_of("llama")
    before, hooked, outside = everything(), hooks(model), model(**inputs).logits
    with regard.watching(model), regard.watching(model) as inner:
        model.generate(**inputs, **WRITE)
        assert everything() != before
    assert (everything(), hooks(model)) == (before, hooked)
    assert inner.reading(0).kinds

    class Broken(Exception):
        pass

    def fail(*_):
        raise Broken

    handle = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(Broken), regard.watching(model) as watch:
        model(**inputs)
    assert (everything(), len(hooks(model))) == (before, len(hooked))
    handle.remove()
    assert hooks(model) == hooked

    # one after another fails, and the watch goes on
    with regard.watching(model, rows="all") as watch:
        handle = model.model.layers[0].mlp.register_forward_hook(fail)
        for run in (lambda: model(**inputs), lambda: model.generate(**inputs, **WRITE)):
            with pytest.raises(Broken):
                run()
            assert list(_get_current_function_mode_stack()) == before[-1]
        handle.remove()
        assert torch.equal(model(**inputs).logits, outside)
        agrees(watch.reading(0), truths(model, **inputs))
    assert (everything(), hooks(model)) == (before, hooked)


def test_watches_may_overlap():
    model, inputs = model_of("llama")
    other, _ = model_of("gpt2")
    before = everything()
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    one = first.enter_context(regard.watching(model, rows="all"))
    two = second.enter_context(regard.watching(model, rows="last", top_k=3))
    model(**inputs)
    first.close()
    model.generate(**inputs, **WRITE)
    other(**inputs)
    second.close()
    assert everything() == before
    assert (len(one.recording.seen), len(two.recording.seen)) == (1, 2)
    agrees(one.reading(0), truths(model, **inputs))
    assert two.reading(0).top("decoder", 0).positions.shape == (4, 18, 3)


def in_threads(*works):
    """Runs each in a thread of its own and raises what any of them raised."""
    failures = []

    def run(work):
        try:
            with torch.no_grad():
                work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure


def test_threads_do_not_disturb_each_other():
    model, inputs = model_of("mistral")
    other, items = copy.deepcopy(model), [inputs["input_ids"][:1], inputs["input_ids"][1:, 4:]]
    expected = {tuple(ids[0].tolist()): truths(model, input_ids=ids) for ids in items}
    written = model.generate(**inputs, **WRITE)
    before, together, watches = everything(), threading.Barrier(3), []

    def write():
        together.wait()
        for _ in range(3):
            assert torch.equal(other.generate(**inputs, **WRITE), written)

    def read(ids):
        together.wait()
        for _ in range(5):
            with regard.watching(model, rows="all") as watch:
                model(input_ids=ids, use_cache=False)
            watches.append(watch)

    with regard.watching(other, rows="generated") as watch:
        in_threads(write, lambda: read(items[0]), lambda: read(items[1]))
    assert everything() == before
    assert len(watch.recording.seen) == 3
    assert watch.reading(0).rows("decoder") == list(range(12, 18))
    for watch in watches:
        # the other thread's runs may be among them, as far as they began and ended while this watch was open
        readings = [
            watch.reading(0, call=run)
            for run in range(len(watch.recording.seen))
            if len(watch.recording.seen[run].pieces) == 2
        ]
        tokens = [tuple(token.id for token in reading.sequences["text"].tokens) for reading in readings]
        assert set(tokens) & expected.keys()
        for reading, ids in zip(readings, tokens, strict=True):
            if ids in expected:
                agrees(reading, expected[ids], tolerance=1e-5)


@pytest.mark.parametrize("opens_first", [True, False])
def test_a_run_in_another_thread_outlasts_the_watch_or_began_before_it(opens_first):
    model, inputs = model_of("llama")
    before, hooked, modes = everything(), hooks(model), []
    reached, go_on = threading.Event(), threading.Event()

    def wait(*_):
        reached.set()
        go_on.wait()

    handle = model.model.layers[1].mlp.register_forward_hook(wait)
    plain = []

    def run():
        plain.append(model(**inputs).logits)
        modes.extend(_get_current_function_mode_stack())

    def watch():
        if opens_first:
            with regard.watching(model) as each:
                kept.append(each)
                start.set()
                reached.wait()
            go_on.set()
        else:
            reached.wait()
            with regard.watching(model):
                go_on.set()
                done.wait()

    start, done, kept = threading.Event(), threading.Event(), []

    def runs():
        if opens_first:
            start.wait()
        run()
        done.set()

    in_threads(runs, watch)
    handle.remove()
    assert (everything(), hooks(model), modes) == (before, hooked, [])
    assert torch.equal(plain[0], model(**inputs).logits)


def test_a_thread_that_runs_the_model_reads_its_own_runs(tiny_smollm2):
    model, begun, read = regard.load(tiny_smollm2 / "models" / "smollm2"), threading.Event(), threading.Event()

    def write():
        while not read.is_set():
            model.generate("one two", max_new_tokens=3)
            begun.set()

    def look():
        begun.wait()
        try:
            for _ in range(10):
                readings.append(model.read(text="three four five", rows="all"))
        finally:
            read.set()

    readings = []
    in_threads(write, look)
    expected = model.read(text="three four five", rows="all")
    for reading in readings:
        assert reading.refused == {}
        assert reading.layers("decoder") == expected.layers("decoder") == list(range(6))
        for layer in expected.layers("decoder"):
            assert torch.equal(
                torch.tensor(reading.weights("decoder", layer)), torch.tensor(expected.weights("decoder", layer))
            )


def test_a_model_that_runs_in_a_helper_thread_is_read_by_the_one_that_watches():
    model, inputs = model_of("llama")
    with regard.watching(model, rows="all") as watch:
        in_threads(lambda: model(**inputs))
    assert len(watch.recording.seen) == 1
    agrees(watch.reading(0), truths(model, **inputs))
