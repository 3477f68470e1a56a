"""Whisper as CTranslate2 keeps it becomes a Hugging Face folder, in the numbers that the file has.

Radford et al. 2022, "Robust speech recognition via large-scale weak supervision". Names of tensors are those of
CTranslate2's WhisperSpec and of transformers' WhisperForConditionalGeneration.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import RegardError
from regard.files import new_file
from regard.models.pretrained.ctranslate2_file import CTranslate2File, read_ctranslate2
from regard.models.pretrained.folder import CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG, WEIGHTS, read_json
from regard.models.pretrained.gguf_convert import mark_converted

TOKENIZER, PREPROCESSOR = "tokenizer.json", "preprocessor_config.json"
GELU = 3
SECONDS, SAMPLING_RATE, HOP, WINDOW = 30, 16_000, 160, 400
# <|0.00|> to <|30.00|>, a step of 0.02 s apart
TIMES = [f"<|{step / 50:.2f}|>" for step in range(SECONDS * 50 + 1)]
END, START, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
TASKS = ("transcribe", "translate")
# no transcript begins later than 1 s into a window: Radford et al. 2022, section 4.5
MAX_INITIAL_TIMESTAMP_INDEX = 50


def convert_whisper(folder: Path, path: Path) -> None:
    """Write what CTranslate2's file becomes into a folder that has its tokenizer.json and config.json already.

    Raises RegardError where the file is no Whisper model, or the settings are not of its sizes.
    """
    from safetensors.numpy import save_file

    file = read_ctranslate2(path)
    if (file.name, file.revision) != ("WhisperSpec", 3):
        raise RegardError(f"{path}: a {file.name}, revision {file.revision}, not a WhisperSpec of revision 3")
    try:
        config = _config(file)
        weights = dict(_weights(file, config))
    except KeyError as error:
        raise RegardError(f"{path}: it has no tensor {error}; fetch it again") from None
    tokens = _extend_tokenizer(folder, config["vocab_size"])
    ids = {"bos_token_id": tokens[END], "eos_token_id": tokens[END], "pad_token_id": tokens[END]}
    ids["decoder_start_token_id"] = tokens[START]
    written = {
        CONFIG: config | ids,
        GENERATION_CONFIG: ids | _generation(read_json(folder / CONFIG), config, tokens),
        PREPROCESSOR: {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": config["num_mel_bins"],
            "sampling_rate": SAMPLING_RATE,
            "hop_length": HOP,
            "n_fft": WINDOW,
            "chunk_length": SECONDS,
        },
        "processor_config.json": {"processor_class": "WhisperProcessor"},
        TOKENIZER_CONFIG: {
            "tokenizer_class": "WhisperTokenizer",
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END),
            "model_max_length": config["max_target_positions"],
        },
    }
    for name, values in written.items():
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with new_file(folder / WEIGHTS) as partial:
        save_file(weights, partial, metadata={"format": "pt"})
    mark_converted(folder, path)


def _config(file: CTranslate2File) -> dict[str, Any]:
    tensors = file.tensors
    layers = {
        side: len({found[1] for name in tensors if (found := re.match(rf"{side}/layer_(\d+)/", name))})
        for side in ("encoder", "decoder")
    }
    if int(tensors["decoder/activation"]) != GELU or not int(tensors["decoder/pre_norm"]):
        raise RegardError("a Whisper model with another activation than GELU, or norms after its layers, is not known")
    vocab_size, model_dim = tensors["decoder/embeddings/weight"].shape
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": model_dim,
        "vocab_size": vocab_size,
        "num_mel_bins": tensors["encoder/conv1/weight"].shape[1],
        "encoder_layers": layers["encoder"],
        "decoder_layers": layers["decoder"],
        "encoder_attention_heads": int(tensors["encoder/num_heads"]),
        "decoder_attention_heads": int(tensors["decoder/num_heads"]),
        "encoder_ffn_dim": tensors["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        "decoder_ffn_dim": tensors["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        "max_source_positions": tensors["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": tensors["decoder/position_encodings/encodings"].shape[0],
        "scale_embedding": bool(int(tensors["decoder/scale_embeddings"])),
        "dtype": "float16",
    }


def _weights(file: CTranslate2File, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of transformers' model, but the output layer, which is the embedding."""
    tensors = file.tensors
    if tensors["decoder/projection/weight"] is not tensors["decoder/embeddings/weight"]:
        raise RegardError("a Whisper model whose output layer is not its embedding is not known")
    for part in ("conv1", "conv2"):
        for name in ("weight", "bias"):
            yield f"model.encoder.{part}.{name}", tensors[f"encoder/{part}/{name}"]
    yield "model.decoder.embed_tokens.weight", tensors["decoder/embeddings/weight"]
    for side in ("encoder", "decoder"):
        own = f"model.{side}"
        yield f"{own}.embed_positions.weight", tensors[f"{side}/position_encodings/encodings"]
        yield from _norm(tensors, f"{side}/layer_norm", f"{own}.layer_norm")
        for index in range(config[f"{side}_layers"]):
            theirs, ours = f"{side}/layer_{index}", f"{own}.layers.{index}"
            yield from _norm(tensors, f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            yield from _attention(tensors, f"{theirs}/self_attention", f"{ours}.self_attn", (("q", "k", "v"), ("out",)))
            if side == "decoder":
                yield from _norm(tensors, f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
                parts = (("q",), ("k", "v"), ("out",))
                yield from _attention(tensors, f"{theirs}/attention", f"{ours}.encoder_attn", parts)
            yield from _norm(tensors, f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            for number in (0, 1):
                for name in ("weight", "bias"):
                    yield f"{ours}.fc{number + 1}.{name}", tensors[f"{theirs}/ffn/linear_{number}/{name}"]


def _norm(tensors: dict[str, np.ndarray], theirs: str, ours: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{ours}.weight", tensors[f"{theirs}/gamma"]
    yield f"{ours}.bias", tensors[f"{theirs}/beta"]


def _attention(
    tensors: dict[str, np.ndarray], theirs: str, ours: str, parts: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Layers that CTranslate2 has joined, taken apart; those of the keys have no bias in Whisper."""
    for number, names in enumerate(parts):
        for kind in ("weight", "bias"):
            joined = tensors[f"{theirs}/linear_{number}/{kind}"]
            for name, part in zip(names, np.split(joined, len(names)), strict=True):
                if (name, kind) != ("k", "bias"):
                    yield f"{ours}.{name}_proj.{kind}", np.ascontiguousarray(part)
                elif part.any():
                    raise RegardError(f"{theirs} has a bias of keys, which Whisper has not")


def _extend_tokenizer(folder: Path, size: int) -> dict[str, int]:
    """Add the tokens of times, which CTranslate2 keeps apart from the tokenizer; gives the special tokens' ids."""
    values = read_json(folder / TOKENIZER)
    added = values["added_tokens"]
    first = max(token["id"] for token in added) + 1
    if first + len(TIMES) != size:
        raise RegardError(f"{folder / TOKENIZER}: {first} tokens and {len(TIMES)} of times are not the model's {size}")
    shape = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    values["added_tokens"] = [*added, *({"id": first + n, "content": time, **shape} for n, time in enumerate(TIMES))]
    (folder / TOKENIZER).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return {token["content"]: token["id"] for token in added}


def _generation(kept: dict[str, Any], config: dict[str, Any], tokens: dict[str, int]) -> dict[str, Any]:
    """What decoding needs to know, by transformers' names, from the settings that CTranslate2 keeps beside the file."""
    languages = {name: id for name, id in tokens.items() if id in kept["lang_ids"]}
    # the English models have one token less: they have no languages to choose from
    is_multilingual = config["vocab_size"] >= 51_865
    heads = kept.get("alignment_heads")
    own = (config["decoder_layers"], config["decoder_attention_heads"])
    pairs = heads if isinstance(heads, list) and all(len(head) == 2 for head in heads) else [own]
    if not all(0 <= place < most for pair in pairs for place, most in zip(pair, own, strict=True)):
        raise RegardError(f"its alignment_heads are not heads of {own[0]} layers with {own[1]} each")
    return {
        "alignment_heads": heads,
        "suppress_tokens": kept["suppress_ids"],
        "begin_suppress_tokens": kept["suppress_ids_begin"],
        "is_multilingual": is_multilingual,
        "no_timestamps_token_id": tokens[NO_TIMES],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP_INDEX,
        "max_length": config["max_target_positions"],
        "return_timestamps": False,
        **(
            {"lang_to_id": languages, "task_to_id": {task: tokens[f"<|{task}|>"] for task in TASKS}}
            if is_multilingual
            else {}
        ),
    }
