"""What a watch keeps: which rows, layers and sequences, through caches and `generate`, exactly those of a witness."""

import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from benchmarks.zoo.architecture import scatter

import regard
from regard.errors import RegardError
from regard.generation.steps import cache_name, cache_of

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-6
WRITE = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [0, 1, 2]}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def model_of(name, implementation="sdpa"):
    return ARCHITECTURES[name].build(implementation), ARCHITECTURES[name].inputs()


def truths(model, run, kinds=()):
    """By kind and layer, the weights [batch, head, query, key] of a run in float64."""
    return {(call.kind, call.layer): witness.truth(call) for call in witness.capture(model, run, kinds=kinds)}


def whole(model, ids):
    """The weights of one forward without padding or cache."""
    return truths(model, lambda: model(input_ids=ids, use_cache=False))


def agrees(reading, expected, item=0, *, rows=None, tolerance=TOLERANCE):
    assert expected
    for place, weights in expected.items():
        own = weights[item] if rows is None else weights[item][:, rows]
        found = torch.as_tensor(reading.weights(*place)).double()
        assert found.shape == own.shape
        torch.testing.assert_close(found, own, rtol=0, atol=tolerance)


# rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("last", [12]),
        ("all", list(range(13))),
        ("generated", [12]),
        ([5, 0, -1, 5], [0, 5, 12]),
        (-2, [11]),
        (slice(2, 9, 3), [2, 5, 8]),
        (slice(-3, None), [10, 11, 12]),
        (slice(None, None, -6), [0, 6, 12]),
        ([], []),
    ],
)
def test_rows_are_those_that_were_asked_for(rows, expected):
    model, inputs = model_of("llama")
    with regard.watching(model, rows=rows) as watch:
        model(**inputs)
    assert watch.reading(0).rows("decoder") == expected
    agrees(watch.reading(0), truths(model, lambda: model(**inputs)), rows=expected)


def test_positions_count_from_the_first_token_that_is_no_padding():
    model, inputs = model_of("llama")
    with regard.watching(model, rows=[0, 3, -1]) as watch:
        model(**inputs)
    alone = inputs["input_ids"][1:, 4:]
    assert watch.reading(1).rows("decoder") == [0, 3, 8]
    agrees(watch.reading(1), whole(model, alone), rows=[0, 3, 8], tolerance=1e-5)
    assert [token.id for token in watch.reading(1).sequences["text"].tokens] == alone[0].tolist()


@pytest.mark.parametrize("rows", [[99], 13, [-14], "first", None, 1.5, [0.5], slice(0, 4, 0), ["last"]])
def test_rows_that_there_are_not_are_an_error(rows):
    model, inputs = model_of("llama")

    def read():
        with regard.watching(model, rows=rows) as watch:
            model(**inputs)
        watch.reading(0)

    with pytest.raises(RegardError, match=r"^rows? "):
        read()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layers": 2}, "there is no layer 2; the model has layers 0 to 1"),
        ({"layers": (0, -3)}, "there is no layer -3"),
        ({"layers": "last"}, "layers"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"statistics": ("entropi",)}, "did you mean 'entropy'"),
        ({"statistics": "segments"}, "tokenizer="),
        ({"segments": "sentence"}, "did you mean 'sentences'"),
    ],
)
def test_settings_that_make_no_sense_are_an_error(setting, message):
    model, _ = model_of("llama")
    with pytest.raises(RegardError, match=message), regard.watching(model, **setting):
        pass


@pytest.mark.parametrize(("layers", "expected"), [(0, [0]), (-1, [1]), ((1,), [1]), (range(2), [0, 1])])
def test_layers_are_those_that_were_asked_for(layers, expected):
    for name in ("llama", "bart", "bert"):
        model, inputs = model_of(name)
        with regard.watching(model, layers=layers) as watch:
            model(**inputs)
        reading = watch.reading(0)
        assert all(reading.layers(kind) == expected for kind in ARCHITECTURES[name].kinds)
        assert not reading.refused


def test_beyond_the_visible_keys_the_strongest_are_nowhere():
    model, inputs = model_of("mistral")
    with regard.watching(model, rows="all", top_k=9) as watch:
        model(**inputs)
    positions, weights = watch.reading(1).top("decoder", 1)
    rows = watch.reading(1).weights("decoder", 1)
    for query in range(9):
        # five are within the window
        seen = min(query + 1, 5)
        assert (positions[:, query, seen:] == -1).all()
        assert (weights[:, query, seen:] == 0).all()
        for head in range(4):
            own = positions[head, query, :seen]
            assert sorted(own) == list(range(query + 1 - seen, query + 1))
            assert abs(rows[head, query, own] - weights[head, query, :seen]).max() < TOLERANCE
            assert (weights[head, query, :-1] >= weights[head, query, 1:]).all()


def test_items_and_calls_that_there_are_not_are_an_error():
    model, inputs = model_of("llama")
    with regard.watching(model) as watch:
        with pytest.raises(RegardError, match="nothing was read"):
            watch.reading(0)
        model(**inputs)
        for item in (2, -1):
            with pytest.raises(RegardError, match=f"no item {item}"):
                watch.reading(item)
        for call in (1, -2):
            with pytest.raises(RegardError, match=f"no call {call}; 1 were seen"):
                watch.reading(0, call=call)
        model.generate(**inputs, **WRITE, num_return_sequences=2, num_beams=2)
        assert watch.reading(3).kinds == ["decoder"]
        with pytest.raises(RegardError, match="generate returned 4"):
            watch.reading(4)
        assert watch.reading(1, call=0).rows("decoder") == [8]


# sequences


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "gptj", "deepseek_v3", "gpt_oss"])
def test_steps_on_one_cache_are_one_sequence_and_a_fresh_run_starts_a_new_one(name):
    architecture = ARCHITECTURES[name]
    model = architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")
    ids, other = architecture.inputs()["input_ids"][:1], torch.tensor([[7, 3, 9]])
    with regard.watching(model, rows="all", statistics=("received", "entropy"), top_k=2) as watch:
        cache = None
        for start, stop in ((0, 5), (5, 6), (6, 7), (7, 11), (11, 13)):
            # in between another one
            model(input_ids=other)
            given = {"input_ids": ids[:, start:stop], cache_name(model): cache}
            cache = cache_of(model(**given, use_cache=True))
    with regard.watching(model, rows="all", statistics=("received", "entropy"), top_k=2) as plain:
        model(input_ids=ids, use_cache=False)
    assert len(watch.recording.seen) == 6
    steps, once = watch.reading(0), plain.reading(0)
    assert [token.id for token in steps.sequences["text"].tokens] == ids[0].tolist()
    assert steps.rows("decoder") == list(range(13))
    agrees(steps, whole(model, ids), tolerance=1e-5)
    assert watch.reading(0, call=0).weights("decoder", once.layers("decoder")[0]).shape[1] == 3
    for layer in once.layers("decoder"):
        for statistic in ("received", "entropy"):
            pair = [torch.as_tensor(each.statistic(statistic, "decoder", layer)) for each in (steps, once)]
            torch.testing.assert_close(*pair, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            *(torch.as_tensor(each.top("decoder", layer).weights) for each in (steps, once)), rtol=0, atol=1e-5
        )


def test_a_first_token_that_is_run_alone_is_of_the_same_sequence():
    # MPT says nowhere that it is causal, and one token does not show it
    architecture = ARCHITECTURES["mpt"]
    model, ids = architecture.build("eager"), architecture.inputs()["input_ids"][:1]
    with regard.watching(model, rows="all") as watch:
        cache = cache_of(model(input_ids=ids[:, :1], use_cache=True))
        model(input_ids=ids[:, 1:2], **{cache_name(model): cache})
    assert watch.reading(0).kinds == ["decoder"]
    agrees(watch.reading(0), whole(model, ids[:, :2]), tolerance=1e-5)


def test_a_position_of_several_codebooks_is_one_position_without_a_token():
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "ffn_dim": 48, "vocab_size": 64}
    config = transformers.MusicgenConfig(
        text_encoder=transformers.T5Config(vocab_size=99, d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8),
        audio_encoder=transformers.EncodecConfig(codebook_size=64, codebook_dim=16, num_filters=4, num_lstm_layers=1),
        decoder=transformers.MusicgenDecoderConfig(**sizes, num_codebooks=4, pad_token_id=64, bos_token_id=64),
    )
    model = transformers.MusicgenForConditionalGeneration(config).eval()
    scatter(model.text_encoder, 1.5)
    scatter(model.decoder, 1.5)
    text, sound = torch.randint(3, 99, (2, 6)), torch.randint(0, 64, (2 * 4, 7))
    inputs = {"input_ids": text, "attention_mask": torch.ones_like(text), "decoder_input_ids": sound}
    inputs["attention_mask"][1, 4:] = 0
    with regard.watching(model, rows="all") as watch:
        model(**inputs)
    assert len(watch) == 2
    expected = truths(model, lambda: model(**inputs))
    for item, real in enumerate((6, 4)):
        reading = watch.reading(item)
        assert {place for place in expected if place[0] != "encoder"} <= reading.maps.keys()
        assert {token.id for token in reading.queries("decoder")} == {-1}
        assert [token.id for token in reading.keys("cross")] == text[item, :real].tolist()
        for place, whole in expected.items():
            weights = whole[item] if place[0] == "decoder" else whole[item][..., :real]
            weights = weights[:, :real] if place[0] == "encoder" else weights
            found = torch.as_tensor(reading.weights(*place)).double()
            torch.testing.assert_close(found, weights, rtol=0, atol=1e-6)


CACHES = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "quantized": {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}},
    "none": {"use_cache": False},
    "in parts": {"prefill_chunk_size": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
}


def check_quantises():
    if not hasattr(transformers.cache_utils, "Fp8QuantizedLayer"):
        pytest.skip("this transformers quantises caches only with another library")


@pytest.mark.parametrize(
    ("name", "cache"),
    # transformers quantises no cache of a sliding window
    [(name, cache) for name in ("llama", "mistral", "gemma3") for cache in CACHES if cache != "quantized"]
    + [("llama", "quantized")],
)
def test_whatever_the_cache_the_rows_of_written_tokens_are_exact(name, cache):
    if cache == "quantized":
        check_quantises()
    model = ARCHITECTURES[name].build("sdpa")
    # repeated, so that looking up finds something to try
    ids = torch.tensor([[5, 6, 7, 8, 9] * 3])
    settings = WRITE | CACHES[cache] | {"attention_mask": torch.ones_like(ids)}
    plain = model.generate(ids, **settings)
    with regard.watching(model, rows="generated", top_k=2) as watch:
        written = model.generate(ids, **settings)
    assert torch.equal(plain, written)
    reading = watch.reading(0)
    assert [token.id for token in reading.sequences["text"].tokens] == written[0].tolist()
    rows = list(range(14, written.shape[1] - 1))
    assert reading.rows("decoder") == rows
    # a quantised cache holds other keys than the model computed
    tolerance = 0.2 if cache == "quantized" else 1e-5
    agrees(reading, whole(model, written[:, :-1]), rows=rows, tolerance=tolerance)
    assert all(max(check[:2]) < 1e-4 for check in reading.checks.values())


def test_a_quantised_cache_is_read_as_the_kernel_got_it():
    check_quantises()
    model, inputs = model_of("llama")
    calls = []
    with regard.watching(model, rows="generated") as watch:
        calls += witness.capture(model, lambda: model.generate(**inputs, **WRITE | CACHES["quantized"]))
    last = [call for call in calls if call.layer == 1][-1]
    row = torch.as_tensor(watch.reading(0).weights("decoder", 1))[:, -1].double()
    assert (row - witness.truth(last)[0, :, 0]).abs().max() < TOLERANCE


def test_prompts_of_embeddings_are_written_on():
    model, inputs = model_of("llama")
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"], **WRITE)
    for item, start in ((0, 0), (1, 4)):
        ids = torch.cat([inputs["input_ids"][item, start:], written[item, :-1]])[None]
        rows = list(range(12 - start, ids.shape[1]))
        assert watch.reading(item).rows("decoder") == rows
        agrees(watch.reading(item), whole(model, ids), rows=rows, tolerance=1e-5)


def test_a_sequence_ends_with_its_end():
    model, inputs = model_of("llama")
    first = model.generate(**inputs, **WRITE)[0, 13:]
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(**inputs, **WRITE, eos_token_id=int(first[1]), pad_token_id=0)
    assert (written[0, 15:] == 0).all()
    reading = watch.reading(0)
    assert reading.rows("decoder") == [12, 13]
    assert [token.id for token in reading.written("decoder")] == first[:2].tolist()
