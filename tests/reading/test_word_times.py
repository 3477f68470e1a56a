"""Words of a transcript have times, by openai-whisper's method: the path of its own dynamic time warping."""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch
from tests.sounds import RATE, moonshine, noise, whisper

import regard
from regard.data.sound import open_sound
from regard.errors import RegardError
from regard.reading.time_warping import median_filter, warp
from regard.reading.word_times import alignment_heads, jump_times

generation_whisper = pytest.importorskip("transformers.models.whisper.generation_whisper")


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (4, 30), (30, 4)])
def test_the_path_is_the_one_that_transformers_finds(shape):
    random = np.random.default_rng(sum(shape))
    for cost in (random.normal(size=shape), np.round(random.normal(size=shape)), np.zeros(shape)):
        for one, other in zip(warp(cost), generation_whisper._dynamic_time_warping(cost), strict=True):
            np.testing.assert_array_equal(one, other)


def test_no_other_path_is_cheaper():
    cost = np.random.default_rng(3).normal(size=(3, 4))

    def paths(row, column):
        if (row, column) == (2, 3):
            yield cost[2, 3]
        for down, right in ((1, 0), (0, 1), (1, 1)):
            if row + down < 3 and column + right < 4:
                yield from (cost[row, column] + rest for rest in paths(row + down, column + right))

    assert cost[warp(cost)].sum() == pytest.approx(min(paths(0, 0)))


@pytest.mark.parametrize("width", [1, 3, 7])
def test_the_median_is_that_of_transformers(width):
    values = np.random.default_rng(1).normal(size=(2, 3, 20))
    wanted = generation_whisper._median_filter(torch.tensor(values)[None], width)[0].numpy()
    np.testing.assert_allclose(median_filter(values, width), wanted)
    np.testing.assert_array_equal(median_filter(values[..., :3], 7), values[..., :3])


def test_words_that_look_at_their_own_stretch_have_its_times():
    """Three tokens, each with all weight on a third of the sound, in both heads."""
    weights = np.full((2, 3, 30), 1e-3)
    for row in range(3):
        weights[:, row, 10 * row : 10 * row + 10] = 0.1
    np.testing.assert_allclose(jump_times(weights, np.arange(30) / 50, width=3), [0, 0.2, 0.4])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return regard.load(whisper(tmp_path_factory.mktemp("w") / "w", seed=2))


def test_times_are_those_of_transformers_own_function_on_the_same_rows(model):
    """`_extract_token_timestamps` of one eager forward, from the row that wrote the first token."""
    sound = open_sound((noise(1.4), RATE), rate=RATE)
    reading = model.read(audio=sound, language="en", max_new_tokens=9)
    ids = [token.id for token in reading.sequences["target"].tokens]
    module = model.module
    module.set_attn_implementation("eager")
    with torch.no_grad():
        out = module(
            **model.listening.features([sound]), decoder_input_ids=torch.tensor([ids[:-1]]), output_attentions=True
        )
    module.set_attn_implementation("sdpa")
    # its weights of the silence are cut off after the softmax, ours are brought to a sum of 1 again
    heard = [each[..., :70] / each[..., :70].sum(-1, keepdim=True) for each in out.cross_attentions]
    outputs = type("Outputs", (dict,), {"cross_attentions": [heard], "sequences": torch.tensor([ids])})()
    times = module._extract_token_timestamps(
        outputs, reading.settings["alignment_heads"], num_frames=140, num_input_ids=3
    )[0, 3:].tolist()
    assert reading.rows("cross")[0] == 3
    words = reading.sequences["target"].words
    found = reading.word_times()
    assert [each.text for each in found] == words
    assert len(found) >= 1
    for word, each in enumerate(found):
        own = [place for place, token in enumerate(reading.sequences["target"].tokens[4:]) if word in token.words]
        assert each.start == pytest.approx(times[own[0]], abs=1e-5)
        if own[-1] + 1 < len(times) - 1:
            assert each.end == pytest.approx(times[own[-1] + 1], abs=1e-5)


def test_without_alignment_heads_all_of_the_last_half_are_followed(model, tmp_path):
    reading = model.read(audio=(noise(1.0), RATE), language="en", max_new_tokens=5)
    assert alignment_heads(reading) == ([(0, 1), (1, 0)], True)
    settings = {name: value for name, value in reading.settings.items() if name != "alignment_heads"}
    other = dataclasses.replace(reading, settings=settings)
    assert alignment_heads(other) == ([*product([1], range(2))], False)
    assert len(other.word_times()) == len(reading.word_times())
    found = regard.load(moonshine(tmp_path / "m")).read(audio=(noise(1.0), RATE), max_new_tokens=6)
    assert alignment_heads(found) == ([(1, 0), (1, 1)], False)
    assert all(0 <= each.start <= each.end <= 1.0 for each in found.word_times())


def test_what_has_no_word_times_is_told(model, tmp_path):
    reading = model.read(audio=(noise(1.0), RATE), language="en", max_new_tokens=5)
    with pytest.raises(RegardError, match="word times come of the cross-attention of a speech model"):
        dataclasses.replace(reading, media=[]).word_times()
    last = model.read(audio=(noise(1.0), RATE), language="en", max_new_tokens=5, rows="last")
    with pytest.raises(RegardError, match="row 3 was not kept, and word times need every written token's"):
        last.word_times()
    unknown = dataclasses.replace(reading, settings={**reading.settings, "alignment_heads": [[1, 9]]})
    with pytest.raises(RegardError, match="are not heads of its decoder"):
        unknown.word_times()
