"""docs/speech.md does what it says: its commands and Python are run as written, on a tiny model named whisper-tiny."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sounds import RATE, noise, whisper

from regard.data.resampling import ZEROS
from regard.data.sound import LARGEST, MOST_SECONDS
from regard.data.wav import wav_bytes
from regard.reading.sound_frames import EARS
from regard.reading.word_times import MEDIAN_WIDTH

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "speech.md").read_text(encoding="utf-8")


def test_the_guide_runs_as_written(tmp_path):
    pytest.importorskip("matplotlib")
    folder = whisper(tmp_path / "cache" / "models" / "whisper-tiny")
    (folder / "regard.json").write_text('{"version": 1}')
    work = tmp_path / "work"
    work.mkdir()
    (work / "speech.wav").write_bytes(wav_bytes(noise(1.5), RATE))
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "REGARD_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    commands = "".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL))
    commands = commands.replace("regard ", f"{sys.executable} -m regard ")
    (session,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    for command in (["bash", "-eu", "-c", commands], [sys.executable, "-c", session]):
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in work.iterdir()} == {"speech.wav", "speech.png", "speech.html"}
    assert ".medium.0" in (work / "speech.html").read_text(encoding="utf-8")


def test_the_guide_names_the_limits_and_families_that_there_are():
    assert (MOST_SECONDS, LARGEST, MEDIAN_WIDTH) == (600, 2, 7)
    told = " ".join(GUIDE.split())
    for limit in ("more than 10 minutes", "beyond ±2", "over seven frames", f"over {ZEROS} zero crossings"):
        assert limit in told
    named = re.sub(r"[ .-]", "", GUIDE.lower())
    for family in ("whisper", "moonshine", "speech2text", "wav2vec2", "hubert", "wavlm", "unispeech", "data2vecaudio"):
        assert family in named
        assert any(re.sub(r"[_-]", "", name).replace("totext", "2text") == family for name in EARS)
