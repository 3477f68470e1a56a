"""Measurements kept in files, one for each, so that a benchmark can be stopped and continued."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from regard.data.download import cache_dir
from regard.files import new_file


def default_folder() -> Path:
    return cache_dir() / "benchmarks" / "sources"


def digest(*parts: object) -> str:
    """A short name for texts and numbers, the same for the same."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:12]


@final
@dataclass(frozen=True)
class Kept:
    """A folder of measurements."""

    folder: Path

    def has(self, name: str, depends_on: str) -> bool:
        return self._read(name).get("depends_on") == depends_on

    def get(self, name: str, depends_on: str, measure: Callable[[], Any]) -> Any:
        """The measurement of that name, taken now where there is none or what it depends on has changed."""
        if self.has(name, depends_on):
            return self._read(name)["measured"]
        measured = measure()
        with new_file(self._path(name)) as partial:
            partial.write_text(json.dumps({"depends_on": depends_on, "measured": measured}), encoding="utf-8")
        return measured

    def _read(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
