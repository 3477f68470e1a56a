"""Sources in a picture: hiding a region is a mask in the model's own eager code, and the estimate is its slope."""

import dataclasses

import pytest
import torch

from regard.errors import RegardError
from regard.reading.media import ImageArea
from regard.reading.media_sources import AskedMedia, find_media_sources
from regard.reading.record import Sequence, Token
from regard.reading.sources import Confirmed

SIDE, PATCH, IMAGE_ID = 4, 4, 3
PROMPT, ANSWER = [1, *[IMAGE_ID] * SIDE**2, 7, 8, 9], [11, 12, 13]


def config():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_ID, vision_feature_layer=-1)


@pytest.fixture(scope="module")
def model():
    from transformers import LlavaForConditionalGeneration

    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    return model


def area(patch):
    row, column = divmod(patch, SIDE)
    left, top = float(PATCH * column), float(PATCH * row)
    return ImageArea(0, row, column, left, top, left + PATCH, top + PATCH)


@pytest.fixture
def asked(model):
    fed = PROMPT + ANSWER
    pixels = torch.randn(1, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(1)).double()
    tokens = [
        Token(-1, "x", place, place + 1, [], "image patch", area(place - 1))
        if id == IMAGE_ID
        else Token(id, "x", place, place + 1, [])
        for place, id in enumerate(fed)
    ]
    inputs = lambda ids: {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}  # noqa: E731
    return AskedMedia(model, Sequence("x" * len(fed), tokens, []), fed, len(PROMPT), inputs)


def eager_log_probability(model, asked, gone, strength):
    """The answer's in the model's own eager code, with log(1 − strength) added to the scores of these positions' keys.

    Other positions then see them with the weight (1 − s) · w / (1 − s · w): at strength 1 not at all.
    """
    from transformers import LlavaForConditionalGeneration

    eager = LlavaForConditionalGeneration(config()).double().eval()
    eager.load_state_dict(model.state_dict())
    eager.set_attn_implementation("eager")
    ids = torch.tensor([asked.fed[:-1]])
    own = torch.zeros(ids.shape[1], dtype=torch.bool)
    own[list(gone)] = True
    causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
    added = (1 - torch.as_tensor(strength, dtype=torch.float64)).log().clamp(min=-1e300)
    mask = torch.where(own[None] & ~own[:, None], added, 0.0).masked_fill(~causal, -1e300)[None, None]
    embeddings = eager.get_input_embeddings()(ids).detach()
    features = eager.model.get_image_features(asked.inputs(ids)["pixel_values"]).pooler_output
    embeddings[ids == IMAGE_ID] = torch.cat(list(features)).reshape(-1, embeddings.shape[-1]).detach()
    states = eager.model.language_model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    logits = eager.lm_head(states)[0, -len(ANSWER) :].log_softmax(-1)
    return logits[range(len(ANSWER)), ANSWER].sum()


def test_effects_are_those_of_a_mask_in_eager_code(model, asked, monkeypatch):
    everyone = lambda estimates, hidden, *_: Confirmed({number: hidden(number) for number in range(len(estimates))})  # noqa: E731
    monkeypatch.setattr("regard.reading.media_sources.confirm_strongest", everyone)
    found = find_media_sources(asked)
    whole = eager_log_probability(model, asked, (), 0.0).item()
    assert found.log_probability == pytest.approx(whole, abs=1e-6)
    assert len(found) == SIDE**2
    for region in found:
        hidden = eager_log_probability(model, asked, region.positions, 1.0).item()
        assert region.effect == pytest.approx(hidden - whole, abs=1e-6)
        strength = torch.zeros((), dtype=torch.float64, requires_grad=True)
        eager_log_probability(model, asked, region.positions, strength).backward()
        assert region.estimate == pytest.approx(strength.grad.item(), abs=1e-6)
    assert found.passes == 3 + SIDE**2
    assert not found.verdict.on
    assert (
        found.to_json()["verdict"]["text"] == "rests on no part of a picture: on the text, or on what the model knows"
    )


def test_a_region_is_the_box_around_its_patches(asked, monkeypatch):
    monkeypatch.setattr("regard.reading.media_sources.MOST_REGIONS", 2)
    found = find_media_sources(asked, confirm=1)
    assert {(each.left, each.top, each.right, each.bottom) for each in found} == {
        (0, 0, 8, 8),
        (8, 0, 16, 8),
        (0, 8, 8, 16),
        (8, 8, 16, 16),
    }
    assert sorted(place for each in found for place in each.positions) == list(range(1, 1 + SIDE**2))
    assert [each.effect is not None for each in found] == [True, False, False, False]


def test_what_cannot_be_sought_is_an_error(asked):
    with pytest.raises(RegardError, match="answer is empty"):
        find_media_sources(dataclasses.replace(asked, fed=PROMPT))
    plain = [token._replace(area=None) for token in asked.tokens.tokens]
    without = dataclasses.replace(asked, tokens=dataclasses.replace(asked.tokens, tokens=plain))
    with pytest.raises(RegardError, match="whose place is known"):
        find_media_sources(without)
    with pytest.raises(RegardError, match="does not run on these inputs"):
        find_media_sources(dataclasses.replace(asked, inputs=lambda ids: {"tokens": ids}))
    asked.module.train()
    try:
        with pytest.raises(RegardError, match="training mode"):
            find_media_sources(asked)
    finally:
        asked.module.eval()
