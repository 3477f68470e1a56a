"""Who may ask: the page that the user opened, on this machine, and nobody else; and how much.

Any page of any site can send requests to 127.0.0.1, so that neither the address nor the port protects anything. Host
is checked because a name can be made to point here (DNS rebinding), Origin because browsers tell it of every POST, and
a token because other users of this machine have no browser in between.
"""

import asyncio
import hmac
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any, NoReturn, final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# a name or IPv4 address, or an IPv6 address in brackets, and perhaps a port
HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@final
class Guard:
    """Lets through what the opened page asks; everything below `/api/` needs the token.

    `names` are the hosts under which the page may be reached; with None any address, but of names only localhost.
    """

    def __init__(self, app: ASGIApp, *, token: str, names: Collection[str] | None) -> None:
        self.app = app
        self.token = token
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # there is no socket here, so that none has to be guarded
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if message["status"] >= 400:
                    # else what is still coming of a refused request would be waited for
                    headers["Connection"] = "close"
            await send(message)

        refused = self._refusal(scope["path"], Headers(scope=scope))
        answer = self.app if refused is None else JSONResponse({"error": refused[1]}, status_code=refused[0])
        await answer(scope, receive, guarded)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 403, "this page is not served under that name; open the address that `regard view` printed"
        origins = headers.getlist("origin")
        # of a page on another port too: any program may serve one on this machine
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return 403, "another page asked; only the page that `regard view` serves may"
        if not path.startswith("/api/"):
            return None
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return 403, "another page asked; only the page that `regard view` serves may"
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return 401, "the page's token is missing or of another run; open the address that `regard view` printed"
        return None

    def _is_ours(self, host: str) -> bool:
        if (found := HOST.fullmatch(host)) is None:
            return False
        name = (found["six"] or found["name"]).lower()
        if self.names is not None:
            return name in self.names
        return name in LOOPBACK or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_json(request: Request, *, most: int, seconds: float) -> dict[str, Any]:
    """The body, an object in JSON. Raises HTTPException for anything else, and for one that is too long or too slow."""
    _check_type(request, "application/json")
    body = b"".join([part async for part in _parts(request, most, seconds)])
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse)
        # half a surrogate pair can be written in JSON, and is no text
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the request is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the request must be a JSON object")
    return value


async def read_file(request: Request, path: Path, *, most: int, seconds: float) -> None:
    """Write the body, bytes of any kind, to `path`. Raises HTTPException for one that is too long or too slow."""
    _check_type(request, "application/octet-stream")
    with path.open("wb") as file:
        async for part in _parts(request, most, seconds):
            file.write(part)


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != wanted:
        raise HTTPException(415, f"the content type must be {wanted}, not {given[:80]!r}")


async def _parts(request: Request, most: int, seconds: float) -> AsyncIterator[bytes]:
    length = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                # counted as it comes: a length may be missing, or a lie
                length += len(part)
                if length > most:
                    raise HTTPException(413, f"the request is longer than {most:,} bytes")
                yield part
    except TimeoutError:
        raise HTTPException(408, f"the request took longer than {seconds:g} seconds to arrive") from None
    except ClientDisconnect:
        raise HTTPException(400, "the browser left while it was asking") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
