"""Models that write text about sounds: an encoder's frames stand in the decoder's text as tokens."""

from typing import Any

import torch
import transformers
from transformers.models.qwen2_audio.configuration_qwen2_audio import Qwen2AudioEncoderConfig

from benchmarks.zoo.architecture import SETTINGS, VOCABULARY, Architecture, Inputs, beside_text
from benchmarks.zoo.inputs import held

SOUND = VOCABULARY - 1
MELS, WINDOWS = 8, 32
TEXT: dict[str, Any] = SETTINGS | {"head_dim": 16}
WHISPER: dict[str, Any] = {
    "num_mel_bins": MELS,
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "max_source_positions": WINDOWS // 2,
}


def heard(count: int, *, mask: str | None = None) -> Inputs:
    """A sound that comes as so many tokens; `mask` names what says that none of its windows is padding."""
    text = held(count)
    text["input_features"] = torch.randn(2, MELS, WINDOWS, generator=torch.Generator().manual_seed(5))
    return text if mask is None else text | {mask: torch.ones(2, WINDOWS, dtype=torch.long)}


SOUNDS: dict[str, Architecture] = {
    # frames are averaged two by two
    "qwen2_audio": beside_text(
        "Qwen2AudioForConditionalGeneration",
        lambda: heard(8, mask="feature_attention_mask"),
        "encoder",
        text_config=transformers.Qwen2Config(**TEXT),
        audio_config=Qwen2AudioEncoderConfig(**WHISPER),
        audio_token_index=SOUND,
    ),
    # four frames are a token
    "voxtral": beside_text(
        "VoxtralForConditionalGeneration",
        lambda: heard(4),
        "encoder",
        text_config=transformers.LlamaConfig(**TEXT),
        audio_config={
            **SETTINGS,
            "num_mel_bins": MELS,
            "max_source_positions": WINDOWS // 2,
            "intermediate_size": 256,
        },
        audio_token_id=SOUND,
    ),
    "glmasr": beside_text(
        "GlmAsrForConditionalGeneration",
        lambda: heard(4, mask="input_features_mask"),
        "encoder",
        text_config=transformers.LlamaConfig(**TEXT),
        audio_config={**SETTINGS, "num_mel_bins": MELS, "num_key_value_heads": 4, "intermediate_size": 256},
        audio_token_id=SOUND,
    ),
}
