"""`regard sources --audio` of tiny random models that hear, without a network."""

import json
from itertools import pairwise

import pytest

pytest.importorskip("transformers")

from tests.sounds import RATE, noise, qwen2_audio, wav2vec2, whisper

from regard.data.wav import wav_bytes


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hearing")
    whisper(folder / "whisper")
    qwen2_audio(folder / "qwen")
    wav2vec2(folder / "wav2vec2")
    (folder / "f.wav").write_bytes(wav_bytes(noise(1.9), RATE))
    return folder


def test_sources_are_spans_of_the_sound(cli, folders):
    transcript = "sources", folders / "whisper", "--audio", folders / "f.wav", "--language", "en"
    beside = "sources", folders / "qwen", "--audio", folders / "f.wav", "--prompt", "What?", "--max-new-tokens", 4
    for asked in (transcript, beside):
        done = cli(*asked, "--json", "--confirm", 1)
        assert (done.code, done.err) == (0, "")
        document = json.loads(done.out)
        spans = sorted((each["sound"], each["start"], each["end"]) for each in document["sources"])
        assert len(spans) == 4
        assert spans[0][:2] == (0, 0)
        assert all(end == pytest.approx(start, abs=0.021) for (*_, end), (_, start, _) in pairwise(spans))
        assert document["sources"][0]["effect"] is not None
    shown = cli(*beside)
    assert shown.code == 0
    assert "sound 1, 0.00–0." in shown.out
    given = cli(*transcript, "--answer", "the sea shore", "--of", "sea", "--json")
    assert json.loads(given.out)["answer"] == "the sea shore"


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("whisper", ("--grain", "words"), "sought without grain; leave that out"),
        ("whisper", ("--contrast", "no"), "sought without contrast; leave that out"),
        ("whisper", ("--curves", "x.png"), "--curves are of passages of a text, not of an image or a sound"),
        ("whisper", ("--prompt", "What?"), "give it audio (--audio FILE), not a prompt"),
        ("whisper", ("--language", "xx"), "knows no language 'xx'"),
        ("whisper", ("--answer", " "), "the answer is empty"),
        ("qwen", ("--prompt", "What?", "--answer", ""), "the answer is empty"),
        ("qwen", (), "hears beside a text: give it a prompt with its audio"),
        ("qwen", ("--prompt", "What?", "--task", "translate"), "told in its prompt what to do"),
        ("wav2vec2", (), "writes nothing"),
    ],
)
def test_what_cannot_be_sought_in_a_sound_is_told(cli, folders, name, given, says):
    done = cli("sources", folders / name, "--audio", folders / "f.wav", *given)
    assert done.code == 1
    assert says in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_language_goes_with_a_sound(cli, folders):
    done = cli("sources", folders / "qwen", "--prompt", "What?", "--language", "en")
    assert (done.code, "language goes with audio; leave it out" in done.err) == (1, True)
