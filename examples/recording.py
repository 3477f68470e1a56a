"""When was each word of a recording spoken, and what did the model hear there? python recording.py [FILE [MODEL]]"""

import sys
import wave
from pathlib import Path

import numpy as np

import regard

RATE = 16_000
path = Path(sys.argv[1] if len(sys.argv) > 1 else "tone.wav")
if not path.exists():
    seconds = np.arange(2 * RATE) / RATE
    samples = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 0.5 < 0.3)  # four beeps
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())

model = regard.load(sys.argv[2] if len(sys.argv) > 2 else "whisper-tiny")
assert isinstance(model, regard.LanguageModel)
reading = model.read(audio=path)
for word in reading.word_times():
    print(f"{word.start:6.2f} to {word.end:6.2f} s  {word.text}")
reading.plot("speech", "recording.png")
reading.save("recording.html")  # one page that plays the sound
