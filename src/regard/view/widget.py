"""A reading in a notebook: the same viewer, which asks Python for its tables.

anywidget gives a viewer a model with get, set, on, off, save_changes and send, in Jupyter, VS Code, Colab and marimo.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from regard.errors import RegardError
from regard.reading.reading import Reading
from regard.view import wire
from regard.view.html import asset


def widget(reading: Reading, lang: str | None = None) -> Any:
    """The viewer of a reading as a widget. `lang` is `en` or `zh`; the browser chooses where it is None.

    Raises RegardError where anywidget is not installed.
    """
    if importlib.util.find_spec("anywidget") is None:
        raise RegardError("a widget needs anywidget; pip install 'regard[view]'")
    made = _viewer()(header=wire.header(reading), live=reading.knockout is not None, lang=lang or "")
    made.on_msg(lambda self, content, _: _answer(reading, content, self.send))
    return made


@cache
def _viewer() -> Any:
    import anywidget
    import traitlets

    class Viewer(anywidget.AnyWidget):
        _esm = asset("viewer.bundle.js")
        _css = asset("viewer.css")
        header = traitlets.Dict().tag(sync=True)
        live = traitlets.Bool(False).tag(sync=True)
        exact = traitlets.Bool(True).tag(sync=True)
        lang = traitlets.Unicode("").tag(sync=True)

    return Viewer


def _answer(reading: Reading, message: dict[str, Any], send: Callable[[dict[str, Any], list[bytes]], None]) -> None:
    """Send what a message asks for, and before it how far that is. The kernel's interrupt ends it."""
    done = 0

    def tell(steps: int) -> None:
        nonlocal done
        done += steps
        send({"type": "progress", "asked": message, "done": done}, [])

    try:
        send(*wire.answer(reading, message, tell))
    except RegardError as error:
        send({"type": "error", "asked": message, "message": str(error)}, [])
    except KeyboardInterrupt:
        send({"type": "stopped", "asked": message}, [])
