"""A watch never harms a run: whatever fails in it, the model returns what it would have returned."""

import copy

import pytest
import torch
from benchmarks.zoo import ARCHITECTURES
from torch import nn

import regard
from regard.errors import RegardError
from regard.kernels.softmax import SoftmaxRows
from regard.reading import labels, layers, layouts, recorder
from regard.reading.capture import session, transformers
from regard.reading.compute import rows, statistics, sweep, verify

hf = pytest.importorskip("transformers")

WRITE = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": [0, 1, 2]}
# every function that runs while the model does
RECORDING = [
    (recorder.Recorder, "enter"),
    (recorder.Recorder, "leave"),
    (recorder.Recorder, "saw"),
    (recorder.Recorder, "begin_generate"),
    (recorder.Recorder, "end_generate"),
    (recorder.Recorder, "failed"),
    (recorder.Recording, "reordered"),
    (recorder, "part_of"),
    (recorder, "layouts_of"),
    (recorder, "read_call"),
    (recorder, "note_rollout"),
    (recorder, "watch_runs"),
    (layers, "kind_of"),
    (layers, "number_of"),
    (layouts, "_range"),
    (labels, "of_sequence"),
    (transformers, "of_interface"),
    (session, "unreadable"),
    (rows, "_rows"),
    (rows, "sweep"),
    (rows, "check_rows"),
    (rows, "exact_weights"),
    (sweep, "tiles"),
    (SoftmaxRows, "numerators_"),
    (statistics.Statistic, "note"),
    (verify, "contexts"),
]
ERRORS = [ValueError, RuntimeError, MemoryError, RecursionError, torch.OutOfMemoryError]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return ARCHITECTURES["llama"].build("sdpa")


INPUTS = ARCHITECTURES["llama"].inputs()


@pytest.mark.parametrize(("owner", "name"), RECORDING, ids=[f"{owner.__name__}.{name}" for owner, name in RECORDING])
def test_whatever_a_reader_raises_the_model_runs_on(owner, name, model, monkeypatch):
    plain = model(**INPUTS).logits
    written = model.generate(**INPUTS, **WRITE)
    for error in ERRORS:

        def fail(*_, error=error, **__):
            raise error("the reader is broken")

        with (
            monkeypatch.context() as patch,
            regard.watching(model, rows="all", top_k=2, statistics=("received", "rollout", "induction")) as watch,
        ):
            patch.setattr(owner, name, fail)
            assert torch.equal(model(**INPUTS).logits, plain)
            assert torch.equal(model.generate(**INPUTS, **WRITE), written)
        # what could not be read is refused, by layer or as a whole
        for call in range(len(watch.recording.seen)):
            try:
                reading = watch.reading(0, call=call)
            except RegardError:
                continue
            for place, weights in reading.maps.items():
                assert weights.shape[1] in (4, 13, 16), place
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_the_user_raises_passes(error, model, monkeypatch):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(recorder, "read_call", stop)
    with pytest.raises(error), regard.watching(model):
        model(**INPUTS)


def test_the_reason_of_a_failure_is_kept_with_its_layer(model, monkeypatch):
    original = recorder.read_call

    def fail(run, kind, call, *others):
        if call.path.endswith("1.self_attn"):
            raise RuntimeError("no such number")
        return original(run, kind, call, *others)

    monkeypatch.setattr(recorder, "read_call", fail)
    with regard.watching(model, rows="all") as watch:
        model(**INPUTS)
    reading = watch.reading(0)
    assert reading.layers("decoder") == [0]
    assert reading.refused["decoder", 1] == "reading it failed: RuntimeError: no such number"


def test_what_another_library_replaced_meanwhile_stays(model):
    from transformers.modeling_utils import AttentionInterface

    before = vars(AttentionInterface)["get_interface"]
    with pytest.warns(RuntimeWarning, match="get_interface"), regard.watching(model):  # noqa: PT031
        ours = vars(AttentionInterface)["get_interface"]

        def theirs(*args, **kwargs):
            return ours(*args, **kwargs)

        AttentionInterface.get_interface = theirs
    try:
        assert vars(AttentionInterface)["get_interface"] is theirs
        model(**INPUTS)
        with regard.watching(model, rows="all") as watch:
            model(**INPUTS)
        assert watch.reading(0).layers("decoder") == [0, 1]
        assert vars(AttentionInterface)["get_interface"] is theirs
    finally:
        AttentionInterface.get_interface = before


def run_exported(model):
    return torch.export.export(model, (), {"input_ids": INPUTS["input_ids"], "use_cache": False}, strict=False)


def run_vmapped(model):
    return torch.func.vmap(lambda ids: model(input_ids=ids[None], use_cache=False).logits)(INPUTS["input_ids"])


def run_with_forward_gradients(model):
    embeddings = model.get_input_embeddings()(INPUTS["input_ids"]).detach()
    run = lambda x: model(inputs_embeds=x, use_cache=False).logits  # noqa: E731
    return torch.func.jvp(run, (embeddings,), (torch.ones_like(embeddings),))


@pytest.mark.parametrize("run", [run_exported, run_vmapped, run_with_forward_gradients])
@pytest.mark.filterwarnings("ignore")
def test_what_holds_no_numbers_runs_as_ever_and_is_not_read(run):
    # the fused kernel has no forward gradients
    model = ARCHITECTURES["llama"].build("eager")
    run(model)
    with regard.watching(model, rows="all") as watch:
        run(model)
    with pytest.raises(RegardError):
        watch.reading(0).weights("decoder", 0)


def test_a_copy_made_meanwhile_is_a_model_of_its_own(model):
    with regard.watching(model) as watch:
        other = copy.deepcopy(model)
        other(**INPUTS)
        assert not watch.recording.seen
    assert "forward" not in vars(other)


def test_an_assistants_layers_are_not_the_models(model):
    ids = INPUTS["input_ids"][:1]
    small = ARCHITECTURES["llama"].build("sdpa", seed=1)
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(ids, attention_mask=torch.ones_like(ids), assistant_model=small, **WRITE)
    reading = watch.reading(0)
    eager = copy.deepcopy(model).double()
    eager.set_attn_implementation("eager")
    count = reading.weights("decoder", 0).shape[2]
    for layer, truth in enumerate(eager(written[:, :count], output_attentions=True).attentions):
        found = torch.as_tensor(reading.weights("decoder", layer)).double()
        torch.testing.assert_close(found, truth[0][:, reading.rows("decoder")], rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"cache_implementation": "static"}, {"prefill_chunk_size": 4}])
def test_a_padded_prompt_keeps_its_rows_in_any_cache(how, model):
    ids = INPUTS["input_ids"].clone()
    mask = torch.ones_like(ids)
    mask[1, :7] = ids[1, :7] = 0
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(ids, attention_mask=mask, disable_compile=True, **WRITE, **how)
    reading = watch.reading(1)
    assert [token.id for token in reading.sequences["text"].tokens] == written[1, 7:].tolist()
    eager = copy.deepcopy(model).double()
    eager.set_attn_implementation("eager")
    alone = written[1:, 7:-1]
    for layer, truth in enumerate(eager(alone, output_attentions=True).attentions):
        found = torch.as_tensor(reading.weights("decoder", layer)).double()
        torch.testing.assert_close(found, truth[0][:, reading.rows("decoder")], rtol=0, atol=1e-5)


def test_autocast_and_default_dtypes_stay_outside(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(**INPUTS).logits
        with regard.watching(model, rows="all", top_k=3, statistics=("received", "entropy")) as watch:
            assert torch.equal(model(**INPUTS).logits, plain)
    reading = watch.reading(0)
    assert not reading.refused
    weights = reading.weights("decoder", 1).astype(float)
    assert abs(reading.statistic("received", "decoder", 1) - weights.sum(1)).max() < 1e-5
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        with regard.watching(model, rows="all", top_k=2, statistics=("received",)) as watch:
            model(**INPUTS)
    finally:
        torch.set_default_dtype(before)
    assert watch.reading(0).weights("decoder", 0).dtype == "float32"


def test_keys_that_an_own_mask_hides_stay_where_they_are(model):
    ids = INPUTS["input_ids"][:1, :10]
    seen = torch.ones(10, 10, dtype=torch.bool).tril() & (torch.arange(10) >= 3)[None]
    seen |= torch.eye(10, dtype=torch.bool)
    with regard.watching(model, rows="all") as watch:
        model(input_ids=ids, attention_mask=seen[None, None], position_ids=torch.arange(10)[None])
    reading = watch.reading(0)
    assert [token.id for token in reading.keys("decoder")] == ids[0].tolist()
    assert (reading.weights("decoder", 0)[:, 3:, :3] == 0).all()


def test_a_direct_call_of_forward_is_a_run():
    architecture = ARCHITECTURES["bert"]
    model, inputs = architecture.build("sdpa"), architecture.inputs()

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, features):
            return self.inner.forward(**features)

    with regard.watching(Wrapper(), rows="all") as watch:
        pass
    wrapper = Wrapper()
    with regard.watching(wrapper, rows="all") as watch:
        wrapper(dict(inputs))
    real = inputs["attention_mask"][1].bool()
    assert len(watch) == 2
    assert [token.id for token in watch.reading(1).sequences["text"].tokens] == inputs["input_ids"][1][real].tolist()
