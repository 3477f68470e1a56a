"""A model that hears is read with the seconds of its frames: those that a change of the sound changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.sounds import ALIGNMENT_HEADS, FAMILIES, RATE, moonshine, noise, tone, wav2vec2, whisper

import regard
from regard.data.sound import open_sound
from regard.errors import RegardError
from regard.reading.media import Sound, SoundSpan
from regard.reading.sound_frames import PADDING, frames_of

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hearing")
    return {name: regard.load(make(folder / name)) for name, make in FAMILIES.items()}


def begun(model, samples):
    """What the encoder's convolutions make of samples, before frames see each other: [frame, channel]."""
    seen = []
    parts = dict(model.module.named_modules())
    last = {"moonshine": "conv3", "speech_to_text": "conv.conv_layers.1", "whisper": "conv2"}
    own = last.get(model.module.config.model_type, "feature_extractor.conv_layers.6")
    name = next(name for name in parts if name == own or name.endswith(f"encoder.{own}"))
    hook = parts[name].register_forward_hook(lambda module, given, out: seen.append(out))
    # it makes of all frames one mean, and so a part of each is heard everywhere
    norm = next((each for each in parts.values() if isinstance(each, torch.nn.GroupNorm)), None)
    other = None if norm is None else norm.register_forward_hook(lambda module, given, out: given[0])
    sound = open_sound((samples, RATE), rate=RATE)
    try:
        with torch.no_grad():
            encoder = model.module.get_encoder() if hasattr(model.module, "get_encoder") else model.module
            (encoder if model.module.config.is_encoder_decoder else model.module)(**model.listening.features([sound]))
    finally:
        for each in (hook, other):
            if each is not None:
                each.remove()
    return seen[0][0].T.numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stretch", [(0.5, 0.56), (0.83, 1.1)])
def test_the_frames_that_a_change_of_the_sound_changes_are_those_of_its_seconds(models, family, stretch):
    model = models[family]
    samples = noise(1.3)
    # the loudest moment, by which Whisper's features are scaled, stays
    samples[1000:1010] = 0.9
    start, end = (round(each * RATE) for each in stretch)
    changed = samples.copy()
    changed[start:end] = noise(stretch[1] - stretch[0] + 0.01, seed=1)[: end - start]
    difference = np.abs(begun(model, samples) - begun(model, changed)).max(axis=1)
    frames = frames_of(model.module, model.listening.extractor)
    spans = [frames.span(place, 0, 1.3) for place in range(len(difference))]
    # what stands for a part of the stretch changes, and what changes hears a part of it
    own = [place for place, span in enumerate(spans) if span and span.start >= stretch[0] and span.end <= stretch[1]]
    assert len(own) >= 1
    assert set(own) <= set(np.flatnonzero(difference > 1e-6))
    near = frames.reach / 2 / RATE + 1e-9
    for place in np.flatnonzero(difference > 1e-6):
        centre = frames.centre(int(place))
        assert stretch[0] - near <= centre <= stretch[1] + near
    # the strongest change is that of a frame in the stretch, or beside its border
    step = frames.stride / RATE
    assert stretch[0] - step <= frames.centre(int(difference.argmax())) <= stretch[1] + step


@pytest.mark.parametrize("family", FAMILIES)
def test_spans_lie_side_by_side_to_the_sounds_end(models, family):
    model = models[family]
    reading = model.read(audio=(tone(1.3), RATE), rows=[0])
    kind = "cross" if "cross" in reading.kinds else "encoder"
    keys = reading.keys(kind)
    spans = [key.area for key in keys if key.area is not None]
    assert all(isinstance(span, SoundSpan) and span.sound == 0 for span in spans)
    for one, other in pairwise(spans):
        assert one.end == pytest.approx(other.start, abs=2e-6)
    frames = frames_of(model.module, model.listening.extractor)
    # a window that the sound's end would cut is not taken, unless silence follows
    assert 1.3 - (frames.reach + frames.stride) / RATE <= spans[-1].end <= 1.3
    sorts = [key.sort for key in keys]
    assert sorts == ["audio frame"] * len(spans) + [PADDING] * (len(keys) - len(spans))
    assert (len(keys) > len(spans)) == (family == "whisper")
    [sound] = reading.media
    assert isinstance(sound, Sound)
    assert (sound.media_type, sound.seconds) == ("audio/wav", 1.3)


def test_whispers_frames_are_fifty_a_second_and_wav2vecs_too(models):
    """Radford et al. 2022, section 2.2; Baevski et al. 2020, section 4.2: a stride of 20 ms and a reach of 25 ms."""
    whisper_frames = frames_of(models["whisper"].module, models["whisper"].listening.extractor)
    assert (whisper_frames.stride, whisper_frames.centre(100)) == (RATE // 50, 2.0)
    found = frames_of(models["wav2vec2"].module, models["wav2vec2"].listening.extractor)
    assert (found.stride, found.reach, found.centre(0)) == (RATE // 50, RATE // 40, 0.0125)
    assert frames_of(models["moonshine"].module, models["moonshine"].listening.extractor).stride == 384


def test_weights_are_those_of_eager_attention(tmp_path):
    model = regard.load(whisper(tmp_path / "w"), dtype="float64")
    reading = model.read(audio=(tone(1.3), RATE), language="en", max_new_tokens=6)
    assert reading.sequences["target"].tokens[0].text == "<|startoftranscript|>"
    ids = [token.id for token in reading.sequences["target"].tokens]
    assert reading.settings["prompt_tokens"] == 4
    assert reading.settings["alignment_heads"] == ALIGNMENT_HEADS
    assert reading.rows("cross") == list(range(3, 9))
    assert reading.rows("encoder") == []
    module = model.module
    module.set_attn_implementation("eager")
    features = model.listening.features([open_sound((tone(1.3), RATE), rate=RATE)])
    with torch.no_grad():
        out = module(**features, decoder_input_ids=torch.tensor([ids[:-1]]), output_attentions=True)
    for layer in range(2):
        for kind, found in (("cross", out.cross_attentions), ("decoder", out.decoder_attentions)):
            np.testing.assert_allclose(reading.weights(kind, layer), found[layer][0, :, 3:].numpy(), atol=3e-8)


@pytest.mark.parametrize("family", ["whisper", "moonshine", "speech_to_text"])
def test_a_transcript_is_the_one_that_transformers_generates(models, family):
    model = models[family]
    sound = open_sound((noise(1.5), RATE), rate=RATE)
    found = model.transcribe(sound, max_new_tokens=12, language="en" if family == "whisper" else None)
    features = model.listening.features([sound])
    told = {"language": "en", "task": "transcribe"} if family == "whisper" else {}
    with torch.no_grad():
        [wanted] = model.module.generate(**features, max_new_tokens=12, do_sample=False, num_beams=1, **told).tolist()
    assert found.tokens == wanted[-len(found.tokens) :]
    assert len(set(found.tokens)) > 1


def test_the_language_is_the_one_that_the_model_hears(models):
    model = models["whisper"]
    sound = open_sound((noise(1.5), RATE), rate=RATE)
    features = model.listening.features([sound])
    with torch.no_grad():
        wanted = model.module.detect_language(**features, generation_config=model.module.generation_config)
    reading = model.read(audio=sound, max_new_tokens=3)
    assert reading.sequences["target"].tokens[1].id == int(wanted[0])
    other = model.read(audio=sound, language="zh", task="translate", max_new_tokens=3)
    names = [token.text for token in other.sequences["target"].tokens[:4]]
    assert names == ["<|startoftranscript|>", "<|zh|>", "<|translate|>", "<|notimestamps|>"]


def test_an_encoder_is_read_alone(tmp_path):
    reading = regard.load(wav2vec2(tmp_path / "w")).read(audio=(tone(0.5), RATE))
    assert reading.kinds == ["encoder"]
    assert reading.weights("encoder", 1).shape == (2, 24, 24)
    assert [token.text for token in reading.keys()[:2]] == ["0.01 s", "0.03 s"]


def test_a_reading_of_a_sound_comes_back_from_a_file(models, tmp_path):
    reading = models["whisper"].read(audio=(tone(1.0), RATE), max_new_tokens=5)
    reading.save(tmp_path / "it.safetensors")
    found = regard.Reading.load(tmp_path / "it.safetensors")
    assert found.media == reading.media
    assert found.sequences == reading.sequences
    assert found.word_times() == reading.word_times()


@pytest.mark.parametrize(
    ("family", "given", "says"),
    [
        ("whisper", {}, r"w hears: give it audio \(--audio FILE\)"),
        ("whisper", {"prompt": "x"}, r"w hears: give it audio \(--audio FILE\), not a prompt"),
        ("whisper", {"audio": (tone(2.5), RATE)}, "it lasts 2.5 s, and at most 2 s are heard at once; cut it"),
        ("whisper", {"audio": (tone(0.01), RATE)}, "too short: a frame takes 0.025 s"),
        ("whisper", {"audio": [(tone(1), RATE)] * 2}, "hears one sound at a time, not 2"),
        ("whisper", {"audio": []}, "audio is empty"),
        ("whisper", {"audio": (tone(1), RATE), "language": "fr"}, "knows no language 'fr'; choose from en, zh"),
        ("whisper", {"audio": (tone(1), RATE), "task": "sing"}, "knows no task 'sing'"),
        ("whisper", {"audio": (tone(1), RATE), "max_new_tokens": 99}, "writes 1 to 3. of a sound"),
        ("moonshine", {"audio": (tone(1), RATE), "language": "en"}, "knows one language; leave out language"),
        ("wav2vec2", {"audio": (tone(1), RATE), "task": "transcribe"}, "writes nothing; leave out language and task"),
    ],
)
def test_what_a_model_cannot_hear_is_told(models, family, given, says):
    model = models[family]
    model.name = "w"
    with pytest.raises(RegardError, match=says):
        model.read(**given)


def test_what_does_not_hear_is_told(models, tiny_smollm2):
    other = regard.load(tiny_smollm2 / "models" / "smollm2")
    with pytest.raises(RegardError, match="takes no audio; give it a text"):
        other.read(audio=(tone(1), RATE))
    with pytest.raises(RegardError, match="language and task go with audio"):
        other.read("One.", language="en")
    with pytest.raises(RegardError, match="which writes nothing; `read` reads how its frames"):
        models["hubert"].transcribe((tone(1), RATE))
    with pytest.raises(RegardError, match="transcribe writes what it hears"):
        models["whisper"].generate("One.")


def test_a_folder_without_a_feature_extractor_is_told(tmp_path):
    folder = moonshine(tmp_path / "m")
    (folder / "preprocessor_config.json").write_text('{"auto_map": {"x": "y"}}')
    with pytest.raises(RegardError, match="auto_map asks to run code"):
        regard.load(folder).read(audio=(tone(1), RATE))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(RegardError, match=r"it has no preprocessor_config.json, which says how sounds are prepared"):
        regard.load(folder).read(audio=(tone(1), RATE))
