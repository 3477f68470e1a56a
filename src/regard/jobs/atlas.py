"""The atlas of a job: its shards, merged in the job's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.errors import RegardError
from regard.reading.atlas import Atlas

# what is made of the shards, in their folder
ATLAS = "atlas.safetensors"


def merged_atlas(folder: Path, manifest: Mapping[str, Any]) -> Atlas:
    """The shards as one atlas. Raises RegardError where none of the texts could be measured."""
    shards = [Atlas.load(folder / shard["file"]) for shard in manifest["shards"]]
    whole = next((each for each in shards if each.prompts), None)
    if whole is None:
        raise RegardError(f"{folder}: none of the texts could be measured, the first as {_first_error(manifest)}")
    for each in shards:
        if each is not whole:
            whole.tally.merge(each.tally)
    return whole


def opened_atlas(path: Path) -> Atlas:
    """An atlas by its file, or by the folder that `regard atlas` made."""
    return Atlas.load(path / ATLAS if path.is_dir() else path)


def _first_error(manifest: Mapping[str, Any]) -> str:
    return next((shard["first_error"] for shard in manifest["shards"] if shard["errors"]), "there was none")
