"""Which seconds of a sound each frame of an audio encoder stands for: from its windows and its convolutions.

A frame hears `reach` samples around its centre, which neighbours hear too; it stands for the `stride` samples around
its centre, so that frames lie side by side. Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional
neural networks": centre, stride and reach of a stack of convolutions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from regard.reading.media import SoundSpan

# what a frame that lies beyond the sound's end is: the model was given silence there
PADDING = "audio padding"
FRAME = "audio frame"


@dataclass(frozen=True)
class Frames:
    """Frames of a sound of `rate` samples a second: frame i is centred at sample `first + i · stride`."""

    rate: int
    first: float = 0.5
    stride: int = 1
    reach: int = 1

    def convolved(self, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> "Frames":
        """The frames that a convolution, or a pooling, makes of these."""
        width = (kernel - 1) * dilation
        first = self.first + (width / 2 - padding) * self.stride
        return Frames(self.rate, first, self.stride * stride, self.reach + width * self.stride)

    def centre(self, index: int) -> float:
        """In seconds."""
        return (self.first + index * self.stride) / self.rate

    def span(self, index: int, sound: int, seconds: float) -> SoundSpan | None:
        """What a frame stands for of a sound that lasts so many seconds; None for one that begins after its end."""
        half = self.stride / 2 / self.rate
        start = max(0.0, self.centre(index) - half)
        end = min(seconds, self.centre(index) + half)
        return SoundSpan(sound, round(start, 6), round(end, 6)) if start < end else None


class Ear(NamedTuple):
    """How an encoder hears: the frames that its feature extractor gives it, and the convolutions that it begins with.

    A module of the model is that encoder where it has the `part`.
    """

    begin: Callable[[Any], Frames]
    part: str
    convolutions: Callable[[Any], Iterable[Any]]


def _samples(extractor: Any) -> Frames:
    return Frames(extractor.sampling_rate)


def _centred_windows(extractor: Any) -> Frames:
    """Of a short-time Fourier transform whose first window is centred at the sound's beginning."""
    return Frames(extractor.sampling_rate, 0.0, extractor.hop_length, extractor.n_fft)


def _windows(extractor: Any) -> Frames:
    """Windows of 25 ms, 10 ms apart, the first of which begins with the sound, as Kaldi has them."""
    rate = extractor.sampling_rate
    return Frames(rate, rate / 80, rate // 100, rate // 40)


_WHISPER = Ear(_centred_windows, "conv2", lambda encoder: (encoder.conv1, encoder.conv2))
_WAV2VEC = Ear(_samples, "feature_extractor", lambda model: (each.conv for each in model.feature_extractor.conv_layers))
# by the model_type of the encoder's configuration
EARS: dict[str, Ear] = {
    "whisper": _WHISPER,
    "qwen2_audio_encoder": _WHISPER,
    "voxtral_encoder": _WHISPER,
    "moonshine": Ear(_samples, "conv3", lambda encoder: (encoder.conv1, encoder.conv2, encoder.conv3)),
    "speech_to_text": Ear(_windows, "conv", lambda encoder: encoder.conv.conv_layers),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio"), _WAV2VEC),
}


def frames_of(module: Any, extractor: Any) -> Frames | None:
    """The frames that the encoder within a model attends over; None for one that is not known."""
    for part in module.modules():
        ear = EARS.get(str(getattr(getattr(part, "config", None), "model_type", None)))
        if ear is None or not hasattr(part, ear.part):
            continue
        frames = ear.begin(extractor)
        for each in ear.convolutions(part):
            sizes = (each.kernel_size, each.stride, each.padding, each.dilation)
            frames = frames.convolved(*(size[0] for size in sizes))
        return frames
    return None


def merged(frames: Frames, config: Any) -> Frames | None:
    """The frames that stand in a language model's text, several of the encoder's each; None where that is not known."""
    audio = getattr(config, "audio_config", None)
    match getattr(config, "model_type", None):
        case "qwen2_audio":
            # its encoder ends in a mean of two
            return frames.convolved(2, 2)
        case "voxtral":
            size = getattr(audio, "intermediate_size", 0) // getattr(audio, "hidden_size", 1)
            return frames.convolved(size, size)
    return None
