"""A Hugging Face folder becomes a torch module and its tokenizer; no code and no pickle in it is ever run.

The files are read and checked here, and transformers is handed a configuration and tensors: of weights it opens no file
itself.
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regard.errors import RegardError
from regard.files import read_whole
from regard.models.gpt import GPT, GPTConfig
from regard.models.pretrained.gpt_weights import ARCHITECTURES, config_of, load_weights, vocab_size_of
from regard.models.pretrained.needs import check_installed, quiet, told

if TYPE_CHECKING:
    from regard.models.pretrained.lora import Adapter

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("tokenizer.json", TOKENIZER_CONFIG, "vocab.txt", "vocab.json", "*.model", "*.spm")
GENERATION_CONFIG = "generation_config.json"
# all else in generation_config.json is of sampling and its like, and what is written here is the likeliest
GENERATION_KEYS = ("bos", "eos", "pad", "decoder_start", "forced_bos", "forced_eos")
BAD_WORDS = "bad_words_ids"
LARGEST_JSON = 1 << 28
# packed weights keep two values a byte, and a tied one may be counted twice
PARAMETERS_PER_BYTE = 4
# settings that count what is listed or built one by one; where it has no tensors, this is all that bounds it
COUNTS = re.compile(r"(^|_)((?<!window_)layers|n_layer|depths?|blocks|stages|labels)$")
FEW = 1 << 16
# torch functions called to make a parameter: 8 at most in any family here
CALLS_PER_TENSOR = 1 << 6
FEW_TENSORS = 1 << 7
MOST_TOLD = 3

logger = logging.getLogger("regard")


def load_folder(
    folder: Path, *, dtype: torch.dtype, adapters: Sequence["Adapter"] = (), dropout: float | None = None
) -> tuple[nn.Module, Any]:
    """The module, in evaluation mode, of the architecture that config.json names; its tokenizer, None if it has none.

    The `adapters` are merged into its weights in turn, and may bring a tokenizer of their own. A `dropout` takes the
    place of the configuration's.
    Raises RegardError where the folder asks for code of its own, has no safetensors weights, or they do not fit.
    """
    check_installed()
    values = _read_config(folder)
    paths = weight_paths(folder)
    with quiet():
        tensors = _merged(read_tensors(paths), adapters)
        size = sum(path.stat().st_size for path in paths)
        module = _build(folder, values, tensors, size=size, dtype=dtype, dropout=dropout)
        # only what is given a text need know where tokens stand in one
        is_fast = module.main_input_name == "input_ids" and not getattr(module.config, "is_encoder_decoder", False)
        return module, _tokenizer(folder, adapters, fast=is_fast)


def load_own(
    folder: Path, *, dtype: torch.dtype, adapters: Sequence["Adapter"] = ()
) -> tuple[GPT, Any, frozenset[int]] | None:
    """The same in Regard's own model, with the tokens that end a text; None of an architecture that it has not.

    Raises RegardError as `load_folder` does, and Unknown for a setting of the architecture that is not known here.
    """
    check_installed()
    values = _read_config(folder)
    if not _is_own(values):
        return None
    paths = weight_paths(folder)
    tensors = read_tensors(paths)
    _check_counts(folder, values, len(tensors))
    config, vocab_size = _own_sizes(folder, values)
    with torch.device("meta"), _BuiltOf(folder, len(tensors)):
        module = GPT(config, vocab_size)
    load_weights(module, _merged(tensors, adapters), where=str(folder), dtype=dtype)
    ends = _generation_values(folder, values).get("eos_token_id")
    with quiet():
        tokenizer = _tokenizer(folder, adapters)
    return module.eval(), tokenizer, frozenset([ends] if isinstance(ends, int) else ends or ())


def own_sizes(folder: Path) -> tuple[GPTConfig, int]:
    """The settings that Regard's own model has with the weights of this folder, and its number of tokens.

    Raises RegardError for an architecture that it has not, and Unknown for a setting of it.
    """
    values = _read_config(folder)
    if not _is_own(values):
        raise RegardError(
            f"{folder / CONFIG}: Regard trains no {values.get('architectures')}; it trains {', '.join(ARCHITECTURES)}"
        )
    return _own_sizes(folder, values)


def is_own(folder: Path) -> bool:
    """Whether Regard has a model of its own for the weights of this folder. Raises RegardError for one that is none."""
    return _is_own(_read_config(folder))


def _is_own(values: dict[str, Any]) -> bool:
    names = values.get("architectures")
    return isinstance(names, list) and bool(names) and isinstance(names[0], str) and names[0] in ARCHITECTURES


def _own_sizes(folder: Path, values: dict[str, Any]) -> tuple[GPTConfig, int]:
    try:
        return config_of(values), vocab_size_of(values)
    except RegardError as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    values = read_json(folder / CONFIG)
    has_tokenizer_config = (folder / TOKENIZER_CONFIG).is_file()
    for name, read in (
        (CONFIG, values),
        (TOKENIZER_CONFIG, read_json(folder / TOKENIZER_CONFIG) if has_tokenizer_config else {}),
    ):
        if "auto_map" in read:
            raise RegardError(
                f"{folder / name}: auto_map asks to run code that came with the model, which Regard never does; use a "
                "model whose architecture is part of transformers"
            )
    return values


def weight_paths(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(
            isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name
            for name in names.values()
        ):
            raise RegardError(f"{folder / INDEX}: its weight_map must name .safetensors files of the folder")
        return [folder / name for name in sorted(set(names.values()))]
    if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        raise RegardError(
            f"{folder}: its weights are only in {pickles[0]}, which may hold code and is not read; convert it where "
            "you trust it, with save_pretrained of transformers, or fetch the model's safetensors files"
        )
    raise RegardError(f"{folder}: it holds no {WEIGHTS}; fetch the model's safetensors files as well")


def read_tensors(paths: list[Path]) -> dict[str, Tensor]:
    """Tensors of safetensors files by name, mapped from the files rather than copied."""
    tensors = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise RegardError(f"{path}: there is no such file, and {INDEX} names it; fetch it as well") from None
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise RegardError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None
    return tensors


def fresh(folder: Path, *, dropout: float | None = None) -> Any:
    """The same module with random weights, in training mode; nothing but the configuration need be there."""
    check_installed()
    values = _read_config(folder)
    _check_counts(folder, values, FEW)
    architecture = _architecture(folder, values)
    with quiet(), told(f"{folder / CONFIG}: transformers cannot make {architecture.__name__} of it"):
        with _BuiltOf(folder, FEW):
            module = architecture(_config(architecture, values, dropout))
        module.generation_config = _generation_config(folder, values)
    return module


def is_translator(folder: Path) -> bool:
    """Whether the configuration is that of an encoder–decoder."""
    check_installed()
    values = _read_config(folder)
    with quiet():
        return bool(getattr(_config(_architecture(folder, values), values), "is_encoder_decoder", False))


def _config(architecture: Any, values: dict[str, Any], dropout: float | None = None) -> Any:
    config = architecture.config_class.from_dict(values)
    if dropout is not None:
        setattr(config, "dropout_rate" if hasattr(config, "dropout_rate") else "dropout", dropout)
    return config


def _build(
    folder: Path,
    values: dict[str, Any],
    tensors: dict[str, Tensor],
    *,
    size: int,
    dtype: torch.dtype,
    dropout: float | None = None,
) -> nn.Module:
    architecture = _architecture(folder, values)
    _check_counts(folder, values, len(tensors))
    with told(f"{folder / CONFIG}: transformers cannot make {architecture.__name__} of it"):
        config = _config(architecture, values, dropout)
        attention = "sdpa" if architecture._supports_sdpa else "eager"
        with torch.device("meta"), _BuiltOf(folder, len(tensors)):
            parameters = sum(each.numel() for each in architecture(config).parameters())
    if parameters > PARAMETERS_PER_BYTE * size:
        raise RegardError(
            f"{folder / CONFIG}: it describes {parameters:,} parameters, and the weights have {size:,} bytes; "
            "the two are not of one model"
        )
    with told(f"{folder}: transformers cannot load its weights"):
        module, info = architecture.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            # of the whole: a part that has no such implementation keeps its own
            attn_implementation={"": attention},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_fit(folder, architecture.__name__, info)
    if module.can_generate():
        module.generation_config = _generation_config(folder, values)
    return module.eval()


def _architecture(folder: Path, values: dict[str, Any]) -> Any:
    import transformers

    names = values.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RegardError(f'{folder / CONFIG}: it names no architecture; add "architectures": ["LlamaForCausalLM"]')
    found = getattr(transformers, names[0], None) if re.fullmatch(r"[A-Z]\w+", names[0]) else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel) or not found.config_class:
        raise RegardError(
            f"{folder / CONFIG}: transformers {transformers.__version__} has no model {names[0]!r}; a newer one may"
        )
    return found


def _check_counts(folder: Path, values: dict[str, Any], tensors: int) -> None:
    """Layers beyond all reason would be listed one by one, for ever; what builds nothing may be as large as it is."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_counts(folder, value, tensors)
        elif COUNTS.search(key):
            for count in value if isinstance(value, list) else [value]:
                if isinstance(count, int) and count > max(tensors, FEW):
                    raise RegardError(f"{folder / CONFIG}: {key} is {value}, and the weights have {tensors} tensors")


@final
class _BuiltOf(TorchFunctionMode):
    """Ends the building of a model, by this thread, of far more than so many tensors, whichever setting asks for it."""

    def __init__(self, folder: Path, tensors: int) -> None:
        super().__init__()
        self._folder, self._tensors = folder, tensors
        self._calls = CALLS_PER_TENSOR * max(tensors, FEW_TENSORS)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls -= 1
        # a block without gradients, which this ends too, must leave them as they were
        if self._calls < 0 and func is not torch._C._set_grad_enabled:
            raise RegardError(
                f"{self._folder / CONFIG}: it describes far more layers than the weights have tensors, "
                f"{self._tensors}; the two are not of one model"
            )
        return func(*args, **kwargs or {})


def _check_fit(folder: Path, architecture: str, info: dict[str, Any]) -> None:
    # transformers would fill what is missing with random numbers
    wrong = [f"lacks {name}" for name in sorted(info["missing_keys"])]
    wrong += [
        f"has {name} of shape {list(found)}, not {list(wanted)}"
        for name, found, wanted in sorted(info["mismatched_keys"])
    ]
    wrong += [str(message) for message in info["error_msgs"]]
    if wrong:
        more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise RegardError(
            f"{folder}: its weights are not those of {architecture}: it {', '.join(wrong[:MOST_TOLD])}{more}; fetch "
            "the folder again, or correct its config.json"
        )
    if surplus := sorted(info["unexpected_keys"]):
        logger.warning(
            "%s: %d tensors are no part of %s and are left out: %s%s",
            folder,
            len(surplus),
            architecture,
            ", ".join(surplus[:MOST_TOLD]),
            " …" if len(surplus) > MOST_TOLD else "",
        )


def _generation_config(folder: Path, values: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(**_generation_values(folder, values))


def _generation_values(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    path = folder / GENERATION_CONFIG
    source = path if path.is_file() else folder / CONFIG
    if path.is_file():
        values = read_json(path)
    ids = {f"{name}_token_id": values[f"{name}_token_id"] for name in GENERATION_KEYS if f"{name}_token_id" in values}
    for name, token in ids.items():
        if token == -1:
            # how some say that there is none
            ids[name] = None
            continue
        tokens = token if isinstance(token, list) and "eos" in name else [token]
        if token is not None and not _are_ids(tokens):
            raise RegardError(f"{source}: {name} is {token!r}, which must be a token's number")
    words = values.get(BAD_WORDS)
    if words is not None:
        if not isinstance(words, list) or not all(isinstance(word, list) and _are_ids(word) and word for word in words):
            raise RegardError(f"{source}: {BAD_WORDS} is {words!r}, which must be lists of tokens' numbers")
        return ids | {BAD_WORDS: words}
    return ids


def _merged(tensors: dict[str, Tensor], adapters: Sequence["Adapter"]) -> dict[str, Tensor]:
    for adapter in adapters:
        tensors = adapter.merged(tensors)
    return tensors


def _tokenizer(folder: Path, adapters: Sequence["Adapter"], *, fast: bool = True) -> Any:
    folders = [*(adapter.folder for adapter in reversed(adapters)), folder]
    found = (load_tokenizer(each, fast=fast) for each in folders)
    return next((tokenizer for tokenizer in found if tokenizer is not None), None)


def _are_ids(tokens: list[Any]) -> bool:
    return all(type(each) is int and each >= 0 for each in tokens)


def load_tokenizer(folder: Path, *, fast: bool = True) -> Any:
    """The tokenizer of a folder, None if it has none. Raises RegardError for one that cannot be used.

    That is one that does not say where tokens stand in a text, unless it need not be `fast`.
    """
    from transformers import AutoTokenizer

    if not any(path.is_file() for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        return None
    with quiet(), told(f"{folder}: transformers cannot read its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if fast and not tokenizer.is_fast:
        raise RegardError(
            f"{folder}: its tokenizer does not tell where tokens stand in a text; convert it to a tokenizer.json"
        )
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of settings. Raises RegardError where it is none."""
    try:
        values = json.loads(read_whole(path, LARGEST_JSON), object_hook=_infinity)
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file; fetch the whole folder of the model") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None
    # too deeply nested
    except (ValueError, RecursionError) as error:
        raise RegardError(f"{path}: not valid JSON: {error}; fetch it again") from None
    if not isinstance(values, dict):
        raise RegardError(f"{path}: it must hold a table of settings; fetch it again")
    return values


def _infinity(values: dict[str, Any]) -> Any:
    """JSON has no infinity: transformers writes {"__float__": "Infinity"} in its place."""
    return float(str(values["__float__"])) if values.keys() == {"__float__"} else values
