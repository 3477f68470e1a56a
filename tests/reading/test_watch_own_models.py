"""Regard's own language model under a watch while it writes: its cache is followed as transformers' caches are."""

import numpy as np
import pytest
import torch

import regard
from regard.attention.key_values import KeyValues

PROMPTS = ["one two three", "four", "five six seven eight nine"]


@pytest.fixture(scope="module")
def model(tiny_smollm2):
    return regard.load(tiny_smollm2 / "models" / "smollm2")


def agrees_with_one_run(reading, model):
    """The same tokens run at once, without a cache, and without padding."""
    with torch.inference_mode(), regard.watching(model, rows="all") as watch:
        model.module(torch.tensor([[token.id for token in reading.sequences["text"].tokens]]))
    whole = watch.reading(0)
    assert reading.refused == {}
    assert reading.rows("decoder") == whole.rows("decoder")
    assert reading.layers("decoder") == whole.layers("decoder") == list(range(6))
    for layer in whole.layers("decoder"):
        np.testing.assert_allclose(reading.weights("decoder", layer), whole.weights("decoder", layer), atol=1e-5)


def test_what_it_writes_is_one_sequence(model):
    with regard.watching(model, rows="all") as watch:
        written = model.generate(PROMPTS[0], max_new_tokens=5)
    assert len(watch.recording.seen) == 1
    reading = watch.reading(0)
    # the last token was never fed
    assert [token.id for token in reading.sequences["text"].tokens][-4:] == written.tokens[:4]
    agrees_with_one_run(reading, model)


def test_prompts_of_a_batch_are_read_without_their_padding(model):
    with regard.watching(model, rows="all") as watch:
        model.generate(PROMPTS, max_new_tokens=4)
    assert len(watch.recording.seen) == 1
    for item, prompt in enumerate(PROMPTS):
        reading = watch.reading(item)
        assert reading.sequences["text"].text.startswith(prompt)
        agrees_with_one_run(reading, model)


def test_a_batch_that_shrinks_keeps_those_that_end(model):
    past = KeyValues(5, padding=torch.tensor([0, 2, 1]))
    with torch.inference_mode(), regard.watching(model, rows="all") as watch:
        model.module(torch.tensor([[5, 6, 7], [0, 0, 9], [0, 11, 12]]), past)
        past.select(torch.tensor([2, 0]))
        model.module(torch.tensor([[13], [14]]), past)
    assert len(watch.recording.seen) == 2
    expected = {-1: [[11, 12, 13], [5, 6, 7, 14]], -2: [[5, 6, 7], [9], [11, 12]]}
    for call, sequences in expected.items():
        for item, ids in enumerate(sequences):
            reading = watch.reading(item, call=call)
            assert [token.id for token in reading.sequences["text"].tokens] == ids
            agrees_with_one_run(reading, model)
