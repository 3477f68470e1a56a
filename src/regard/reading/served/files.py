"""A served request as one safetensors file, which an engine can write without Regard: docs/serving.md has the names.

Here a request is its `facts`, which JSON holds, and its tensors by name, such as `layer.3.query`.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regard.errors import RegardError
from regard.files import new_file

FORMAT = "regard-served-1"
SUFFIX = ".safetensors"
FACTS = ("model", "prompt_tokens", "num_keys", "block_size", "ended", "dtype", "layers")
LAYER_FACTS = ("scale", "softcap", "window")
OPTIONAL = ("ended", "dtype", "softcap", "window")


def write(facts: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> None:
    """Write all of it. Raises RegardError for another suffix and where the file cannot be written."""
    if path.suffix != SUFFIX:
        raise RegardError(f"{path}: a served request is saved as {SUFFIX}, not {path.suffix or 'no suffix'!r}")
    metadata = {"format": FORMAT, "request": json.dumps(facts, ensure_ascii=False)}
    with new_file(path) as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, metadata)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[int, dict[str, Tensor]]]:
    """The facts, the tensors of the whole request, and those of each layer.

    Raises RegardError if the file is not a served request.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RegardError(f"{path}: not a served request: its format is not {FORMAT!r}")
            facts = _checked(json.loads(metadata["request"]))
            own: dict[str, Tensor] = {}
            layers: dict[int, dict[str, Tensor]] = {int(number): {} for number in facts["layers"]}
            for name in file.keys():  # noqa: SIM118
                sort, _, rest = name.partition(".")
                number, _, part = rest.partition(".")
                if sort == "layer" and number in facts["layers"]:
                    layers[int(number)][part] = file.get_tensor(name)
                elif name in ("ids", "rows"):
                    own[name] = file.get_tensor(name)
                else:
                    raise ValueError(f"its facts know nothing of a tensor {name!r}")
            return facts, own, layers
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except KeyError as error:
        raise RegardError(f"{path}: not a readable served request: it has no {error}") from None
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise RegardError(f"{path}: not a readable served request: {error}") from None


def _checked(facts: Any) -> dict[str, Any]:
    _check_names(facts, FACTS, "its facts")
    if not isinstance(facts["layers"], dict):
        raise ValueError("its layers are no table")
    for number, layer in facts["layers"].items():
        if not (number.isascii() and number.isdigit() and str(int(number[:9])) == number):
            raise ValueError(f"a layer is named {number[:20]!r}, which is no number")
        _check_names(layer, LAYER_FACTS, f"layer {number}")
    return facts


def _check_names(facts: Any, names: tuple[str, ...], what: str) -> None:
    if not isinstance(facts, dict):
        raise ValueError(f"{what} are no table")
    unknown = next((name for name in facts if name not in names), None)
    if unknown is not None:
        raise ValueError(f"{what} have an unknown {unknown[:40]!r}")
    missing = next((name for name in names if name not in facts and name not in OPTIONAL), None)
    if missing is not None:
        raise ValueError(f"{what} have no {missing!r}")
