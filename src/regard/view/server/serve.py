"""`regard view`: the page on a port of this machine, in the user's browser."""

import asyncio
import contextlib
import errno
import ipaddress
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import platformdirs
import uvicorn

from regard.errors import RegardError
from regard.reading.reading import Reading
from regard.view.server.app import Api, create_app
from regard.view.server.guard import LOOPBACK
from regard.view.server.history import History
from regard.view.server.limits import LIMITS, Limits
from regard.view.server.models import ServedModel

PORT = 8765
# how many ports after that one are tried
TRIES = 20
CONNECTIONS = 128


@final
class Page:
    """The page of these models and readings, listening; `run` serves it until it is interrupted."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        readings: Sequence[Reading],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        keeps_history: bool = True,
        language: str | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """Raises RegardError where it cannot listen there, or cannot keep a history."""
        self.token = secrets.token_urlsafe(32)
        history = History(history_path(), limits) if keeps_history else None
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.host = host
        self.api = Api(
            models,
            readings,
            history=history,
            language=language,
            limits=limits,
            is_closing=lambda: self.server.should_exit,
        )
        config = uvicorn.Config(
            create_app(self.api, token=self.token, names=None if is_wildcard(host) else LOOPBACK | {_spelt(host)}),
            http="h11",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
        self.server = uvicorn.Server(config)

    @property
    def address(self) -> str:
        """Where the page is. The token stands behind #, which browsers send to no server."""
        host = "127.0.0.1" if is_wildcard(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/#token={self.token}"

    def run(self, *, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM, which is then raised again; `ready` is called once it answers."""
        with _interruptible(self.stop):
            asyncio.run(self._serve(ready))

    async def _serve(self, ready: Callable[[], object]) -> None:
        async def tell() -> None:
            while not self.server.started:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(ready)

        telling = asyncio.create_task(tell())
        try:
            await self.server.serve(sockets=[self._socket])
        finally:
            telling.cancel()
            self.api.workers.close()
            self._socket.close()

    def stop(self) -> None:
        """End `run`, from any thread."""
        self.server.should_exit = True


@contextlib.contextmanager
def _interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop, and are raised again at the end: they break into no event loop being made or closed."""
    if threading.current_thread() is not threading.main_thread():
        # only the main thread may hear signals
        yield
        return
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        stop()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if heard:
        signal.raise_signal(heard[0])


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens there, 0 being any free port; with None the first free one of a few from `PORT` on.

    Raises RegardError where that cannot be.
    """
    if not host.strip():
        raise RegardError("--host is empty, which would be every address of this machine; give 127.0.0.1, or 0.0.0.0")
    if not _is_host(host):
        raise RegardError(f"--host {host!a}: not the name of a host; give an address of this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(PORT, PORT + TRIES) if port is None else (port,):
        try:
            return socket.create_server((host, number), family=family)
        except OverflowError:
            raise RegardError(f"--port {port}: a port is a number from 0 to 65535") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RegardError(f"--host {host}: cannot listen there: {error.strerror or error}") from None
    if port is None:
        raise RegardError(f"ports {PORT} to {PORT + TRIES - 1} are all taken; --port 0 takes any that is free")
    raise RegardError(f"--port {port} is taken by another program; choose another, or --port 0 for any that is free")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach it."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether it stands for all addresses of this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def _is_host(host: str) -> bool:
    """Whether names of hosts can be so spelt at all."""
    with contextlib.suppress(UnicodeError):
        return b"\0" not in host.encode("idna")
    return False


def _spelt(host: str) -> str:
    """As browsers spell it."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host.lower()


def history_path() -> Path:
    """The file of the history, in the user's data folder."""
    return platformdirs.user_data_path("regard") / "history.sqlite3"


def open_browser(address: str) -> bool:
    """Show the page to the user; False where there is no browser."""
    return webbrowser.open(address)
