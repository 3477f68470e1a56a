"""Which model a user means: an alias, a GGUF file, a Hugging Face folder, or a name of the hub."""

import os
from pathlib import Path

from regard.config import suggest
from regard.errors import RegardError
from regard.files import real_path
from regard.models.pretrained.aliases import ALIASES, alias_folder
from regard.models.pretrained.gguf_convert import convert_gguf
from regard.models.pretrained.gguf_head import MAGIC
from regard.models.pretrained.hub import NAME, fetch_model

RUNS = "runs"


def find_model(model: str | os.PathLike[str]) -> tuple[str, Path]:
    """Its name and the Hugging Face folder that holds it, fetched and converted now or before.

    What is on the disk goes before an alias, and that before the hub, which is never asked for what looks like a path.
    Raises RegardError where there is no such model or it cannot be used.
    """
    path = Path(model)
    if path.is_dir():
        return real_path(path).name, path
    if path.is_file():
        if path.suffix != ".gguf" and not _begins_with_gguf(path):
            raise RegardError(
                f"{path}: this file is no model; a model is a run, a Hugging Face folder or a GGUF file, a reading a "
                ".safetensors file that `regard read --out` wrote"
            )
        return path.stem, convert_gguf(path)
    name = os.fspath(model)
    if name in ALIASES and not isinstance(model, Path):
        return name, alias_folder(name)
    if _is_path(name):
        raise RegardError(f"{name}: there is no such run, Hugging Face folder or GGUF file; check the path")
    if NAME.fullmatch(name):
        return name, fetch_model(name)
    raise RegardError(
        f"there is no model {name!r}: no run, Hugging Face folder or GGUF file of that path, and a name of the hub is "
        f"ORGANISATION/MODEL{suggest(name, ALIASES)}"
    )


def _begins_with_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _is_path(name: str) -> bool:
    """A hub's name has one slash and nothing else of a path; what begins with a folder that is here is none."""
    first = name.partition("/")[0]
    has_form = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    return has_form or name.endswith(".gguf") or ("/" in name and (first == RUNS or Path(first).is_dir()))
