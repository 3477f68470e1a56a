"""A request that an engine hands over is read as a watched model is: exactly, verified, refused where it is wrong."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import regard
from regard.errors import RegardError
from regard.reading.compute.statistics import SINK_SHARE, STATISTICS

pytest.importorskip("transformers")

BLOCK, LENGTH, POOL = 4, 14, 9
# four blocks of the pool, of which the last is half full
TABLE = [6, 1, 8, 3]
IDS = [5, 9, 23, 40, 9, 23, 71, 12, 33, 9, 23, 40, 56, 18]
# of weights in single precision, which rounding to it alone moves by half a unit in the last place
EXACT = 3e-8
FAMILIES = {"llama": "sdpa", "mistral": "sdpa", "gemma2": "eager", "gpt_oss": "eager"}
OF_ALL = [
    name
    for name, statistic in STATISTICS.items()
    if name not in (SINK_SHARE, "output_norm") and not statistic.by_segment
]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def paged(tensor, table=TABLE, *, number=torch.float32):
    """[key head, position, dim] in blocks of a pool; whatever else is in the pool is poison."""
    pool = torch.full((POOL, BLOCK, tensor.shape[0], tensor.shape[2]), torch.nan, dtype=number)
    for position, row in enumerate(tensor.transpose(0, 1)):
        pool[table[position // BLOCK], position % BLOCK] = row
    return pool


def taken(table):
    """What the witness has of a call through transformers' table."""
    assert table is not None
    return table


def layer_of(call, rows, *, dtype=None, **changes):
    """What a plugin would hand over of one layer, from the tensors that the witness saw."""
    settings = call.settings
    window, sinks = settings.get("sliding_window"), settings.get("s_aux")
    dtype = dtype or call.query.dtype
    return regard.ServedLayer(
        **{
            "number": call.layer,
            "query": call.query[0, :, rows].transpose(0, 1).to(dtype),
            "key_blocks": paged(call.key[0], number=dtype),
            "value_blocks": paged(call.value[0], number=dtype),
            "block_table": np.array(TABLE),
            "context": call.context[0, :, rows].transpose(0, 1).to(dtype),
            "scale": float(settings["scaling"]),
            "softcap": settings.get("softcap"),
            "window": window,
            "sinks": sinks,
            **changes,
        }
    )


def request_of(calls, rows, *, ids=IDS, **changes):
    return regard.ServedRequest(
        **{
            "model": "tiny",
            "ids": ids,
            "prompt_tokens": 10,
            "num_keys": LENGTH,
            "rows": rows,
            "layers": [layer_of(call, rows) for call in calls],
            "block_size": BLOCK,
            **changes,
        }
    )


def seen(name, dtype=torch.float32, **options):
    """The witness's calls and the reading of a watch, of one forward."""
    model = ARCHITECTURES[name].build(FAMILIES[name], dtype=dtype)
    with regard.watching(model, rows="all", **options) as watch:
        calls = witness.capture(model, lambda: model(torch.tensor([IDS]), use_cache=False))
    return calls, watch.reading(0)


@pytest.fixture(scope="module")
def llama():
    with torch.no_grad():
        return seen("llama", top_k=3, statistics=OF_ALL, scores=True)


@pytest.fixture
def served(llama):
    return request_of(llama[0], [3, 9, 12])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rows", [range(LENGTH), range(9, LENGTH), [0, 3, 4, 13]], ids=["all", "answer", "some"])
def test_its_rows_are_those_of_the_float64_witness_and_of_a_watch(name, rows):
    calls, watched = seen(name)
    assert len(calls) == 2
    reading = regard.reading_of(request_of(calls, list(rows)))
    assert not reading.refused
    assert reading.rows() == list(rows)
    for call in calls:
        weights, expected = reading.weights(layer=call.layer), witness.truth(call)[0][:, list(rows)]
        assert weights.shape == (4, len(rows), LENGTH)
        assert np.abs(weights - expected.numpy()).max() <= EXACT
        assert np.abs(weights - watched.weights(layer=call.layer)[:, list(rows)]).max() <= 1e-6
        if name == "gpt_oss":
            shares = reading.statistic("sink_share", layer=call.layer)
            np.testing.assert_allclose(shares, 1 - expected.sum(-1).numpy(), atol=1e-6)


def test_it_is_told_as_a_watched_run_is(llama):
    calls, watched = llama
    how = {"top_k": 3, "statistics": OF_ALL, "scores": True}
    reading = regard.reading_of(request_of(calls, range(LENGTH), prompt_tokens=LENGTH), **how)
    ours, theirs = dict(reading.tensors()), dict(watched.tensors())
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        np.testing.assert_allclose(table, theirs[name], atol=1e-6, err_msg=name)
    assert reading.sequences == watched.sequences
    assert reading.sides == {"decoder": watched.sides["decoder"]}
    assert reading.kept == watched.kept
    assert reading.checks.keys() == watched.checks.keys()


def test_what_generate_wrote_step_by_step_is_read_as_under_a_watch(tiny_smollm2):
    loaded = regard.load(tiny_smollm2 / "models" / "smollm2", library="transformers")
    model: Any = loaded.module
    tokenizer = loaded.tokenizer
    prompt = torch.tensor([tokenizer.encode("One, two. Three")])
    written = []
    with regard.watching(loaded, rows="generated") as watch:
        calls = witness.capture(
            model, lambda: written.append(model.generate(prompt, do_sample=False, min_new_tokens=5, max_new_tokens=5))
        )
    watched, ids = watch.reading(0), written[0][0]
    count, fed = prompt.shape[1], len(ids) - 1
    blocks = -(-fed // BLOCK)
    table = torch.randperm(blocks + 2)[:blocks]
    layers = []
    for number in sorted({call.layer for call in calls}):
        own = [call for call in calls if call.layer == number]
        pools = []
        for side in (taken(own[-1].key)[0], taken(own[-1].value)[0]):
            pool = torch.zeros(blocks + 2, BLOCK, side.shape[0], side.shape[2])
            for position in range(fed):
                pool[table[position // BLOCK], position % BLOCK] = side[:, position]
            pools.append(pool)
        layers.append(
            regard.ServedLayer(
                number=number,
                query=torch.cat([taken(call.query)[0, :, -1:] for call in own], dim=1).transpose(0, 1),
                key_blocks=pools[0],
                value_blocks=pools[1],
                block_table=table,
                context=torch.cat([taken(call.context)[0, :, -1:] for call in own], dim=1).transpose(0, 1),
                scale=own[0].settings["scaling"],
            )
        )
    served = regard.ServedRequest(
        model="tiny",
        ids=ids,
        prompt_tokens=count,
        num_keys=fed,
        rows=range(count - 1, fed),
        layers=layers,
        block_size=BLOCK,
    )
    reading = regard.reading_of(served, tokenizer=tokenizer)
    assert reading.sequences["text"] == watched.sequences["text"]
    assert reading.rows() == watched.rows()
    assert [token and token.id for token in taken(reading.written())] == ids[count:].tolist()
    np.testing.assert_allclose(reading.weights(), watched.weights(), atol=1e-6, rtol=0)
    assert reading.settings["prompt_tokens"] == count
    np.testing.assert_array_equal(regard.reading_of(served, rows="generated").weights(), reading.weights())
    np.testing.assert_array_equal(regard.reading_of(served, rows="last").weights(), reading.weights()[:, :, -1:])
    assert regard.reading_of(served, rows=[-1, count], layers=[-1]).layers() == [layers[-1].number]


def test_values_may_have_another_dimension_and_all_heads_one_key():
    """As with latent attention, whose kernel sees one key head: against softmax as torch computes it."""
    random = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn(shape, generator=random) for shape in [(6, LENGTH, 12), (1, LENGTH, 12), (1, LENGTH, 8)]
    )
    weights = (query.double() @ key.double().mT * 0.3).masked_fill(torch.ones(LENGTH, LENGTH).triu(1) > 0, -torch.inf)
    weights = weights.softmax(-1)
    layer = regard.ServedLayer(
        number=7,
        query=query.transpose(0, 1),
        key_blocks=paged(key),
        value_blocks=paged(value),
        block_table=np.array(TABLE, dtype=np.int32),
        context=(weights @ value.double()).float().transpose(0, 1),
        scale=0.3,
    )
    reading = regard.reading_of(request_of([], range(LENGTH), layers=[layer]))
    assert not reading.refused
    assert np.abs(reading.weights(layer=7) - weights.numpy()).max() <= EXACT


# half precision


def test_half_precision_is_read_and_numpy_without_it_names_the_kernels_dtype():
    calls, watched = seen("llama", torch.bfloat16)
    reading = regard.reading_of(request_of(calls, range(LENGTH)))
    assert not reading.refused
    np.testing.assert_allclose(reading.weights(), watched.weights(), atol=1e-6)
    layers = []
    for call in calls:
        wide = layer_of(call, range(LENGTH), dtype=torch.float32)
        arrays = {name: np.asarray(table) for name, table in wide.tables().items()}
        layers.append(dataclasses.replace(wide, **arrays))
    # in float32 such errors would be wrong weights
    assert regard.reading_of(request_of(calls, range(LENGTH), layers=layers)).refused
    named = regard.reading_of(request_of(calls, range(LENGTH), layers=layers, dtype="bfloat16"))
    assert not named.refused
    np.testing.assert_array_equal(named.weights(), reading.weights())


def test_a_dtype_that_cannot_hold_the_numbers_is_not_the_kernels(llama):
    with pytest.raises(RegardError, match=r"layer 0: query has numbers that bfloat16 cannot hold"):
        regard.reading_of(request_of(llama[0], [3], dtype="bfloat16"))


# blocks behind a sliding window


def test_blocks_that_no_row_sees_may_be_freed():
    calls, watched = seen("mistral")
    rows = list(range(9, LENGTH))
    request = request_of(calls, rows)
    # a window of 5 before row 9 begins at position 5
    freed = [dataclasses.replace(layer, block_table=np.array([-1, *TABLE[1:]])) for layer in request.layers]
    reading = regard.reading_of(dataclasses.replace(request, layers=freed))
    assert not reading.refused
    np.testing.assert_allclose(reading.weights(), watched.weights()[:, :, rows], atol=1e-6)
    gone = [dataclasses.replace(layer, block_table=np.array([-1, -1, *TABLE[2:]])) for layer in request.layers]
    with pytest.raises(RegardError, match=r"layer 0: block_table has no block for positions 4 to 7, which row 9 sees"):
        regard.reading_of(dataclasses.replace(request, layers=gone))


# what was tampered with


def other(table, place, change):
    table = torch.as_tensor(table).clone()
    table[place] += change
    return table


@pytest.mark.parametrize(
    "tamper",
    [
        lambda layer: {"query": other(layer.query, (1, 2), 0.5)},
        lambda layer: {"key_blocks": other(layer.key_blocks, (TABLE[0], 1), 0.5)},
        lambda layer: {"value_blocks": other(layer.value_blocks, (TABLE[1], 0), 0.5)},
        lambda layer: {"context": other(layer.context, (2, 3, 4), 0.01)},
        lambda layer: {"block_table": np.array([TABLE[1], TABLE[0], *TABLE[2:]])},
        lambda layer: {"scale": layer.scale * 1.01},
        lambda layer: {"softcap": 3.0},
        lambda layer: {"window": 5},
        lambda layer: {"sinks": np.zeros(4)},
    ],
    ids=["query", "key", "value", "context", "blocks exchanged", "scale", "softcap", "window", "sinks"],
)
def test_a_layer_that_was_tampered_with_is_refused_and_the_other_is_read(served, tamper):
    first, second = served.layers
    reading = regard.reading_of(
        dataclasses.replace(served, layers=[dataclasses.replace(first, **tamper(first)), second])
    )
    assert reading.refused.keys() == {("decoder", 0)}
    expected = "leaves out the softcap of 3" if "softcap" in tamper(first) else "is not the context"
    assert expected in reading.refused["decoder", 0]
    assert reading.layers() == [1]


def test_rows_that_are_said_to_be_others_are_refused(llama):
    moved = dataclasses.replace(request_of(llama[0], [3, 9, 12]), rows=[4, 9, 12])
    assert regard.reading_of(moved).refused.keys() == {("decoder", 0), ("decoder", 1)}


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda layer: {"query": layer.query[:2]},
            r"layer 1: query \[row, head, dim\] has the shape \[2, 4, 16\], not",
        ),
        (lambda layer: {"query": layer.query[:, :3]}, "layer 1: 3 heads of the query cannot share 2 key heads"),
        (lambda layer: {"query": layer.query[0]}, r"layer 1: query must be \[row, head, dim\], not of the shape"),
        (lambda layer: {"query": layer.query[:, :, :0]}, "layer 1: query is empty"),
        (lambda layer: {"query": layer.query.tolist()}, "layer 1: query must be a numpy array or a torch tensor, not"),
        (lambda layer: {"query": layer.query.to(torch.float8_e4m3fn)}, "layer 1: query must be of .*dequantise"),
        (lambda layer: {"query": np.array([["a"]])}, "layer 1: query must be numbers, not <U1"),
        (lambda layer: {"query": layer.query.to("meta")}, "layer 1: query must be a dense tensor"),
        (lambda layer: {"query": other(layer.query, 0, NAN)}, "layer 1: query has a NaN or infinite number"),
        (lambda layer: {"context": layer.context[:, :, :3]}, r"layer 1: context \[row, head, value dim\]"),
        (lambda layer: {"context": other(layer.context, 0, NAN)}, "layer 1: context has a NaN"),
        (lambda layer: {"key_blocks": layer.key_blocks[:, :3]}, r"layer 1: key_blocks \[block, slot, key head, dim\]"),
        (lambda layer: {"key_blocks": other(layer.key_blocks, TABLE[2], NAN)}, "layer 1: key_blocks has a NaN"),
        (lambda layer: {"value_blocks": layer.value_blocks[1:]}, r"layer 1: value_blocks"),
        (lambda layer: {"value_blocks": layer.value_blocks[:, :, :1]}, r"layer 1: value_blocks"),
        (lambda layer: {"block_table": np.array([6, 1, 9, 3])}, "layer 1: block_table names block 9; there are 9"),
        (lambda layer: {"block_table": np.array([6, 1, -2, 3])}, "layer 1: block_table names block -2"),
        (lambda layer: {"block_table": np.array([-1, 1, 8, 3])}, "layer 1: block_table has no block for positions 0"),
        (lambda layer: {"block_table": np.array([6, 1, 6, 3])}, "layer 1: block_table names block 6 twice"),
        (lambda layer: {"block_table": np.array([6, 1, 8])}, "layer 1: block_table has 3 blocks; 14 keys in blocks of"),
        (lambda layer: {"block_table": np.array([6.0, 1, 8, 3])}, "layer 1: block_table must be whole numbers"),
        (lambda layer: {"sinks": np.zeros(3)}, r"layer 1: sinks \[head\] has the shape \[3\], not \[4\]"),
        (lambda layer: {"sinks": np.full(4, NAN)}, "layer 1: sinks have a NaN"),
        (lambda layer: {"scale": NAN}, "layer 1: scale must be a number above 0 and .*, not nan"),
        (lambda layer: {"scale": 10**400}, "layer 1: scale must be a number above 0"),
        (lambda layer: {"softcap": 0}, "layer 1: softcap must be a number above 0"),
        (lambda layer: {"window": 0}, "layer 1: window must be a whole number of at least 1, not 0"),
        (lambda layer: {"window": True}, "layer 1: window must be a whole number"),
        (lambda layer: {"number": -1}, "the number of a layer must be a whole number of at least 0, not -1"),
        (lambda layer: {"number": 0}, "layer 0 is there twice"),
    ],
)
def test_a_layer_that_contradicts_itself_is_an_error_that_names_it(served, change, why):
    first, second = served.layers
    wrong = dataclasses.replace(served, layers=[first, dataclasses.replace(second, **change(second))])
    with pytest.raises(RegardError, match=why):
        regard.reading_of(wrong)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ids": []}, "ids are empty"),
        ({"ids": [1, 2.5]}, "ids must be a list of whole numbers"),
        ({"ids": "12"}, "ids must be a list of whole numbers"),
        ({"ids": None}, "ids must be a list of whole numbers"),
        ({"ids": [*IDS[:-1], -1]}, "-1 is no token id"),
        ({"ids": [*IDS[:-1], 2**40]}, "is no token id"),
        ({"num_keys": 12}, "num_keys is 12; of 14 ids either all have keys or all but the last"),
        ({"num_keys": 15}, "num_keys is 15"),
        ({"prompt_tokens": 0}, "prompt_tokens must be a whole number of at least 1"),
        ({"prompt_tokens": 15}, "prompt_tokens is 15, and only 14 tokens have keys"),
        ({"rows": []}, "rows are empty"),
        ({"rows": [3, 9, 14]}, "row 14 is out of range; 14 tokens were fed"),
        ({"rows": [-1, 9, 12]}, "row -1 is out of range"),
        ({"rows": [9, 3, 12]}, "rows must ascend, and 9 comes before 3"),
        ({"rows": [3, 3, 12]}, "rows must ascend"),
        ({"layers": []}, "layers are empty"),
        ({"layers": [1]}, "layers must be a list of ServedLayer"),
        ({"block_size": 0}, "block_size must be a whole number of at least 1"),
        ({"block_size": 5}, r"layer 0: key_blocks .* has the shape \[9, 4, 2, 16\], not \[9, 5, 2, 16\]"),
        ({"dtype": "float8"}, "dtype must be one of float16"),
        ({"dtype": ["float16"]}, "dtype must be one of float16"),
        ({"ended": 1}, "ended must be true or false"),
        ({"ended": True, "prompt_tokens": 14}, "there is no answer to end"),
        ({"model": None}, "model must be a name"),
    ],
)
def test_a_request_that_contradicts_itself_is_an_error(served, change, why):
    with pytest.raises(RegardError, match=why):
        regard.reading_of(dataclasses.replace(served, **change))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"statistics": "received"}, "received is about the rows of all 14 tokens, and 3 were handed over"),
        ({"statistics": "rollout"}, "rollout is about the rows of all 14"),
        ({"top_k": 2}, "top_k is about the rows of all 14"),
        ({"statistics": "output_norm"}, "output_norm needs the output projection"),
        ({"rows": "all"}, "row 0 was not handed over; the request has 3 rows, 3 to 12"),
        ({"rows": "last"}, "row 13 was not handed over"),
        ({"rows": [3, 14]}, "row 14 is out of range"),
        ({"layers": [2]}, "layer 2 was not handed over; there are 0, 1"),
        ({"statistic": "received"}, "no setting 'statistic'"),
    ],
)
def test_what_was_not_handed_over_cannot_be_read(served, options, why):
    with pytest.raises(RegardError, match=why):
        regard.reading_of(served, **options)


def test_segments_need_a_tokenizer(llama):
    with pytest.raises(RegardError, match="give reading_of the model's tokenizer="):
        regard.reading_of(request_of(llama[0], range(LENGTH)), statistics="segments")


def test_statistics_of_the_rows_that_are_there_are_read(served, llama):
    reading = regard.reading_of(served, statistics="value_norm")
    expected = llama[1].statistic("value_norm")[:, :, [3, 9, 12]]
    np.testing.assert_allclose(reading.statistic("value_norm"), expected, atol=1e-6)


def test_other_things_are_no_request():
    other: Any = {}
    with pytest.raises(RegardError, match="reading_of takes a ServedRequest, not dict"):
        regard.reading_of(other)


# files


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
def test_a_file_brings_back_what_is_read_and_nothing_of_other_requests(tmp_path, name):
    calls, _ = seen(name)
    request, path = request_of(calls, range(9, LENGTH)), tmp_path / "served.safetensors"
    request.save(path)
    expected, again = regard.reading_of(request), regard.reading_of(regard.ServedRequest.load(path))
    ours, theirs = dict(again.tensors()), dict(expected.tensors())
    assert ours.keys() == theirs.keys()
    for key, table in ours.items():
        np.testing.assert_array_equal(table, theirs[key])
    assert again.to_json() == expected.to_json()
    stored = load_file(path)
    # the pool's other blocks, and the free slots of the last, are not the request's
    assert stored["layer.0.key_blocks"].shape[0] == len(TABLE)
    assert not any(table.isnan().any() for table in stored.values())


def test_a_file_with_freed_blocks_comes_back(tmp_path):
    calls, _ = seen("mistral")
    request = request_of(calls, range(9, LENGTH))
    freed = [dataclasses.replace(layer, block_table=np.array([-1, *TABLE[1:]])) for layer in request.layers]
    request = dataclasses.replace(request, layers=freed)
    request.save(tmp_path / "served.safetensors")
    again = regard.ServedRequest.load(tmp_path / "served.safetensors")
    assert again.layers[0].block_table.tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(regard.reading_of(again).weights(), regard.reading_of(request).weights())


def rewritten(served, tmp_path, change):
    """A file whose facts and tensors were changed."""
    path = tmp_path / "served.safetensors"
    served.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors, facts = load_file(path), json.loads(metadata["request"])
    change(facts, tensors)
    save_file(tensors, path, metadata | {"request": json.dumps(facts)})
    return path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda facts, tensors: tensors.pop("ids"), "there is no tensor 'ids'"),
        (lambda facts, tensors: tensors.pop("layer.1.query"), "layer 1: there is no query"),
        (lambda facts, tensors: tensors.update({"layer.1.extra": torch.ones(1)}), "layer 1: there is an unknown extra"),
        (lambda facts, tensors: tensors.update({"layer.7.query": torch.ones(1)}), "know nothing of a tensor"),
        (lambda facts, tensors: facts.pop("num_keys"), "its facts have no 'num_keys'"),
        (lambda facts, tensors: facts.update(code="x"), "its facts have an unknown 'code'"),
        (lambda facts, tensors: facts.update(layers=3), "its layers are no table"),
        (lambda facts, tensors: facts["layers"].update({"01": {}}), "a layer is named '01'"),
        (lambda facts, tensors: facts["layers"]["0"].pop("scale"), "layer 0 have no 'scale'"),
        (lambda facts, tensors: facts["layers"]["0"].update(scale="1"), "layer 0: scale must be a number"),
        (lambda facts, tensors: facts.update(num_keys=10**30), "num_keys is"),
        (lambda facts, tensors: facts.update(block_size=3), "layer 0: key_blocks"),
        (lambda facts, tensors: tensors.update({"layer.0.block_table": torch.tensor([0, 1, 2, 9])}), "names block 9"),
    ],
)
def test_a_file_that_was_tampered_with_is_an_error_that_names_it(served, tmp_path, change, why):
    path = rewritten(served, tmp_path, change)
    with pytest.raises(RegardError, match=rf"served\.safetensors: .*{why}"):
        regard.ServedRequest.load(path)


def test_a_file_with_other_numbers_is_refused_by_layer(served, tmp_path):
    def change(facts, tensors):
        tensors["layer.1.key_blocks"] *= 1.1

    reading = regard.reading_of(regard.ServedRequest.load(rewritten(served, tmp_path, change)))
    assert reading.refused.keys() == {("decoder", 1)}


def test_other_files_are_errors(served, tmp_path):
    with pytest.raises(RegardError, match="there is no such file"):
        regard.ServedRequest.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(RegardError, match="not a readable served request"):
        regard.ServedRequest.load(tmp_path / "text.safetensors")
    regard.reading_of(served).save(tmp_path / "reading.safetensors")
    with pytest.raises(RegardError, match="not a served request: its format is not 'regard-served-1'"):
        regard.ServedRequest.load(tmp_path / "reading.safetensors")
    with pytest.raises(RegardError, match=r"saved as \.safetensors, not '\.json'"):
        served.save(tmp_path / "served.json")
