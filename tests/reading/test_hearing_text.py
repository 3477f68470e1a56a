"""A language model that hears beside a text is read over both, and each of its frames knows its seconds."""

import io
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.sounds import RATE, noise, qwen2_audio, tone

import regard
from regard.errors import RegardError
from regard.view.speech import heard
from regard.view.speech_terminal import speech_view

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return regard.load(qwen2_audio(tmp_path_factory.mktemp("qwen") / "q"))


def test_a_prompt_with_a_sound_is_answered_and_read(model):
    reading = model.read("What is it?", audio=(noise(1.3), RATE), max_new_tokens=4)
    tokens = reading.sequences["text"].tokens
    frames = [token for token in tokens if token.sort == "audio frame"]
    # 130 windows, of which every second is a frame, and every second of these stands in the text
    assert len(frames) == 32
    # a frame of the text is the mean of two of the encoder's: 40 ms, around the middle between them
    assert frames[10].area.start == pytest.approx(0.39)
    assert frames[10].area.end == pytest.approx(0.43)
    assert reading.settings["prompt_tokens"] == len(tokens) - len(reading.rows("decoder"))
    assert "What is it?" in reading.sequences["text"].text
    assert reading.sequences["audio"].tokens[10].area.start == pytest.approx(0.19)
    assert heard(reading).kind == "decoder"
    # the weights are those of the model in eager attention, on the same arguments
    module = model.module
    inputs = _inputs(model, "What is it?", [noise(1.3)])
    ids = torch.tensor([_ids(model, reading)[:-1]])
    module.set_attn_implementation("eager")
    with torch.no_grad():
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        out = module(**inputs, output_attentions=True, use_cache=False)
    module.set_attn_implementation("sdpa")
    for layer in range(2):
        found = reading.weights("decoder", layer)
        np.testing.assert_allclose(found, out.attentions[layer][0, :, reading.rows("decoder")].numpy(), atol=1e-5)


def _inputs(model, prompt, sounds):
    processor = model.processor.backend
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>\n" * len(sounds) + prompt + "\n"
    return dict(processor(text=[text], audio=sounds, sampling_rate=RATE, return_tensors="pt"))


def _ids(model, reading):
    audio = model.module.config.audio_token_id
    return [audio if token.sort == "audio frame" else token.id for token in reading.sequences["text"].tokens]


def test_the_frames_of_the_text_that_a_change_of_the_sound_changes_are_those_of_its_seconds(model):
    """Without self-attention in the encoder, whose layers add nothing here."""
    encoder = model.module.get_submodule("model.audio_tower" if hasattr(model.module, "model") else "audio_tower")
    seen = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, given, out: (given[0], *out[1:]) if isinstance(out, tuple) else given[0]
        )
        for layer in encoder.layers
    ]
    hooks.append(encoder.avg_pooler.register_forward_hook(lambda pool, given, out: seen.append(out[0].T.numpy())))
    samples = noise(1.3)
    samples[1000:1010] = 0.9
    changed = samples.copy()
    changed[8_000:9_600] = noise(0.1, seed=1)
    try:
        with torch.no_grad():
            for each in (samples, changed):
                model.module(**_inputs(model, "x", [each]))
    finally:
        for hook in hooks:
            hook.remove()
    difference = np.abs(seen[0] - seen[1]).max(axis=1)
    reading = model.read("x", audio=(samples, RATE), max_new_tokens=1)
    spans = [token.area for token in reading.sequences["text"].tokens if token.area is not None]
    own = [place for place, span in enumerate(spans) if span.start >= 0.5 and span.end <= 0.6]
    assert own
    assert set(own) <= set(np.flatnonzero(difference > 1e-6))
    strongest = spans[int(difference.argmax())]
    assert 0.46 <= strongest.start <= strongest.end <= 0.64


def test_two_sounds_are_told_apart(model):
    reading = model.read("Same?", audio=[(tone(0.5), RATE), (noise(1.0), RATE)], max_new_tokens=2)
    areas = [token.area for token in reading.sequences["text"].tokens if token.area is not None]
    assert [sum(area.sound == number for area in areas) for number in (0, 1)] == [12, 25]
    assert [sound.seconds for sound in reading.media] == [0.5, 1.0]
    assert heard(reading, number=1).sound.name == "sound 2"


@pytest.mark.parametrize(
    ("prompt", "settings", "says"),
    [
        (None, {}, "hears beside a text: give it a prompt with its audio"),
        ("x <|AUDIO|>", {}, r"spells '<\|AUDIO\|>', a special token"),
        ("x", {"language": "en"}, "leave out language and task"),
        ("x", {"audio": (tone(3), RATE)}, "at most 2 s are heard at once"),
    ],
)
def test_what_cannot_be_heard_beside_a_text_is_told(model, prompt, settings, says):
    with pytest.raises(RegardError, match=says):
        model.read(prompt, **{"audio": (tone(0.5), RATE), **settings})


def test_the_terminal_shows_the_answer_the_sounds_and_the_text(model):
    reading = model.read("Same?", audio=[(tone(0.5), RATE), (noise(1.0), RATE)], max_new_tokens=2)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(*speech_view(reading), sep="\n")
    told = console.export_text()
    assert "sound 1 · 0.50 s" in told
    assert "sound 2 · 1.00 s" in told
    assert "[sound 1 · 12 frames]" in told
    assert re.search(r"\n sounds +\d", told)
