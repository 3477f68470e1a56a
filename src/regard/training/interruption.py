"""Ctrl-C and SIGTERM end a training after the step that it is at."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

# Ctrl-C, and what ends a job of a cluster or a container
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed or SIGTERM sent; the second one is not held back."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # only the main thread may hear signals
        yield pressed.is_set
        return

    def hear(*_: object) -> None:
        pressed.set()
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield pressed.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
