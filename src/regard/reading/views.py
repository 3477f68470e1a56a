"""What shows readings: pages and pictures, by suffix, and other views, by name. Whoever draws enters it here."""

from collections.abc import Callable
from typing import Any

from regard.errors import RegardError

RENDERERS: dict[str, Callable[..., None]] = {}
VIEWS: dict[str, Callable[..., Any]] = {}


def view(name: str) -> Callable[..., Any]:
    """The view of this name. Raises RegardError where nothing that draws has been imported."""
    if name not in VIEWS:
        raise RegardError(f"nothing here draws {name}; `import regard.api` brings what does")
    return VIEWS[name]
