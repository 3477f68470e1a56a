"""Work for the models: one thread each, so that the server stays free, and a bound on what waits.

A job ends between two tokens when its browser stops it or leaves, or when its time is up.
"""

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, final

from regard.errors import RegardError

T = TypeVar("T")
Event = dict[str, Any]
# how long the stream may be silent: a browser that has left is noticed by what is sent to it
HEARTBEAT = 1.0


@final
class Busy(Exception):
    """So much is under way that nothing more can wait."""


@final
class Stopped(Exception):
    """A job ends here: its user has seen enough, or has left."""


@final
class Workers:
    """A thread for each model. At most so many jobs are under way, running or waiting, of all models together."""

    def __init__(self, names: Iterable[str], *, most: int) -> None:
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}") for name in names}
        self._most = most
        self._lock = threading.Lock()
        self._counts = Counter[str]()

    def count(self, name: str | None = None) -> int:
        """How many jobs of a model are under way, or of all."""
        with self._lock:
            return self._counts.total() if name is None else self._counts[name]

    def submit(self, name: str, work: Callable[[], T]) -> Future[T]:
        """Let the thread of a model do this. Raises Busy."""
        with self._lock:
            if (count := self._counts.total()) >= self._most:
                raise Busy(f"{count} answers are under way, which is all that may be; try again in a moment")
            self._counts[name] += 1
        future = self._threads[name].submit(work)
        future.add_done_callback(lambda _: self._done(name))
        return future

    def _done(self, name: str) -> None:
        with self._lock:
            self._counts[name] -= 1

    def close(self) -> None:
        """Take nothing more, and forget what waits."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)


@final
class Job:
    """One answer: a model's thread tells of it, and a browser's stream is given what is told."""

    def __init__(self, *, seconds: float) -> None:
        self.id = secrets.token_hex(8)
        self.is_stopped = False
        self.has_left = False
        self._seconds = seconds
        self._end = float("inf")
        self._steps = 0
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._future: Future[None] | None = None

    # what the model's thread calls

    def tell(self, type: str, **facts: Any) -> None:
        """Send an event to the browser."""
        if not self.has_left:
            self._loop.call_soon_threadsafe(self._events.put_nowait, {"type": type, **facts})

    def goes_on(self) -> bool:
        """Whether another token is wanted."""
        return not (self.is_stopped or self.has_left or self.is_late)

    def progress(self, steps: int) -> None:
        """Tell of steps that are done. Raises Stopped where no more are wanted, RegardError where time is up."""
        if self.is_stopped or self.has_left:
            raise Stopped
        if self.is_late:
            raise RegardError(f"it took more than {self._seconds:.0f} seconds, which is all that this page gives")
        self._steps += steps
        self.tell("progress", done=self._steps)

    @property
    def is_late(self) -> bool:
        """Whether its time is up."""
        return time.monotonic() > self._end

    # what the server calls

    def start(self, workers: Workers, name: str, work: Callable[["Job"], None]) -> None:
        """Let a model's thread do this work. Raises Busy."""

        def run() -> None:
            self._end = time.monotonic() + self._seconds
            try:
                if not (self.is_stopped or self.has_left):
                    self.tell("started")
                    work(self)
            except Stopped:
                pass
            except RegardError as error:
                self.tell("error", error=str(error))

        self.tell("job", job=self.id, waiting=workers.count(name))
        self._future = workers.submit(name, run)
        self._future.add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            # a mistake of ours: its traceback is for the terminal, and the browser must not wait for ever
            self.tell("error", error="the model failed; the terminal of `regard view` says why")
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, {"message": "job", "exception": error})
        if not self.has_left:
            self._loop.call_soon_threadsafe(self._events.put_nowait, None)

    def stop(self) -> None:
        """The user has seen enough; what is written by now is still read."""
        self.is_stopped = True

    def leave(self) -> None:
        """The browser has left."""
        self.has_left = True
        if self._future is not None:
            self._future.cancel()

    async def events(self, *, is_closing: Callable[[], bool]) -> AsyncIterator[Event | None]:
        """What is told, to its end; None now and then in between."""
        while not is_closing():
            try:
                event = await asyncio.wait_for(self._events.get(), HEARTBEAT)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event
