"""Readings of models that see: every row exact, and every patch where its pixels are."""

import re
import sys

import numpy as np
import pytest
import torch
from benchmarks import witness
from benchmarks.truths import by_place

import regard
from regard import RegardError
from regard.language_model.seen import pictured
from regard.models.pretrained import processors

transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

from tests.media_inputs import image_processor, picture  # noqa: E402
from tests.media_models import FAMILIES, PLACED, TEXT, VISION, WRITERS, make, tokenizer  # noqa: E402

FLOAT32_ROUNDING = 2.0**-24
PROMPT = "What is on the mat?"


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    made = {}

    def model(name):
        if name not in made:
            made[name] = regard.load(make(name, tmp_path_factory.mktemp(name)))
        return made[name]

    return model


def pictures_for(name):
    pictures = [picture(60, 40, 1), picture(35, 70, 2)]
    # one for each text
    return pictures[:1] if name == "blip_2" else pictures


def inputs_of(model, images):
    """What the model is given, as the reading's replay has it, without what was written."""
    if model.writes:
        asked = pictured(model, PROMPT, images=images)
        return asked.inputs(torch.tensor([asked.given.ids]), model.module)
    return dict(model.processor.prepare(None, images).inputs)


def kinds_of(reading):
    """The kinds as the witness is told them: what a path tells nothing of is the text's."""
    return tuple(sorted(reading.kinds, key=lambda kind: kind != "decoder"))


# exact


@pytest.mark.parametrize("name", WRITERS)
def test_rows_of_what_was_written_are_those_of_a_witness_and_of_the_run_that_wrote_it(name, model_of):
    model, images = model_of(name), pictures_for(name)
    reading = model.read(PROMPT, images=images, max_new_tokens=5)
    assert reading.refused == {}
    count = reading.settings["prompt_tokens"]
    written = [token.id for token in reading.sequences["text"].tokens[count:]]
    asked = pictured(model, PROMPT, images=images)
    prompt = torch.tensor([asked.given.ids])
    tokens = torch.tensor([[*asked.given.ids, *written]])
    inputs = asked.inputs(tokens[:, :-1], model.module)
    calls = witness.capture(model.module, lambda: model.module(**inputs), kinds=kinds_of(reading))
    truths = by_place(calls)
    for place in reading.maps:
        if place[0] not in ("decoder", "cross"):
            continue
        truth = truths[place][0][:, reading.rows(place[0])]
        assert reading.weights(*place).shape[1] == len(written)
        assert np.abs(reading.weights(*place) - truth.numpy()).max() <= 2 * FLOAT32_ROUNDING
    # step by step, with a cache
    given = asked.inputs(prompt, model.module)
    with regard.watching(model, rows="generated") as watch:
        found = model.module.generate(**given, max_new_tokens=5, do_sample=False)
    assert found[0, prompt.shape[1] :].tolist() == written
    stepped = watch.reading(0)
    for place in reading.maps:
        if place[0] in ("decoder", "cross"):
            assert np.abs(reading.weights(*place) - stepped.weights(*place)).max() < 1e-5
    if name == "blip_2":
        with pytest.raises(RegardError, match="not run token by token"):
            model.generate(PROMPT, images=images)
    else:
        assert model.generate(PROMPT, images=images, max_new_tokens=5).tokens == written


@pytest.mark.parametrize("name", FAMILIES)
def test_the_vision_model_is_read_exactly_in_all_tiles_of_all_pictures(name, model_of):
    model, images = model_of(name), pictures_for(name)
    if model.writes:
        reading = model.read(PROMPT, images=images, max_new_tokens=1, rows="all")
    else:
        reading = model.read(images=images)
    calls = witness.capture(model.module, lambda: run(model, images), kinds=kinds_of(reading))
    found = [place for place in reading.maps if place[0] == "vision"]
    assert found
    for place in found:
        own = [call for call in calls if (call.kind, call.layer) == place and call.key is not None]
        blocks = [each for call in own for each in witness.truth(call)]
        weights = torch.as_tensor(reading.weights(*place)).double()
        assert weights.shape[1:] == (sum(each.shape[1] for each in blocks),) * 2
        start = 0
        for block in blocks:
            end = start + block.shape[1]
            assert (weights[:, start:end, start:end] - block).abs().max() <= 2 * FLOAT32_ROUNDING
            # no picture or tile sees another
            assert not weights[:, start:end, :start].any()
            assert not weights[:, start:end, end:].any()
            start = end


def run(model, images):
    with torch.no_grad():
        if model.writes:
            return model.module(**inputs_of(model, images))
        from regard.models.pretrained.processors import vision_of

        return vision_of(model.module)(pixel_values=inputs_of(model, images)["pixel_values"])


# places

ATTENDS = re.compile(r"(out_proj|o_proj|attention\.output\.dense|attn\.proj|projection_layer)$")


def apart(module):
    """Let no patch see another in the vision model: its features are its own pixels' alone."""
    for name, each in module.named_modules():
        is_text = "language_model" in name or "text_model" in name
        if ATTENDS.search(name) and not is_text and isinstance(each, torch.nn.Linear):
            torch.nn.init.zeros_(each.weight)
            torch.nn.init.zeros_(each.bias) if each.bias is not None else None


def keys_of(model, images, kind, kinds):
    """The keys of the first layer, [key, feature]."""
    calls = witness.capture(model.module, lambda: run(model, images), kinds=kinds)
    calls = [call for call in calls if call.kind == kind]
    own = [call for call in calls if call.layer == min(each.layer for each in calls)]
    return torch.cat([item.transpose(0, 1).flatten(1) for call in own for item in call.key])


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "vision") for name in FAMILIES] + [(name, "decoder") for name in PLACED] + [("mllama", "cross")],
)
def test_painted_pixels_change_the_keys_whose_areas_they_are_in_and_no_others(name, kind, tmp_path):
    model = regard.load(make(name, tmp_path), dtype="float64")
    apart(model.module)
    images = pictures_for(name)
    reading = model.read(PROMPT, images=images, max_new_tokens=1) if model.writes else model.read(images=images)
    tokens = reading.sequences[reading.sides[kind][1]].tokens
    areas, kinds = [token.area for token in tokens], kinds_of(reading)
    assert any(areas)
    before = keys_of(model, images, kind, kinds)
    assert len(before) == len(tokens) - (kind == "decoder")
    random = np.random.default_rng(3)
    for image in range(len(images)):
        for _ in range(3):
            target = [area for area in areas if area is not None and area.image == image]
            own = target[int(random.integers(len(target)))]
            painted = [each.copy() for each in images]
            box = tuple(round(x) for x in (own.left, own.top, own.right, own.bottom))
            painted[image].paste((255, 0, 200) if random.random() < 0.5 else (0, 255, 90), box)
            changed = (keys_of(model, painted, kind, kinds) - before).abs().amax(1) > 1e-9
            touched = {
                index: depth(area, box)
                for index, area in enumerate(areas[: len(before)])
                if area is not None and area.image == image
            }
            for index, is_changed in enumerate(changed.tolist()):
                if touched.get(index, -1e9) > 0.3:
                    assert is_changed, (areas[index], box)
                # as far as an interpolation reaches
                elif touched.get(index, -1e9) < -0.6:
                    assert not is_changed, (areas[index], box)


def depth(area, box):
    """How far an area and a painted box reach into each other, in parts of the area; less than 0 where they do not."""
    across = (min(area.right, box[2]) - max(area.left, box[0])) / (area.right - area.left)
    down = (min(area.bottom, box[3]) - max(area.top, box[1])) / (area.bottom - area.top)
    return min(across, down)


def test_each_cell_of_a_detector_is_where_its_pixels_are(tmp_path):
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
        encoder_ffn_dim=48, decoder_ffn_dim=48, num_queries=5, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.DetrForObjectDetection(config).eval().save_pretrained(tmp_path)
    image_processor("detr", "Detr", size={"shortest_edge": 256, "longest_edge": 420}).save_pretrained(tmp_path)
    model, image = regard.load(tmp_path), picture(330, 205)
    reading = model.read(images=[image])
    assert reading.kinds == ["encoder", "decoder", "cross"]
    assert reading.keys("cross") == reading.keys("encoder")
    areas = [token.area for token in reading.keys("cross")]
    assert len(areas) == 8 * 13
    assert (areas[-1].right, areas[-1].bottom) == pytest.approx((330, 205))
    keys, rows, columns = inner_keys(model, image), *torch.tensor([area[1:3] for area in areas]).T
    for cell in (28, 45, 62):
        painted = image.copy()
        painted.paste((255, 0, 200), tuple(round(x) for x in areas[cell][3:]))
        change = (inner_keys(model, painted) - keys).norm(dim=1)
        # a convolution sees beyond its cell, to all sides alike
        for places, own in ((rows, areas[cell].row), (columns, areas[cell].column)):
            assert abs(float((places * change).sum() / change.sum()) - own) < 0.6


def inner_keys(model, image):
    """What the encoder of a detector is given of each cell."""
    found = []
    encoder = model.module.model.encoder
    with encoder.register_forward_pre_hook(
        lambda _, given, named: found.append(named.get("inputs_embeds", given[0] if given else None)), with_kwargs=True
    ):
        model.read(images=[image])
    return found[0][0]


def test_windows_and_what_stands_before_a_text_are_refused_by_name(tmp_path):
    from benchmarks.zoo import ARCHITECTURES

    for name in ("swin", "vit_mae"):
        ARCHITECTURES[name].build("eager").save_pretrained(tmp_path / name)
        side = 32 if name == "swin" else 16
        size = {"height": side, "width": side}
        image_processor("vit", "ViT", size=size).save_pretrained(tmp_path / name)
    reading = regard.load(tmp_path / "swin").read(images=[picture()])
    assert not reading.maps
    assert all("windows or parts" in why for why in reading.refused.values())
    reading = regard.load(tmp_path / "vit_mae").read(images=[picture()])
    # its patches are shuffled
    assert {token.sort for token in reading.sequences["image"].tokens} == {"position"}
    words = tokenizer()
    config = transformers.GitConfig(**{**TEXT, "vocab_size": len(words)}, vision_config=VISION)
    transformers.GitForCausalLM(config).save_pretrained(tmp_path / "git")
    parts = image_processor("clip", "CLIP", size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), words
    transformers.GitProcessor(*parts).save_pretrained(tmp_path / "git")
    with pytest.raises(RegardError, match="puts others of its own among them"):
        regard.load(tmp_path / "git").read("What?", images=[picture()], max_new_tokens=3)


def test_pictures_and_their_places_must_be_as_many(model_of):
    model, images = model_of("llava"), pictures_for("llava")
    for prompt, given in (("<image>?", images), ("<image> and <image>?", images[:1])):
        with pytest.raises(RegardError, match="give one for each"):
            model.read(prompt, images=given)
    part = {"type": "image"}
    with pytest.raises(RegardError, match="places for 1 pictures"):
        model.read(messages=[{"role": "user", "content": [part]}], images=images)
    with pytest.raises(RegardError, match="nothing is fetched"):
        model.read(messages=[{"role": "user", "content": [{**part, "url": "https://example.org/cat.png"}]}])
    for content in ([{"type": "video"}], ["text"], [{"type": "text"}], [{**part, "image": 3}], []):
        with pytest.raises(RegardError):
            model.read(messages=[{"role": "user", "content": content}], images=None)
    with pytest.raises(RegardError, match="special token"):
        model.read(
            messages=[{"role": "user", "content": [part, {"type": "text", "text": "<image>"}]}], images=images[0]
        )


def test_a_prompt_that_spells_its_places_is_as_it_stands_and_a_picture_in_a_message_is_one(model_of):
    model, images = model_of("llava"), pictures_for("llava")
    reading = model.read("USER: <image>\nWhat? ASSISTANT:", images=images[0], max_new_tokens=2)
    assert reading.sequences["text"].text.startswith("USER: image patch (0, 0) image patch (0, 1)")
    assert "turns" not in reading.settings
    parts = [{"type": "image", "image": images[0]}, {"type": "text", "text": PROMPT}]
    message = {"role": "user", "content": parts}
    first = model.read(messages=[message], max_new_tokens=2)
    same = model.read(PROMPT, images=images[0], max_new_tokens=2)
    assert first.sequences["text"] == same.sequences["text"]
    (turn,) = first.settings["turns"]
    assert first.sequences["text"].text[turn["start"] : turn["end"]] == PROMPT


def test_more_rows_than_fit_are_refused_and_some_of_them_are_read(model_of, monkeypatch):
    monkeypatch.setattr(sys.modules["regard.language_model.seen"], "MOST_BYTES", 4000)
    model, image = model_of("vit"), picture()
    with pytest.raises(RegardError, match="choose rows"):
        model.read(images=image)
    assert model.read(images=image, rows=0).rows("vision") == [0]
    assert model.read(images=image, layers=-1).layers("vision") == [1]


def test_a_run_that_would_write_something_else_is_told(model_of, monkeypatch, caplog):
    model, images = model_of("llava"), pictures_for("llava")
    model.read(PROMPT, images=images, max_new_tokens=5)
    assert not caplog.records
    # as where a family is given something else in generate
    generate = model.adapter.generate
    monkeypatch.setattr(
        model.adapter, "generate", lambda *given, **beside: [each + 1 for each in generate(*given, **beside)]
    )
    model.read(PROMPT, images=images, max_new_tokens=5)
    assert "token 1 of its answer is not the one that the run that is read would write" in caplog.text


def test_places_are_looked_for_once_for_sizes_and_settings(model_of, monkeypatch):
    model, asked = model_of("llava"), []
    tiles_of = processors.tiles_of
    monkeypatch.setattr(processors, "tiles_of", lambda *given: asked.append(given) or tiles_of(*given))
    monkeypatch.setattr(model.processor, "_tiles", {})

    def right_edge(width, height):
        tokens = model.read("x", images=[picture(width, height)], max_new_tokens=1).sequences["text"].tokens
        return max(token.area.right for token in tokens if token.area is not None)

    assert right_edge(60, 40) == right_edge(60, 40) == pytest.approx(50)
    assert len(asked) == 1
    assert right_edge(40, 60) == pytest.approx(40)
    assert len(asked) == 2
    # the picture as a whole is squeezed into the square
    monkeypatch.setattr(model.processor.images, "do_center_crop", False)
    monkeypatch.setattr(model.processor.images, "size", {"height": 28, "width": 28})
    assert right_edge(60, 40) == pytest.approx(60)
    assert len(asked) == 3
