"""Continuous batching: each request is read as if it had been alone, whatever shared its steps, and runs as ever."""

import gc
import inspect
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from torch.nn import functional

import regard
from regard.errors import RegardError
from regard.reading.packed import Batch, Packed

transformers = pytest.importorskip("transformers")

from transformers.generation.configuration_utils import ContinuousBatchingConfig  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        "page_size" not in inspect.signature(ContinuousBatchingConfig).parameters, reason="an older transformers"
    ),
    pytest.mark.filterwarnings("ignore:.*FutureWarning"),
]
# steps of at most eight tokens run the longer ones in parts
PROMPTS = [[5, 9, 23, 40, 9, 23, 71, 12, 33], [7, 8], [5, 9, 23, 40, 9, 23, 71, 12, 50, 51, 52, 53]]
FAMILIES = {"llama": "sdpa", "mistral": "sdpa", "gemma3": "sdpa", "gpt_oss": "eager", "qwen3_moe": "eager"}
EXACT = 3e-8


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Whenever a manager stops, transformers collects garbage, which takes a second."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def settings(**how):
    return transformers.GenerationConfig(
        **{"max_new_tokens": 5, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0, **how}
    )


def paging(**how):
    return ContinuousBatchingConfig(**{"page_size": 4, "num_blocks": 32, "max_batch_tokens": 8, **how})


def run(model, prompts=PROMPTS, *, paged=None, **how) -> dict[str, Any]:
    return model.generate_batch(
        prompts, generation_config=settings(**how), continuous_batching_config=paged or paging(), warmup=False
    )


def model_of(name) -> Any:
    return ARCHITECTURES[name].build(FAMILIES[name])


@pytest.fixture
def llama():
    return model_of("llama")


def ids_of(output):
    return [*output.prompt_ids, *output.generated_tokens]


def expected_of(model, ids):
    """The float64 witness's weights by layer, of a plain forward over the same tokens."""
    with torch.no_grad():
        calls = witness.capture(model, lambda: model(torch.tensor([ids[:-1]]), use_cache=False))
    return {call.layer: witness.truth(call)[0].numpy() for call in calls}


def assert_read(reading, model, ids, rows, *, tolerance=5e-6):
    assert not reading.refused
    assert [token.id for token in reading.sequences["text"].tokens] == ids
    assert reading.rows() == rows
    for layer, weights in expected_of(model, ids).items():
        assert np.abs(reading.weights(layer=layer) - weights[:, rows]).max() < tolerance


@pytest.mark.parametrize("name", FAMILIES)
def test_each_request_is_a_sequence_of_its_own(name):
    model = model_of(name)
    with regard.watching(model, rows="generated") as watch:
        outputs = run(model)
    assert len(watch) == 3
    for reading, (request, output) in zip(watch, outputs.items(), strict=True):
        ids, prompt = ids_of(output), len(output.prompt_ids)
        assert reading.settings["request"] == request
        assert_read(reading, model, ids, list(range(prompt - 1, len(ids) - 1)))
        assert [token and token.id for token in reading.written() or ()] == output.generated_tokens


def test_its_rows_are_those_of_the_queries_and_keys_that_the_kernel_got(llama, monkeypatch):
    """Computed by hand from what the fused kernel was given, step by step, in float64."""
    seen, kernel = [], functional.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, scale=None, **rest):
        heads = query.shape[1] // key.shape[1]
        scores = query.double() @ key.double().repeat_interleave(heads, 1).mT * scale
        assert attn_mask is not None
        seen.append((scores + attn_mask.double()).softmax(-1)[0])
        return kernel(query, key, value, attn_mask=attn_mask, scale=scale, **rest)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    with regard.watching(llama, rows="all") as watch:
        (output,) = run(llama, PROMPTS[2:]).values()
    reading, count = watch.reading(0), len(ids_of(output)) - 1
    assert not reading.refused
    for layer in (0, 1):
        rows = np.zeros((4, count, count))
        start = 0
        for weights in seen[layer::2]:
            # one head for each query where steps write one token
            weights = weights.reshape(4, -1, weights.shape[-1])
            stop = start + weights.shape[1]
            rows[:, start:stop, : weights.shape[2]] = weights
            start = stop
        assert start == count
        assert len(seen[layer::2]) == 6
        assert np.abs(reading.weights(layer=layer) - rows).max() <= EXACT


def test_statistics_of_all_rows_are_put_together_of_the_parts(llama):
    names = ("received", "entropy", "induction", "value_norm")
    with regard.watching(llama, rows="all", top_k=3, statistics=names) as watch:
        outputs = run(llama, paged=paging(allow_block_sharing=False))
    for reading, output in zip(watch, outputs.values(), strict=True):
        with regard.watching(llama, rows="all", top_k=3, statistics=names) as alone, torch.no_grad():
            llama(torch.tensor([ids_of(output)[:-1]]))
        expected = alone.reading(0)
        for name in names:
            np.testing.assert_allclose(reading.statistic(name), expected.statistic(name), atol=1e-4, err_msg=name)
        np.testing.assert_allclose(reading.top().weights, expected.top().weights, atol=5e-6)


def test_replay_of_the_same_tokens_gives_the_same_weights(llama):
    with regard.watching(llama, rows="generated") as watch:
        outputs = run(llama)
    for reading, output in zip(watch, outputs.values(), strict=True):
        with regard.watching(llama, rows=reading.rows()) as again, torch.no_grad():
            llama(torch.tensor([ids_of(output)[:-1]]))
        np.testing.assert_allclose(again.reading(0).weights(), reading.weights(), atol=5e-6)


# what requests share


def test_a_shared_prefix_has_its_keys_and_no_rows(llama):
    prompts = [PROMPTS[2], [*PROMPTS[2][:8], 60, 61]]
    with (
        regard.watching(llama, rows="generated") as watch,
        llama.continuous_batching_context_manager(
            generation_config=settings(), continuous_batching_config=paging(), warmup=False
        ) as manager,
    ):
        outputs = []
        for prompt in prompts:
            name = manager.add_request(prompt)
            output = None
            while output is None or not output.is_finished():
                output = manager.get_result(name, timeout=10)
            outputs.append(output)
    (batch,) = watch.recording.seen
    assert isinstance(batch, Batch)
    assert batch.generation(1, watch.wanted).first.start == 8
    for reading, output in zip(watch, outputs, strict=True):
        ids, prompt = ids_of(output), len(output.prompt_ids)
        assert_read(reading, llama, ids, list(range(prompt - 1, len(ids) - 1)))


@pytest.mark.parametrize("how", [{"rows": "all"}, {"rows": [3]}, {"top_k": 2}, {"statistics": "received"}])
def test_rows_that_an_earlier_request_ran_are_an_error(llama, how):
    with regard.watching(llama, **how) as watch:
        run(llama, [PROMPTS[2], PROMPTS[2], PROMPTS[2]], paged=paging(max_batch_tokens=12))
    errors = []
    for item in range(3):
        try:
            watch.reading(item)
        except RegardError as error:
            errors.append(str(error))
    assert errors
    assert all("it shares the keys of its positions 0 to 7 with an earlier request" in each for each in errors)


def test_several_sequences_of_one_prompt_share_its_rows(llama):
    torch.manual_seed(0)
    with regard.watching(llama, rows="generated") as watch:
        outputs = run(llama, PROMPTS[:2], num_return_sequences=3, do_sample=True, temperature=3.0)
    assert len(outputs) == len(watch) == 6
    assert len({tuple(ids_of(output)) for output in outputs.values()}) > 2
    for reading, (request, output) in zip(watch, outputs.items(), strict=True):
        ids, prompt = ids_of(output), len(output.prompt_ids)
        assert reading.settings["request"] == request
        assert_read(reading, llama, ids, list(range(prompt - 1, len(ids) - 1)))


def test_a_request_that_lost_its_keys_and_began_anew_is_one_sequence(llama):
    prompts = [[3 + 7 * place, *range(4, 12)] for place in range(4)]
    starts = []
    original = Packed._run

    def note(self, batch, state, tokens):
        starts.append((state.request_id, state.position_offset - len(tokens)))
        return original(self, batch, state, tokens)

    with pytest.MonkeyPatch.context() as patch, regard.watching(llama, rows="generated") as watch:
        patch.setattr(Packed, "_run", note)
        outputs = run(
            llama,
            prompts,
            max_new_tokens=12,
            paged=paging(num_blocks=12, max_batch_tokens=16, allow_block_sharing=False),
        )
    assert len([start for start in starts if start[1] == 0]) > len(prompts)
    for reading, output in zip(watch, outputs.values(), strict=True):
        ids, prompt = ids_of(output), len(output.prompt_ids)
        assert prompt == 9
        assert_read(reading, llama, ids, list(range(prompt - 1, len(ids) - 1)))


# who reads, and when


def test_requests_have_the_order_in_which_they_were_added(llama):
    with (
        regard.watching(llama, rows="generated") as watch,
        llama.continuous_batching_context_manager(
            generation_config=settings(), continuous_batching_config=paging(), warmup=False
        ) as manager,
    ):
        names = [manager.add_request(prompt, request_id=name) for prompt, name in zip(PROMPTS, "zay", strict=True)]
        found = {}
        while len(found) < 3:
            output = manager.get_result(timeout=10)
            found |= {output.request_id: output} if output is not None and output.is_finished() else {}
    assert [reading.settings["request"] for reading in watch] == names == ["z", "a", "y"]


def test_a_thread_reads_the_requests_that_it_started(llama):
    with regard.watching(llama, rows="generated") as watch:
        run(llama, PROMPTS[:1])
        with torch.no_grad():
            llama(torch.tensor([[1, 2, 3]]))
        assert watch.reading().tokens["text"] == ["1", "2", "3"]
        assert len(watch.readings(call=-2)) == 1
        other = threading.Thread(target=lambda: run(llama, PROMPTS[1:]))
        other.start()
        other.join()
        assert watch.reading().tokens["text"] == ["1", "2", "3"]


def test_a_second_call_is_another(llama):
    with regard.watching(llama, rows="generated") as watch:
        run(llama, PROMPTS[:2])
        outputs = run(llama, PROMPTS[2:])
    assert len(watch.readings(call=0)) == 2
    (reading,) = watch
    assert [token.id for token in reading.sequences["text"].tokens] == ids_of(next(iter(outputs.values())))


def test_layers_that_are_not_asked_for_are_left_out(llama):
    with regard.watching(llama, rows="generated", layers=[1]) as watch:
        run(llama)
    assert all(reading.layers() == [1] for reading in watch)


# a watch never harms a run


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
def test_what_is_written_is_bitwise_what_it_was_and_all_is_undone(name):
    from transformers.generation.continuous_batching.cache import PagedAttentionCache
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

    model = model_of(name)
    before = dict(vars(ContinuousBatchingManager)), dict(vars(PagedAttentionCache))
    # which requests share a step is a matter of time, and so is the rounding: one at a time
    plain = [run(model, [prompt], paged=paging(return_logprobs=True)) for prompt in PROMPTS]
    with regard.watching(model, rows="all", top_k=2, statistics="received"):
        watched = [run(model, [prompt], paged=paging(return_logprobs=True)) for prompt in PROMPTS]
    assert (dict(vars(ContinuousBatchingManager)), dict(vars(PagedAttentionCache))) == before
    for one, other in zip(plain, watched, strict=True):
        (one,), (other,) = one.values(), other.values()
        assert (one.generated_tokens, one.logprobs) == (other.generated_tokens, other.logprobs)


@pytest.mark.parametrize("name", ["started", "added", "begin", "end", "saw", "_run", "_read"])
def test_whatever_a_reader_raises_the_requests_are_written(name, llama, monkeypatch):
    def fail(*_, **__):
        raise ValueError("a reader's own")

    plain = run(llama)
    monkeypatch.setattr(Packed, name, fail)
    with regard.watching(llama, rows="generated") as watch:
        outputs = run(llama)
    assert [ids_of(each) for each in outputs.values()] == [ids_of(each) for each in plain.values()]
    if name in ("saw", "_read"):
        assert all("ValueError: a reader's own" in why for reading in watch for why in reading.refused.values())
        assert all(len(reading.refused) == 2 for reading in watch)


def test_steps_that_were_missed_are_no_shorter_reading(llama, monkeypatch):
    begin, count = Packed.begin, SimpleNamespace(steps=0)

    def sometimes(self, manager):
        count.steps += 1
        if count.steps == 4:
            raise ValueError("a reader's own")
        begin(self, manager)

    monkeypatch.setattr(Packed, "begin", sometimes)
    with regard.watching(llama, rows="generated") as watch:
        run(llama, PROMPTS[:1])
    with pytest.raises(RegardError, match="the steps that wrote request 'req_0' were not all seen"):
        watch.reading(0)


def test_there_is_no_other_request(llama):
    with regard.watching(llama) as watch:
        run(llama, PROMPTS[:1])
    with pytest.raises(RegardError, match="there is no item 1; 1 requests were run"):
        watch.reading(1)


def test_asynchronous_batching_is_refused_with_the_remedy(llama):
    class Manager:
        batch_processor = SimpleNamespace(inputs_and_outputs=SimpleNamespace(io_pairs=[]))

    with regard.watching(llama) as watch:
        watch.recorder().packed.begin(Manager())
        with pytest.raises(RegardError, match=r"ContinuousBatchingConfig\(use_async_batching=False\)"):
            watch.reading(0)
