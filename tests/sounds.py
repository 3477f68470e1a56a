"""Sounds made of numbers, and tiny random models that hear, as Hugging Face folders."""

import json
import math
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

RATE = 16_000
# in place of Whisper's 30 s
SECONDS = 2
WORDS = ["▁the", "▁sea", "▁shore", "ing", ".", "▁一", "▁海"]
ALIGNMENT_HEADS = [[0, 1], [1, 0]]


def tone(seconds: float, rate: int = RATE, *, hertz: float = 440.0) -> np.ndarray:
    """A sine that swells and fades four times a second."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * math.pi * hertz * time) * (0.6 + 0.4 * np.sin(8 * math.pi * time))).astype(np.float32)


def noise(seconds: float, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def whisper_tokenizer(folder: Path, *, languages: tuple[str, ...] = ("en", "zh")) -> dict[str, int]:
    """Bytes, a few words, Whisper's special tokens and its times; gives the special tokens' ids."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: index for index, letter in enumerate(bytes_)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in languages)]
    special += ["<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"]
    backend.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in special])
    backend.save(str(folder / "tokenizer.json"))
    settings = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", **settings})
    return {name: backend.token_to_id(name) for name in special}


def whisper(folder: Path, *, seconds: int = SECONDS, times: int = 0, seed: int = 0, **changes) -> Path:
    """A Whisper model of two layers on each side; `times` are tokens beside those of the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = whisper_tokenizer(folder)
    size = max(ids.values()) + 1 + times
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    tokens = {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    config = transformers.WhisperConfig(
        vocab_size=size,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=80,
        max_source_positions=50 * seconds,
        max_target_positions=40,
        **tokens,
        **changes,
    )
    model = _made(transformers.WhisperForConditionalGeneration, config, seed=seed)
    return _saved(
        folder,
        model,
        transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=seconds),
        tokens
        | {
            "alignment_heads": ALIGNMENT_HEADS,
            "suppress_tokens": [5, 6],
            "begin_suppress_tokens": [7, end],
            "lang_to_id": {name: ids[name] for name in ("<|en|>", "<|zh|>")},
            "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
            "no_timestamps_token_id": ids["<|notimestamps|>"],
            "is_multilingual": True,
        },
    )


def moonshine(folder: Path) -> Path:
    config = transformers.MoonshineConfig(
        vocab_size=_plain_tokenizer(folder),
        hidden_size=16,
        intermediate_size=32,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        max_position_embeddings=40,
        tie_word_embeddings=False,
        **ENDS,
    )
    return _saved(folder, _made(transformers.MoonshineForConditionalGeneration, config), _samples(), ENDS)


def speech_to_text(folder: Path) -> Path:
    config = transformers.Speech2TextConfig(
        vocab_size=_plain_tokenizer(folder),
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        conv_channels=16,
        input_feat_per_channel=80,
        max_source_positions=1000,
        max_target_positions=40,
        **ENDS,
    )
    extractor = transformers.Speech2TextFeatureExtractor(do_ceptral_normalize=False)
    return _saved(folder, _made(transformers.Speech2TextForConditionalGeneration, config), extractor, ENDS)


def wav2vec2(folder: Path, *, hubert: bool = False) -> Path:
    """An encoder that writes nothing; each frame of its convolutions is normalised by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = transformers.HubertConfig if hubert else transformers.Wav2Vec2Config
    config = kind(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[16] * 7,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=20,
    )
    architecture = transformers.HubertModel if hubert else transformers.Wav2Vec2Model
    return _saved(folder, _made(architecture, config), _samples(), None)


FAMILIES = {
    "whisper": whisper,
    "moonshine": moonshine,
    "speech_to_text": speech_to_text,
    "wav2vec2": wav2vec2,
    "hubert": lambda folder: wav2vec2(folder, hubert=True),
}
ENDS = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _samples() -> transformers.Wav2Vec2FeatureExtractor:
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=RATE)


def _plain_tokenizer(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS, *(f"▁w{number}" for number in range(20))]
    backend = tokenizers.Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, "<unk>"))
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(words[:4])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return len(words)


def _made(architecture, config, *, seed: int = 0):
    torch.manual_seed(seed)
    model = architecture(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # so that attention is far from even, and no token the likeliest everywhere
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


def _saved(folder: Path, model, extractor, generation: dict | None) -> Path:
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    if generation is not None:
        _write(folder / "generation_config.json", generation)
    return folder


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values))
