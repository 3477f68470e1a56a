"""Sources in pictures and sounds: hiding is a mask in plain code, and a bound is what the gradient says at most."""

import dataclasses
import sys
from typing import Any

import pytest
import torch
from tests import media_models, sounds
from tests.media_inputs import picture

import regard
from regard.errors import RegardError
from regard.language_model.heard import asked_transcript, heard, transcript_of
from regard.language_model.heard_text import heard_prompt
from regard.language_model.seen import pictured
from regard.reading.media_sources import find_media_sources
from regard.reading.reading import Reading
from regard.reading.sources import Confirmed, SourceOptions

pytest.importorskip("transformers")
NOISE = (sounds.noise(1.3), sounds.RATE)
ANSWER = [11, 12, 13]


def seen(model):
    asked = pictured(model, "What is on the mat?", images=[picture(60, 40)])
    return asked.asking(model, ANSWER)


def heard_beside_text(model):
    return heard_prompt(model, [NOISE], {"prompt": "What?"}).asking(model, ANSWER)


def transcribed(model):
    sound = heard(model.listening, NOISE)
    written, features = transcript_of(model, sound, language=None, task=None, max_new_tokens=1)
    return asked_transcript(model, sound, features, written.prefix, ANSWER)


# how each family is made, what it is asked, and the attention that looks at what may be hidden
FAMILIES = {
    "llava": (media_models.make, seen, "self_attn"),
    # its text looks ahead over all of the prompt
    "paligemma": (media_models.make, seen, "self_attn"),
    "mllama": (media_models.make, seen, "cross_attn"),
    "qwen2_audio": (lambda _, folder: sounds.qwen2_audio(folder), heard_beside_text, "self_attn"),
    "whisper": (lambda _, folder: sounds.whisper(folder), transcribed, "encoder_attn"),
    "moonshine": (lambda _, folder: sounds.moonshine(folder), transcribed, "encoder_attn"),
    "speech_to_text": (lambda _, folder: sounds.speech_to_text(folder), transcribed, "encoder_attn"),
}


@pytest.fixture(scope="module")
def asked_of(tmp_path_factory):
    made = {}

    def asked(name):
        if name not in made:
            make, ask, _ = FAMILIES[name]
            made[name] = ask(regard.load(make(name, tmp_path_factory.mktemp(name) / "model"), dtype="float64"))
        return made[name]

    return asked


@pytest.fixture(params=FAMILIES)
def family(request, asked_of):
    return asked_of(request.param), FAMILIES[request.param][2]


@pytest.fixture
def all_hidden(monkeypatch):
    """Every part is hidden, whatever the bounds."""
    everyone = lambda estimates, hidden, *_: Confirmed({number: hidden(number) for number in range(len(estimates))})  # noqa: E731
    monkeypatch.setattr("regard.reading.media_sources.confirm_strongest", everyone)


@pytest.fixture
def in_eager_code(monkeypatch):
    """log p of the answer in eager code, with these positions' keys hidden from all others, or from all across.

    `contexts` gets the weights, values and contexts of each layer that looks at what may be hidden.
    """

    def run(asked, attention, gone=(), contexts=None):
        looks = {id(each) for name, each in asked.attends.named_modules() if name.endswith(attention)}
        gone = list(gone)

        def written_out(module, query, key, value, mask, scaling=1.0, **_):
            key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
            scores = query @ key.mT * scaling
            weights = (scores if mask is None else scores + mask[..., : key.shape[2]]).softmax(-1)
            found = weights @ value
            if id(module) in looks:
                if contexts is not None:
                    found.retain_grad()
                    contexts.append((weights.detach()[0], value.detach()[0], found))
                if gone:
                    kept = weights.index_fill(-1, torch.tensor(gone), 0.0)
                    hidden = (kept / kept.sum(-1, keepdim=True)) @ value
                    own = [] if asked.across is not None else gone
                    hidden[:, :, own] = found[:, :, own]
                    found = hidden
            return found.transpose(1, 2), weights

        for each in asked.attends.modules():
            if id(each) in looks:
                monkeypatch.setattr(sys.modules[type(each).__module__], "eager_attention_forward", written_out)
        before = asked.attends.config._attn_implementation
        asked.module.set_attn_implementation("eager")
        embedding = asked.attends.get_input_embeddings()
        hook = embedding.register_forward_hook(lambda module, given, out: out.detach().requires_grad_().clone())
        try:
            with hook:
                ids = torch.tensor([asked.fed[:-1]])
                logits = asked.module(**asked.inputs(ids), use_cache=False).logits[0, -len(ANSWER) :]
        finally:
            asked.module.set_attn_implementation(before)
        return logits.log_softmax(-1)[range(len(ANSWER)), ANSWER].sum()

    return run


def bound(asked, contexts, gone):
    """The length of the answer's gradient by each context, times how far that moves without these keys."""
    total = 0.0
    for weights, values, context in contexts:
        others = [row for row in range(weights.shape[1]) if asked.across is not None or row not in gone]
        kept = weights.clone()
        kept[:, :, gone] = 0.0
        change = (kept / kept.sum(-1, keepdim=True)) @ values - context.detach()[0]
        total -= float((context.grad[0].norm(dim=-1) * change.norm(dim=-1))[:, others].sum())
    return total


def test_effects_are_those_of_a_mask_in_eager_code(family, in_eager_code, all_hidden, monkeypatch):
    monkeypatch.setattr("regard.reading.media_sources.MOST_REGIONS", 2)
    asked, attention = family
    found = find_media_sources(asked)
    contexts = []
    whole = in_eager_code(asked, attention, (), contexts)
    whole.backward()
    whole = whole.item()
    assert found.log_probability == pytest.approx(whole, abs=1e-6)
    assert len(found) >= 4
    assert contexts
    for part in found:
        hidden = in_eager_code(asked, attention, part.positions).item()
        # norms of Gemma and Llama round to float32
        assert part.effect == pytest.approx(hidden - whole, abs=1e-5)
        assert part.bound == pytest.approx(bound(asked, contexts, list(part.positions)), rel=1e-4)
    assert max(abs(part.effect) for part in found) > 1e-3
    assert found.passes == 3 + len(found)


def test_the_bound_is_exact_where_a_row_looks_at_one_part_alone(asked_of, in_eager_code):
    """A hundred-thousandth of a row is left without the part, and less, which 1 − W in float32 does not know."""
    asked, contexts = asked_of("llava"), []
    queries = [each for name, each in asked.attends.named_modules() if name.endswith("q_proj")]
    with torch.no_grad():
        for each in queries:
            each.weight.mul_(8)
    try:
        found = find_media_sources(asked, SourceOptions(confirm=1))
        in_eager_code(asked, "self_attn", (), contexts).backward()
    finally:
        with torch.no_grad():
            for each in queries:
                each.weight.div_(8)
    most = [weights[:, :, list(part.positions)].sum(-1).max() for weights, *_ in contexts for part in found]
    assert any(1e-12 < 1 - each < 1e-5 for each in most)
    for part in found:
        assert part.bound == pytest.approx(bound(asked, contexts, list(part.positions)), rel=1e-2)


def test_a_region_is_the_box_around_its_patches(asked_of, monkeypatch):
    monkeypatch.setattr("regard.reading.media_sources.MOST_REGIONS", 2)
    asked = asked_of("llava")
    found = find_media_sources(asked, SourceOptions(confirm=1))
    patches = {position: token.area for position, token in enumerate(asked.tokens.tokens) if token.area}
    assert len(found) == 4
    assert sorted(position for each in found for position in each.positions) == sorted(patches)
    for each in found:
        boxes = [patches[position] for position in each.positions]
        assert (each.area.left, each.area.top) == tuple(min(box[side] for box in boxes) for side in (3, 4))
        assert (each.area.right, each.area.bottom) == tuple(max(box[side] for box in boxes) for side in (5, 6))
    assert found[0].effect is not None
    assert found[-1].effect is None
    assert found[-1].share == 0


def test_spans_of_a_sound_are_half_a_second_and_silence_behind_it_is_none(asked_of):
    asked = asked_of("whisper")
    frames = {position for position, token in enumerate(asked.across.tokens) if token.area}
    assert len(frames) < len(asked.across.tokens)
    found = find_media_sources(asked)
    assert {position for each in found for position in each.positions} == frames
    # of less than two seconds a quarter
    assert all(each.area.end - each.area.start == pytest.approx(1.3 / 4, abs=0.021) for each in found)
    assert {each.text for each in found} >= {"sound 1, 0.00–0.33 s"}


def test_a_part_of_the_answer_is_judged_alone(asked_of, all_hidden):
    asked = asked_of("llava")
    whole = find_media_sources(asked)
    parts = [find_media_sources(asked, SourceOptions(of=(place, place + 1))) for place in range(len(ANSWER))]
    assert sum(part.log_probability for part in parts) == pytest.approx(whole.log_probability)
    for region in whole:
        own = [each.effect for part in parts for each in part if each.positions == region.positions]
        assert sum(own) == pytest.approx(region.effect, abs=1e-9)


@pytest.mark.parametrize("name", ["llava", "qwen2_audio", "whisper"])
def test_a_reading_knows_the_sources_of_its_answer(name, asked_of, tmp_path_factory):
    pytest.importorskip("matplotlib")
    make, ask, _ = FAMILIES[name]
    model = regard.load(make(name, tmp_path_factory.mktemp(name) / "model"))
    media: dict[str, Any] = {"images": [picture(60, 40)]} if ask is seen else {"audio": NOISE}
    prompt = None if ask is transcribed else "What?"
    asked = model.sources(prompt, **media, max_new_tokens=3, confirm=1)
    read = model.read(prompt, **media, max_new_tokens=3)
    assert read.sources(confirm=1).to_json() == asked.to_json()
    drawn = tmp_path_factory.mktemp(name) / "sources.svg"
    read.plot("sources", drawn)
    words = drawn.read_text(encoding="utf-8")
    assert f"<!-- {asked[0].text} -->" in words
    assert "≤ " in words
    kept = drawn.with_name("reading.json")
    read.save(kept)
    with pytest.raises(RegardError, match="with the model at hand"):
        Reading.load(kept).sources()


def test_what_cannot_be_sought_is_an_error(asked_of):
    asked = asked_of("llava")
    with pytest.raises(RegardError, match="answer is empty"):
        find_media_sources(dataclasses.replace(asked, fed=asked.fed[: asked.prompt]))
    plain = [token._replace(area=None) for token in asked.tokens.tokens]
    without = dataclasses.replace(asked, tokens=dataclasses.replace(asked.tokens, tokens=plain))
    with pytest.raises(RegardError, match="whose place is known"):
        find_media_sources(without)
    with pytest.raises(RegardError, match="does not run on these inputs"):
        find_media_sources(dataclasses.replace(asked, inputs=lambda ids: {"tokens": ids}))
    with pytest.raises(RegardError, match="sought without grain and question"):
        find_media_sources(asked, SourceOptions(grain="words", question="What?"))
    asked.module.train()
    try:
        with pytest.raises(RegardError, match="training mode"):
            find_media_sources(asked)
    finally:
        asked.module.eval()


def test_a_removal_is_of_text_alone(tmp_path):
    model = regard.load(media_models.make("llava", tmp_path))
    reading = model.read("What is on the mat?", images=picture(), max_new_tokens=2)
    with pytest.raises(RegardError, match="takes tokens out of a text; `sources` hides"):
        reading.removal("mat")
