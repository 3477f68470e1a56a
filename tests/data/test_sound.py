"""A sound comes as a file or as numbers, at any rate, in any number of channels; what is no sound is told as such."""

import io
import logging
import os
import struct
import wave

import numpy as np
import pytest
import torch
from tests.sounds import RATE, tone

from regard.data import sound as sound_module
from regard.data.resampling import resample
from regard.data.sound import Waveform, open_sound
from regard.data.wav import read_head, read_samples, wav_bytes
from regard.errors import RegardError


def wav(path, samples, *, rate=RATE, width=2):
    """A WAV file by Python's own library; samples are [frame] or [frame, channel]."""
    samples = np.atleast_2d(samples.T).T
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            data = (whole + 128).astype(np.uint8).tobytes()
        else:
            data = b"".join(int(value).to_bytes(width, "little", signed=True) for value in whole.ravel())
        file.writeframes(data)
    return path


@pytest.mark.parametrize(("width", "error"), [(1, 2**-6), (2, 2**-14), (3, 2**-22), (4, 2**-23)])
def test_a_wav_file_of_any_width_has_its_samples(tmp_path, width, error):
    samples = tone(0.1)
    found = open_sound(wav(tmp_path / "a.wav", samples, width=width), rate=RATE)
    assert (found.name, found.rate, found.seconds) == ("a.wav", RATE, 0.1)
    np.testing.assert_allclose(found.samples, samples, atol=error)


@pytest.mark.parametrize("extensible", [False, True])
def test_a_wav_file_of_floats_has_its_samples(tmp_path, extensible):
    samples = tone(0.1).astype("<f4")
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else 3, 1, RATE, RATE * 4, 4, 32)
    if extensible:
        form += struct.pack("<HHIH", 22, 32, 0, 3) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    np.testing.assert_array_equal(open_sound(tmp_path / "a.wav", rate=RATE).samples, samples)


def test_what_is_written_as_wav_python_reads_back():
    samples = tone(0.1)
    with wave.open(io.BytesIO(wav_bytes(samples, RATE))) as file:
        assert file.getparams()[:4] == (1, 2, RATE, len(samples))
        found = np.frombuffer(file.readframes(len(samples)), "<i2") / 2**15
    np.testing.assert_allclose(found, samples, atol=2**-15)
    own = io.BytesIO(wav_bytes(samples, RATE))
    np.testing.assert_array_equal(read_samples(own, read_head(own, "it"))[:, 0], found.astype(np.float32))


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 44_099])
def test_a_sine_at_another_rate_is_the_same_sine(rate):
    hertz = 0.4 * min(rate, RATE)
    found = resample(tone(1, rate, hertz=hertz) * 0 + np.sin(2 * np.pi * hertz * np.arange(rate) / rate), rate, RATE)
    wanted = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)
    inside = slice(RATE // 10, -RATE // 10)
    assert len(found) == RATE
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-5)


def test_what_the_lower_rate_cannot_hold_is_gone():
    high = np.sin(2 * np.pi * 9_000 * np.arange(44_100) / 44_100)
    assert np.abs(resample(high, 44_100, RATE)[1600:-1600]).max() < 1e-4


def test_the_mean_of_channels_is_heard_and_told(tmp_path, caplog):
    left, right = tone(0.2), tone(0.2, hertz=300)
    stereo = np.stack([left, right], axis=1)
    with caplog.at_level(logging.INFO, "regard"):
        found = open_sound(wav(tmp_path / "a.wav", stereo, rate=RATE), rate=RATE)
    np.testing.assert_allclose(found.samples, (left + right) / 2, atol=1e-4)
    assert "the mean of its 2 channels is heard" in caplog.text
    for array in (stereo, stereo.T, torch.tensor(stereo)):
        np.testing.assert_allclose(open_sound((array, RATE), rate=RATE).samples, (left + right) / 2, atol=1e-6)


def test_numbers_come_with_their_rate_as_a_pair_or_as_a_data_set_has_them():
    samples = tone(0.5, 8_000)
    found = open_sound((samples, 8_000), rate=RATE)
    assert (found.seconds, found.rate) == (0.5, RATE)
    for other in (
        {"array": samples, "sampling_rate": 8_000, "path": "x"},
        ((samples * 2**15).round().astype(np.int16), 8_000),
        Waveform("it", samples, 8_000),
    ):
        np.testing.assert_allclose(open_sound(other, rate=RATE).samples, found.samples, atol=1e-4)
    assert open_sound((samples, 8_000), rate=RATE, number=2).name == "sound 3"


def test_a_silent_sound_is_heard_with_a_warning(caplog):
    assert open_sound((np.zeros(RATE), RATE), rate=RATE).seconds == 1
    assert "it is silent; what a model writes of it is made up" in caplog.text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("https://example.org/a.wav", "a URL, and nothing is fetched"),
        ("data:audio/wav;base64,AAAA", "a URL, and nothing is fetched"),
        ("no/such.wav", "there is no such file"),
        ((np.zeros(0), RATE), "it is empty, 0 seconds of sound"),
        ((np.zeros((0, 2)), RATE), "it is empty"),
        ((np.full(RATE, np.nan), RATE), "not all numbers"),
        ((np.full(RATE, 30_000.0), RATE), "samples reach 3e"),
        ((np.zeros(700 * 8_000), 8_000), r"it lasts 700.0 s, and at most 600 s are heard at once; cut it"),
        ((np.zeros(10), 10), "its rate is 10 Hz; rates from"),
        ((np.zeros(10), 16_000.5), "must be a whole number of samples a second"),
        ((np.zeros(10), "16000"), "must be a whole number of samples a second"),
        ((np.zeros((2, 2, 2)), RATE), "3 axes is no sound"),
        ((np.zeros(10, complex), RATE), "complex128 .* is no sound"),
        ((["a", "b"], RATE), "is no sound"),
        (np.zeros(10), "sound 1 is samples without their rate; give a path"),
        (5, "sound 1 is int; give a path"),
        (b"RIFF", "sound 1 is bytes; give a path"),
    ],
)
def test_what_is_no_sound_is_told(source, says):
    with pytest.raises(RegardError, match=says):
        open_sound(source, rate=RATE)


def _changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:1000], r"should hold 3,200 bytes of samples and ends after 956"),
        (lambda data: data[:30], "not a WAV file that can be read"),
        (lambda data: data[:12], "it holds no samples"),
        (lambda data: _changed(data, 20, b"\x06"), "its samples are of format 6 in 16 bits"),
        (lambda data: _changed(data, 22, b"\0"), "0 channels"),
        (lambda data: _changed(data, 24, b"\0\0\0\0"), "at 0 Hz"),
        (lambda data: _changed(data, 34, b"\x0c"), "in 12 bits"),
        (lambda data: b"RF64" + data[4:], "RF64"),
        (lambda data: data[:12] + data[36:], "its samples come before"),
        (lambda data: data[:40] + struct.pack("<I", 0) + data[44:], "it is empty"),
    ],
)
def test_a_damaged_wav_file_is_told(tmp_path, damage, says):
    path = wav(tmp_path / "a.wav", tone(0.1))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RegardError, match=says):
        open_sound(path, rate=RATE)


def test_an_hour_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "hour.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(1_000)
        file.writeframes(bytes(3_600_000))
    monkeypatch.setattr(sound_module, "read_samples", None)
    with pytest.raises(RegardError, match=r"hour.wav: it lasts 3,600.0 s, and at most 600 s are heard"):
        open_sound(path, rate=RATE)


def test_other_files_are_opened_by_soundfile_or_told(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    samples = tone(0.5, 8_000)
    soundfile.write(tmp_path / "a.flac", np.stack([samples, samples], axis=1), 8_000)
    found = open_sound(tmp_path / "a.flac", rate=8_000)
    np.testing.assert_allclose(found.samples, samples, atol=1e-4)
    with pytest.raises(RegardError, match=r"it lasts 0.5 s, and at most 0.25 s"):
        open_sound(tmp_path / "a.flac", rate=8_000, most_seconds=0.25)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:20])
    (tmp_path / "a.txt").write_text("no sound at all")
    for name in ("cut.flac", "a.txt"):
        with pytest.raises(RegardError, match=f"{name}: no sound file that can be read .*; convert it to WAV"):
            open_sound(tmp_path / name, rate=RATE)
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(RegardError, match=r"others need soundfile: pip install 'regard\[media\]'"):
        open_sound(tmp_path / "a.flac", rate=RATE)


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="devices have names on Unix alone")
def test_what_is_no_sound_file_is_called_what_it_is(tmp_path):
    (tmp_path / "empty.wav").touch()
    for path, what in (
        (tmp_path / "empty.wav", "the file is empty"),
        ("/dev/null", "a device"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(RegardError, match=what):
            open_sound(path, rate=RATE)
