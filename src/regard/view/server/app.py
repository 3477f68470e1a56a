"""The page and what it asks: every path there is."""

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from regard.config import from_dict, setting
from regard.data.messages import Message, check_messages, strings
from regard.errors import RegardError
from regard.reading.files import FORMATS
from regard.reading.reading import Reading
from regard.reading.views import RENDERERS
from regard.view import wire
from regard.view.server.guard import Guard, read_file, read_json
from regard.view.server.history import History
from regard.view.server.jobs import Busy, Job, Workers
from regard.view.server.limits import Limits
from regard.view.server.models import ServedModel, told_apart
from regard.view.server.readings import Open, OpenReadings, from_bytes, one_line, title, to_bytes

# all files that there are, so that no path leads to another
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.bundle.js": ("app.bundle.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/answers.css": ("answers.css", "text/css; charset=utf-8"),
    "/viewer.bundle.js": ("viewer.bundle.js", "text/javascript; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SAVED_AS = {".safetensors": "application/octet-stream", ".html": "text/html"}


# what the page may send, by path


@final
@dataclass(frozen=True, kw_only=True)
class Ask:
    model: str
    mode: str = setting(choices=("prompt", "chat", "text", "source"))
    # one of the two: a text or, for a chat, the whole conversation
    text: str | None = None
    messages: list[Message] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise RegardError(f"must have a text or messages{'' if self.text is None else ', not both'}")
        if self.messages is not None:
            if self.mode != "chat":
                raise RegardError(f"messages go with the mode chat, not {self.mode}")
            check_messages(self.messages)

    @property
    def given(self) -> str | list[Message]:
        given = self.messages if self.text is None else self.text
        assert given is not None
        return given

    @property
    def question(self) -> str:
        """The text or, of messages, the last one."""
        return self.given if isinstance(self.given, str) else self.given[-1].get("content") or ""


@final
@dataclass(frozen=True, kw_only=True)
class Stop:
    job: str


@final
@dataclass(frozen=True, kw_only=True)
class AskView:
    reading: str
    # what the viewer sent, which `wire` knows
    message: dict[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class Save:
    reading: str
    suffix: str = setting(choices=tuple(SAVED_AS))


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    entry: int | None


@final
@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


@final
class Api:
    """The answers to what the page asks."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        readings: Sequence[Reading],
        *,
        history: History | None,
        language: str | None,
        limits: Limits,
        is_closing: Callable[[], bool],
    ) -> None:
        self.models = told_apart(models)
        self.language = language
        self.limits = limits
        self.history = history
        self.workers = Workers(self.models, most=limits.jobs)
        self.readings = OpenReadings(limits)
        self.first = [self.readings.add(reading, title=title(reading)) for reading in readings]
        self.is_closing = is_closing
        self.jobs: dict[str, Job] = {}

    async def state(self, asked: Nothing) -> Response:
        models = [
            {
                "name": name,
                "modes": {name: [asdict(each) for each in mode.settings] for name, mode in model.modes.items()},
            }
            for name, model in self.models.items()
        ]
        return JSONResponse(
            {
                "models": models,
                "readings": [await run_in_threadpool(_shown, each) for each in self.first],
                **await run_in_threadpool(self._entries),
                "formats": [suffix for suffix in SAVED_AS if suffix in FORMATS | RENDERERS],
                "language": self.language,
                "characters": self.limits.characters,
                "file": self.limits.file,
                "remembered": self.limits.remembered,
            }
        )

    async def ask(self, asked: Ask) -> ASGIApp:
        model = self._model(asked.model)
        model.check(asked.mode, asked.settings)
        if (count := sum(map(len, strings(asked.given)))) > self.limits.characters:
            raise HTTPException(413, f"the text has {count:,} characters; this page takes {self.limits.characters:,}")
        job = Job(seconds=self.limits.answer_seconds)

        def work(job: Job) -> None:
            reading = model.ask(asked.mode, asked.given, asked.settings, job)
            if reading is not None:
                owner = asked.model if reading.knockout is not None else None
                opened = self.readings.add(reading, title=one_line(asked.question), model=owner)
                warning = self._remember(opened)
                job.tell("reading", reading=_shown(opened), entry=opened.entry, warning=warning)

        job.start(self.workers, asked.model, work)
        return self._stream(job)

    async def run(self, asked: AskView) -> ASGIApp:
        """What needs the model, as a job that tells how far it is; sources and removals stay with the reading."""
        opened = self._reading(asked.reading)
        if asked.message.get("type") not in wire.RUNS_THE_MODEL:
            raise RegardError("tables of a reading are asked for as a view")
        if opened.model is None:
            raise RegardError("this needs the model itself: ask it again on this page")
        job = Job(seconds=self.limits.answer_seconds)

        def work(job: Job) -> None:
            message, _ = wire.answer(opened.reading, asked.message, job.progress)
            stays = asked.message["type"] != "why"
            job.tell("done", message=message, warning=self._remember(opened) if stays else None)

        job.start(self.workers, opened.model, work)
        return self._stream(job)

    def _stream(self, job: Job) -> ASGIApp:
        async def lines() -> AsyncIterator[str]:
            async for event in job.events(is_closing=self.is_closing):
                yield "\n" if event is None else json.dumps(event, allow_nan=False) + "\n"

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await StreamingResponse(lines(), media_type="application/x-ndjson")(scope, receive, send)
            finally:
                # however it ends: the browser has left, or has had everything
                job.leave()
                del self.jobs[job.id]

        self.jobs[job.id] = job
        return respond

    async def stop(self, asked: Stop) -> Response:
        if asked.job in self.jobs:
            self.jobs[asked.job].stop()
        return JSONResponse({})

    async def view(self, asked: AskView) -> Response:
        opened = self._reading(asked.reading)
        if asked.message.get("type") in wire.RUNS_THE_MODEL:
            raise RegardError("what runs the model is asked for by itself, since it takes a while")
        _, (table,) = await run_in_threadpool(wire.answer, opened.reading, asked.message)
        return Response(table, media_type="application/octet-stream")

    async def save(self, asked: Save) -> Response:
        opened = self._reading(asked.reading)
        data = await run_in_threadpool(to_bytes, opened.reading, asked.suffix)
        name = f'attachment; filename="reading{asked.suffix}"'
        return Response(data, media_type=SAVED_AS[asked.suffix], headers={"Content-Disposition": name})

    async def open(self, request: Request) -> Response:
        with TemporaryDirectory(prefix="regard-") as folder:
            path = Path(folder) / "reading.safetensors"
            await read_file(request, path, most=self.limits.file, seconds=self.limits.file_seconds)
            reading = await run_in_threadpool(_loaded, path)
        return await self._opened(reading, title(reading))

    async def recall(self, asked: Entry) -> Response:
        if self.history is None or asked.entry is None:
            raise HTTPException(404, "there is no history")
        try:
            title, file = await run_in_threadpool(self.history.get, asked.entry)
        except KeyError:
            raise HTTPException(404, "the history has it no longer") from None
        return await self._opened(await run_in_threadpool(from_bytes, file), title)

    async def forget(self, asked: Entry) -> Response:
        if self.history is not None:
            await run_in_threadpool(self.history.forget, asked.entry)
        return JSONResponse(await run_in_threadpool(self._entries))

    def _model(self, name: str) -> ServedModel:
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r} was named when the page was opened")
        return self.models[name]

    def _reading(self, id: str) -> Open:
        try:
            return self.readings.get(id)
        except KeyError:
            raise HTTPException(404, "this reading is no longer open; ask again, or open its file") from None

    def _entries(self) -> dict[str, Any]:
        """What the history has, None where there is none, and why that cannot be told."""
        try:
            return {"history": None if self.history is None else self.history.entries(), "warning": None}
        except RegardError as error:
            return {"history": [], "warning": str(error)}

    async def _opened(self, reading: Reading, title: str) -> Response:
        return JSONResponse(await run_in_threadpool(_shown, self.readings.add(reading, title=title)))

    def _remember(self, opened: Open) -> str | None:
        """Keep a reading in the history as it is now, unless it is too large; why that failed."""
        # the file is as large as the tables, and a little
        if self.history is None or opened.size > self.limits.remembered:
            return None
        try:
            file = to_bytes(opened.reading, ".safetensors")
            if opened.entry is None:
                opened.entry = self.history.add(file, model=opened.reading.model, title=opened.title)
            else:
                self.history.replace(opened.entry, file)
        except (RegardError, OSError) as error:
            return str(error)
        return None


def create_app(api: Api, *, token: str, names: Collection[str] | None) -> ASGIApp:
    """The application: the page's files for whoever comes by its name, the rest for whoever has the token."""
    asked: dict[str, tuple[type, Callable[[Any], Awaitable[Any]]]] = {
        "state": (Nothing, api.state),
        "ask": (Ask, api.ask),
        "stop": (Stop, api.stop),
        "run": (AskView, api.run),
        "view": (AskView, api.view),
        "save": (Save, api.save),
        "recall": (Entry, api.recall),
        "forget": (Entry, api.forget),
    }
    routes = [Route(path, functools.partial(_file, *file), methods=["GET"]) for path, file in FILES.items()]
    routes += [
        Route(f"/api/{name}", functools.partial(_answer, api.limits, kind, answer), methods=["POST"])
        for name, (kind, answer) in asked.items()
    ]
    routes.append(Route("/api/open", api.open, methods=["POST"]))
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _refused, RegardError: _refused, Busy: _refused, 404: _refused},
    )
    return Guard(app, token=token, names=names)


async def _answer(limits: Limits, kind: type, answer: Callable[[Any], Awaitable[Any]], request: Request) -> Response:
    asked = await read_json(request, most=limits.body, seconds=limits.body_seconds)
    return await answer(from_dict(kind, asked, where="request:"))


async def _file(name: str, media_type: str, request: Request) -> Response:
    return Response(_page_file(name), media_type=media_type)


@functools.cache
def _page_file(name: str) -> bytes:
    return (resources.files("regard.view") / "page" / name).read_bytes()


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)
    if isinstance(error, Busy):
        return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "5"})
    return JSONResponse({"error": str(error)}, status_code=400)


def _loaded(path: Path) -> Reading:
    try:
        return Reading.load(path)
    except RegardError as error:
        # the name is ours, of a folder that is gone by now
        raise RegardError(str(error).replace(str(path), "this file")) from None


def _shown(opened: Open) -> dict[str, Any]:
    reading = opened.reading
    return {
        "id": opened.id,
        "model": reading.model,
        "title": opened.title,
        "live": opened.model is not None,
        "size": opened.size,
        "header": wire.header(reading),
    }
