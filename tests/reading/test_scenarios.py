"""Ways of running a model, each watched: the run is not harmed, and what is read is right in weights and names."""

import dataclasses

import pytest
import torch

import regard

transformers = pytest.importorskip("transformers")

from benchmarks import witness  # noqa: E402
from benchmarks.judging import judge  # noqa: E402
from benchmarks.scenario_table import verdict_of  # noqa: E402
from benchmarks.scenarios import GREEDY, SCENARIOS, forward  # noqa: E402
from benchmarks.zoo import ARCHITECTURES  # noqa: E402
from benchmarks.zoo.architecture import VOCABULARY  # noqa: E402
from benchmarks.zoo.inputs import pixels, tokens  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


ODD = [
    # proposals beyond the last token that is returned
    ("mixtral", "prompt lookup"),
    # a generate of its own, whose first run is fed a proposal too
    ("whisper", "assisted"),
    # code of its own, whose weights have columns for the room in a static cache
    ("gptj", "static cache"),
    ("trocr", "static cache"),
    # an encoder that is a plain module
    ("fsmt", "sampling"),
    # written tokens that are fed as embeddings again
    ("openai_gpt", "prompt tuning"),
    # one learned query that looks at all patches
    ("siglip", "threads"),
    # layers without softmax between those with
    ("nemotron_h", "masked step"),
    ("zamba2", "static cache"),
    ("zamba2", "guidance in one batch"),
    # padding with weights of its own, beside one token alone
    ("mpt", "guidance in one batch"),
    # a prefix that is seen both ways
    ("paligemma", "pictures"),
    # layers that look at the picture alone
    ("mllama", "pictures"),
    ("mllama", "beams"),
    # pictures of unequal size
    ("qwen2_vl", "pictures"),
    ("qwen2_vl", "beams"),
    ("qwen2_vl", "threads"),
    # learned queries, and a `generate` that has the model within write
    ("blip_2", "pictures"),
    ("blip_2", "training"),
    # a picture whose places a mask tells
    ("kosmos_2", "pictures"),
    ("kosmos_2", "beams"),
    # a picture that the model puts before its text
    ("git", "pictures"),
    ("git", "prompt lookup"),
    ("git", "training"),
]


PICTURED = ("paligemma", "mllama", "qwen2_vl", "blip_2", "kosmos_2", "git")


def kernel(name):
    return "sdpa" if "sdpa" in ARCHITECTURES[name].implementations else "eager"


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        *((scenario, name) for scenario in SCENARIOS for name in ("llama", "gemma3", "bart", "llava")),
        *((scenario, name) for name, scenario in ODD),
    ],
)
def test_a_way_of_running_is_read_exactly_and_unharmed(scenario, name):
    with torch.no_grad():
        verdict = verdict_of(name, scenario)
    if verdict is None:
        pytest.skip("it is no way of running this model")
    if verdict.fails:
        pytest.skip(verdict.fails)
    assert not verdict.harmed
    assert not verdict.wrong
    assert not verdict.whole
    assert not verdict.lost
    assert verdict.read


def faults(case):
    """What is not as it should be; nothing where all is read exactly."""
    with torch.no_grad():
        verdict = judge(case)
    return [verdict.fails, *verdict.harmed, *verdict.wrong, verdict.whole, *verdict.lost] if verdict.mark != "✓" else []


@pytest.mark.parametrize("name", PICTURED)
def test_a_forward_over_text_and_picture_is_read_exactly(name):
    assert not faults(forward(ARCHITECTURES[name], kernel(name)))


@pytest.mark.parametrize("owners", [[0, 1], [0, 0], [1, 1], [0], [1]])
@pytest.mark.parametrize("how", [None, {}, {"num_beams": 2, "num_return_sequences": 2}])
def test_pictures_that_are_calls_of_their_own_are_those_of_the_sequence_that_has_their_places(owners, how):
    """Qwen2-VL's pictures of 4 by 8 and 4 by 4 patches, of which four are a token."""
    architecture = ARCHITECTURES["qwen2_vl"]
    model, inputs = architecture.build("sdpa"), architecture.inputs()
    image, counts = architecture.medium_id, [8, 4][: len(owners)]
    ids = torch.arange(3, 23).repeat(2, 1)
    for sequence in {*owners}:
        own = [count for owner, count in zip(owners, counts, strict=True) if owner == sequence]
        row = [id for count in own for id in (image - 2, *[image] * count)]
        ids[sequence, 2 : 2 + len(row)] = torch.tensor(row)
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == image).long(),
        "pixel_values": inputs["pixel_values"][: 4 * sum(counts)],
        "image_grid_thw": inputs["image_grid_thw"][: len(owners)],
    }
    with torch.no_grad(), regard.watching(model, rows="all") as watch:
        model(**given) if how is None else model.generate(**given, **GREEDY | how)
        calls = witness.capture(model, lambda: model(**given), kinds=architecture.kinds)
    truths = [witness.truth(call)[0] for call in calls if (call.kind, call.layer) == ("vision", 1)]
    readings = watch.readings()
    for item, reading in enumerate(readings):
        sequence = item * 2 // len(readings)
        expected = [truth for owner, truth in zip(owners, truths, strict=True) if owner == sequence]
        if not expected:
            assert "vision" not in reading.kinds
            assert not reading.refused
            continue
        # each picture sees itself alone
        whole = torch.stack([torch.block_diag(*heads) for heads in zip(*expected, strict=True)])
        found = torch.as_tensor(reading.weights("vision", 1)).double()
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["forward", "generate"])
def test_pictures_of_one_sequence_are_never_taken_for_those_of_another(way):
    architecture = ARCHITECTURES["llava"]
    ids = torch.arange(3, 43).repeat(2, 1)
    # two pictures in the first sequence, none in the second
    ids[0, 2:18] = ids[0, 20:36] = architecture.medium_id
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | pixels()
    model = architecture.build("sdpa")
    with torch.no_grad(), regard.watching(model, rows="all") as watch:
        model.generate(**inputs, **GREEDY) if way == "generate" else model(**inputs)
    for reading in watch.readings():
        assert reading.kinds == ["decoder"]
        assert "not told apart by sequence" in reading.refused["vision", 1]


def test_a_prompt_as_long_as_its_picture_is_not_taken_for_it():
    """BLIP-2's picture comes as 17 positions; here so do the ids, some of them padding."""

    def inputs():
        text = tokens(17, short=12, left=True)
        text["input_ids"] = text["input_ids"].clamp_max(VOCABULARY - 2)
        text["input_ids"][:, 6:10] = VOCABULARY - 1
        return text | pixels()

    assert not faults(forward(dataclasses.replace(ARCHITECTURES["blip_2"], make_inputs=inputs), "sdpa"))


def test_a_picture_before_the_text_has_its_names_and_the_text_its_ids():
    model, inputs = ARCHITECTURES["git"].build(), ARCHITECTURES["git"].inputs()
    with torch.no_grad(), regard.watching(model, rows="all") as watch:
        model(**inputs)
    found = watch.reading(1).keys("decoder")
    assert [token.sort for token in found] == ["class token", *["image patch"] * 16, *["token"] * 9]
    assert [token.id for token in found[17:]] == inputs["input_ids"][1, 4:].tolist()
