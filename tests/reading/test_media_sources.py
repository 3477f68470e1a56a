"""Sources in a picture: hiding a region is a mask in plain code, and the estimate the gradient's word on it."""

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


def in_eager_code(model, asked, gone, contexts=None):
    """log p of the answer in the model's own eager code, with these positions' keys hidden from all others.

    `contexts` gets the weights, values and contexts of each layer.
    """
    from transformers import LlavaForConditionalGeneration
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def written_out(module, query, key, value, mask, scaling, **_):
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
        weights = (query @ key.mT * scaling + mask).softmax(-1)
        found = weights @ value
        if contexts is not None:
            found.retain_grad()
            contexts.append((weights.detach()[0], value.detach()[0], found))
        return found.transpose(1, 2), weights

    ALL_ATTENTION_FUNCTIONS.register("written_out", written_out)
    plain = LlavaForConditionalGeneration(config()).double().eval()
    plain.load_state_dict(model.state_dict())
    plain.model.language_model.set_attn_implementation("written_out")
    ids = torch.tensor([asked.fed[:-1]])
    own = torch.zeros(ids.shape[1], dtype=torch.bool)
    own[list(gone)] = True
    seen = torch.ones(ids.shape[1], ids.shape[1]).tril().bool() & ~(own[None] & ~own[:, None])
    mask = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -1e300)[None, None]
    embeddings = plain.get_input_embeddings()(ids).detach()
    features = plain.model.get_image_features(asked.inputs(ids)["pixel_values"]).pooler_output
    embeddings[ids == IMAGE_ID] = torch.cat(list(features)).reshape(-1, embeddings.shape[-1]).detach()
    states = plain.model.language_model(
        inputs_embeds=embeddings.requires_grad_(), attention_mask=mask
    ).last_hidden_state
    logits = plain.lm_head(states)[0, -len(ANSWER) :].log_softmax(-1)
    return logits[range(len(ANSWER)), ANSWER].sum()


def linear_change(contexts, gone):
    """The gradient of the answer by each context, times how that changes without these keys."""
    total = 0.0
    for weights, values, context in contexts:
        others = [row for row in range(weights.shape[1]) if row not in gone]
        kept = weights.clone()
        kept[:, :, gone] = 0.0
        change = (kept / kept.sum(-1, keepdim=True)) @ values - context.detach()[0]
        total += float((context.grad[0] * change)[:, others].sum())
    return total


def test_effects_are_those_of_a_mask_in_eager_code(model, asked, monkeypatch):
    everyone = lambda estimates, hidden, *_: Confirmed({number: hidden(number) for number in range(len(estimates))})  # noqa: E731
    monkeypatch.setattr("regard.reading.media_sources.confirm_strongest", everyone)
    found = find_media_sources(asked)
    contexts = []
    whole = in_eager_code(model, asked, (), contexts)
    whole.backward()
    whole = whole.item()
    assert found.log_probability == pytest.approx(whole, abs=1e-6)
    assert len(found) == SIDE**2
    for region in found:
        hidden = in_eager_code(model, asked, region.positions).item()
        assert region.effect == pytest.approx(hidden - whole, abs=1e-6)
        assert region.estimate == pytest.approx(linear_change(contexts, list(region.positions)), abs=1e-6)
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
