"""The page's server: who may ask, how much, and what comes back. A real server, asked over a real socket."""

import contextlib
import http.client
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import regard

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from regard.config import texts
from regard.generation.writing import Writing
from regard.view import wire
from regard.view.server import serve
from regard.view.server.guard import Guard
from regard.view.server.limits import LIMITS
from regard.view.server.models import Mode, ServedModel, serve_language_model
from regard.view.server.serve import Page

JSON = "application/json"
EVIL = "http://evil.example"


class Served:
    """A page that runs in a thread, and how a browser asks it."""

    def __init__(self, models, readings=(), **settings):
        self.page = Page(models, readings, port=0, **settings)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.page.run, kwargs={"ready": ready.set})
        self.thread.start()
        assert ready.wait(10)
        self.host = f"127.0.0.1:{self.page.port}"

    def headers(self, **changes):
        """What the page's own browser sends; None leaves one out."""
        given = {"host": self.host, "origin": f"http://{self.host}", "authorization": f"Bearer {self.page.token}"}
        given |= {"content_type": JSON, **changes}
        return {name.replace("_", "-"): value for name, value in given.items() if value is not None}

    def open(self, path, body=b"{}", *, method="POST", **headers):
        """A connection that has asked, and its response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=20)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, body, self.headers(**headers))
        return connection, connection.getresponse()

    def ask(self, path, body=b"{}", **how):
        """The status and, where the response is JSON, what it says."""
        connection, response = self.open(path, body, **how)
        with contextlib.closing(connection):
            data = response.read()
        is_json = response.headers.get("content-type", "") == JSON
        return response.status, json.loads(data) if is_json else data

    def events(self, body, path="/api/ask"):
        status, data = self.ask(path, body)
        assert status == 200, data
        return [json.loads(line) for line in data.split(b"\n") if line]

    def close(self):
        self.page.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def folder(tiny_smollm2):
    return tiny_smollm2 / "models" / "smollm2"


@pytest.fixture(scope="module")
def model(folder):
    return regard.load(folder)


@pytest.fixture(scope="module")
def served(model):
    served = Served([serve_language_model(model)], keeps_history=False)
    yield served
    served.close()


@pytest.fixture
def serving():
    """Serves other models with other settings, to the test's end."""
    with contextlib.ExitStack() as stack:

        def serve(*models, **settings):
            served = Served(models, **{"keeps_history": False, **settings})
            stack.callback(served.close)
            return served

        yield serve


def prompt(**settings):
    return {"model": "smollm2", "mode": "prompt", "text": "one two", "settings": {"max_new_tokens": 4, **settings}}


# what is asked and what comes


def test_an_answer_is_what_the_library_writes_and_its_reading_what_the_library_reads(served, model):
    for mode, chat in (("prompt", False), ("chat", True)):
        settings = {"max_new_tokens": 6, "temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "seed": 3}
        events = served.events({"model": "smollm2", "mode": mode, "text": "Zwei <b>é", "settings": settings})
        written = model.generate("Zwei <b>é", chat=chat, **settings)
        assert "".join(event["text"] for event in events if event["type"] == "text") == written.text
        reading = model.read_written("Zwei <b>é", written, chat=chat, statistics=("value_norm",))
        assert [event["type"] for event in events if event["type"] != "text"] == [
            "job",
            "started",
            "written",
            "reading",
        ]
        shown = events[-1]["reading"]
        assert shown["live"]
        wanted = json.loads(json.dumps(wire.header(reading)))
        assert shown["header"].keys() == wanted.keys()
        for name, value in wanted.items():
            assert shown["header"][name] == value, name
        asked = {"reading": shown["id"], "message": {"type": "layer", "kind": "decoder", "layer": 1}}
        assert served.ask("/api/view", asked) == (200, wire.layer(reading, "decoder", 1))
        exact = {"type": "exact", "kind": "decoder", "layer": 2, "head": 1, "row": 0}
        _, row = served.ask("/api/view", {"reading": shown["id"], "message": exact})
        assert (np.frombuffer(row, "<f4") == reading.weights("decoder", 2)[1, 0]).all()


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one 🙂"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "<b>three"},
]


def conversation(messages, mode="chat"):
    return {"model": "smollm2", "mode": mode, "messages": messages, "settings": {"max_new_tokens": 4}}


def test_a_conversation_is_answered_and_read_as_the_library_does(served, model):
    events = served.events(conversation(CONVERSATION))
    written = model.generate(messages=CONVERSATION, max_new_tokens=4)
    assert "".join(event["text"] for event in events if event["type"] == "text") == written.text
    reading = model.read_written(None, written, messages=CONVERSATION, statistics=("value_norm",))
    shown = events[-1]["reading"]
    assert shown["header"] == json.loads(json.dumps(wire.header(reading)))
    assert [turn["role"] for turn in shown["header"]["settings"]["turns"]] == ["system", "user", "assistant", "user"]
    assert shown["title"] == "<b>three"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (conversation([]), "there is no message"),
        (conversation(CONVERSATION[:3]), "leaves nothing to answer"),
        (conversation([3]), "message 1 must be one such as"),
        (conversation([{"role": "user"}]), "has no content"),
        (conversation({"role": "user"}), "must be of type list"),
        (conversation(CONVERSATION, mode="prompt"), "messages go with the mode chat"),
        (conversation(CONVERSATION) | {"text": "one"}, "not both"),
        (conversation(None), "must have a text or messages"),
    ],
)
def test_what_is_no_conversation_is_refused(served, asked, says):
    status, said = served.ask("/api/ask", asked)
    assert (status, says in said["error"]) == (400, True), said


def test_a_conversation_is_as_long_as_all_its_messages(serving, model):
    served = serving(serve_language_model(model), limits=replace(LIMITS, characters=60))
    assert served.ask("/api/ask", conversation([{"role": "user", "content": "a" * 40}]))[0] == 200
    messages = [{"role": "system", "content": "a" * 40}, {"role": "user", "content": "a" * 40}]
    assert served.ask("/api/ask", conversation(messages))[0] == 413


def test_a_text_is_read_as_it_stands(served, model):
    events = served.events({"model": "smollm2", "mode": "text", "text": "one two three"})
    header = events[-1]["reading"]["header"]
    assert header["sequences"]["text"]["text"] == "one two three"
    assert header["kinds"][0]["rows"] == list(range(len(model.encode("one two three")[0])))


def run(served, id, message):
    return served.events({"reading": id, "message": message}, path="/api/run")


PAGE = "One two three. Four five six.\n\nWhat is it?"
SOURCES = {"type": "sources", "grain": "sentences", "of": None}


def page_and_question(**settings):
    return {"model": "smollm2", "mode": "prompt", "text": PAGE, "settings": {"max_new_tokens": 4, **settings}}


def test_sources_are_sought_as_a_job_and_stay_with_the_reading(serving, model, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "history_path", lambda: tmp_path / "history.sqlite3")
    served = serving(serve_language_model(model), keeps_history=True)
    answered = served.events(page_and_question())[-1]
    id = answered["reading"]["id"]
    job, started, *steps, done = run(served, id, SOURCES)
    assert (job["type"], job["waiting"], started["type"], done["type"]) == ("job", 0, "started", "done")
    assert steps == [{"type": "progress", "done": place + 1} for place in range(len(steps))] != []
    found, removal = done["message"], {"type": "removal", "start": 1, "end": 3}
    *_, done = run(served, id, removal)
    (removed,) = done["message"]["removals"]
    reading = model.read_written(PAGE, model.generate(PAGE, max_new_tokens=4))
    assert removed["effects"] == pytest.approx(reading.removal((1, 3)).effects, abs=1e-6)
    _, data = served.ask("/api/save", {"reading": id, "suffix": ".safetensors"})
    saved = tmp_path / "reading.safetensors"
    saved.write_bytes(data)
    kept = regard.Reading.load(saved).settings
    assert kept["removals"] == [removed]
    sources = kept["sources"]
    assert sources["sources"] == found["sources"]["sources"]
    assert sources["answer"] == answered["reading"]["header"]["sequences"]["text"]["text"].partition("it?")[2].strip()
    _, recalled = served.ask("/api/recall", {"entry": answered["entry"]})
    assert recalled["header"]["settings"]["sources"] == found["sources"]
    assert recalled["header"]["settings"]["removals"] == [removed]


def test_why_a_head_looked_there_is_asked_as_a_job(serving, model):
    served = serving(serve_language_model(model))
    id = served.events(page_and_question())[-1]["reading"]["id"]
    reading = model.read_written(PAGE, model.generate(PAGE, max_new_tokens=4))
    row = reading.rows("decoder")[1]
    asked = {"type": "why", "layer": 2, "head": 1, "row": row, "key": row - 2}
    *_, done = run(served, id, asked)
    found, expected = done["message"]["why"], reading.why(2, 1, row, row - 2)
    assert found["score"] == pytest.approx(expected.score, abs=1e-6)
    assert sum(each["score"] for each in found["by_key"]) == pytest.approx(expected.score, abs=1e-4)
    assert found["strongest"][0]["query"] == expected.strongest()[0].query._asdict()
    *_, failed = run(served, id, asked | {"key": row + 1})
    assert f"row {row} sees keys 0 to {row}" in failed["error"]


def test_an_answer_comes_though_the_history_cannot_be_written(serving, model, tmp_path, monkeypatch):
    path = tmp_path / "history.sqlite3"
    monkeypatch.setattr(serve, "history_path", lambda: path)
    served = serving(serve_language_model(model), keeps_history=True)
    path.write_bytes(b"no database " * 400)
    answered = served.events(page_and_question())[-1]
    assert (answered["type"], answered["entry"]) == ("reading", None)
    assert "the history cannot be used" in answered["warning"]
    done = run(served, answered["reading"]["id"], {"type": "removal", "start": 1, "end": 3})[-1]
    assert done["type"] == "done"
    assert "the history cannot be used" in done["warning"]
    status, state = served.ask("/api/state")
    assert (status, state["history"], state["warning"]) == (200, [], answered["warning"])


def test_sources_that_cannot_be_had_are_told(served, tmp_path):
    id = served.events(prompt())[-1]["reading"]["id"]
    assert "one passage and nothing else" in run(served, id, SOURCES)[-1]["error"]
    assert "grain must be sentences" in run(served, id, SOURCES | {"grain": "verses"})[-1]["error"]
    status, refused = served.ask("/api/view", {"reading": id, "message": SOURCES})
    assert (status, "by itself" in refused["error"]) == (400, True)
    status, refused = served.ask("/api/run", {"reading": id, "message": {"type": "mean"}})
    assert (status, "as a view" in refused["error"]) == (400, True)
    _, data = served.ask("/api/save", {"reading": id, "suffix": ".safetensors"})
    _, opened = served.ask("/api/open", data, content_type="application/octet-stream")
    status, refused = served.ask("/api/run", {"reading": opened["id"], "message": SOURCES})
    assert (status, "needs the model itself" in refused["error"]) == (400, True)
    assert served.ask("/api/run", {"reading": "gone", "message": SOURCES})[0] == 404


def test_a_reading_is_saved_and_opened_again(served, tmp_path):
    first = served.events(prompt())[-1]["reading"]
    status, data = served.ask("/api/save", {"reading": first["id"], "suffix": ".safetensors"})
    assert status == 200
    path = tmp_path / "reading.safetensors"
    path.write_bytes(data)
    assert wire.header(regard.Reading.load(path))["sequences"]["text"]["text"].startswith("one two")
    status, again = served.ask("/api/open", data, content_type="application/octet-stream")
    assert (status, again["live"], again["header"]) == (200, False, first["header"])


def test_readings_named_at_the_start_are_open_at_once(model, serving):
    reading = model.read(text="one two", rows="all")
    served = serving(readings=(reading,))
    _, state = served.ask("/api/state")
    assert [each["header"]["sequences"]["text"]["text"] for each in state["readings"]] == ["one two"]
    assert state["models"] == []


def test_the_page_asks_a_model_without_a_chat_template_too(tiny_smollm2, serving):
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    model.tokenizer.chat_template = None
    served = serving(serve_language_model(model))
    _, state = served.ask("/api/state")
    assert list(state["models"][0]["modes"]) == ["prompt", "chat", "text"]
    events = served.events({"model": "smollm2", "mode": "chat", "text": "one", "settings": {"max_new_tokens": 2}})
    assert "Question: one\nAnswer:" in events[-1]["reading"]["header"]["sequences"]["text"]["text"]


def test_settings_are_offered_with_the_bounds_that_are_checked(served):
    _, state = served.ask("/api/state")
    (offered,) = state["models"]
    assert list(offered["modes"]) == ["chat", "prompt", "text"]
    by_name = {setting["name"]: setting for setting in offered["modes"]["prompt"]}
    assert by_name["max_new_tokens"] | {"default": 0} == {
        "name": "max_new_tokens",
        "text": texts(Writing)["max_new_tokens"],
        "default": 0,
        "is_whole": True,
        "may_be_none": False,
        "least": 1,
        "most": LIMITS.new_tokens,
    }
    for name, setting in by_name.items():
        if setting["most"] is not None:
            status, said = served.ask("/api/ask", prompt(**{name: setting["most"] + 1}))
            assert status == 400
            assert f"{name} must be at most {setting['most']}" in said["error"]


def test_models_of_one_name_are_told_apart(serving):
    def named(word):
        return ServedModel("tiny", {"text": Mode((), lambda text, settings, job: job.tell("text", text=word))})

    served = serving(named("first"), named("second"))
    _, state = served.ask("/api/state")
    names = [each["name"] for each in state["models"]]
    words = [served.events({"model": name, "mode": "text", "text": "x"})[-1]["text"] for name in names]
    assert words == ["first", "second"]


# who may ask

PATHS = ("/", "/app.bundle.js", "/api/state", "/api/ask", "/nothing")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[::1", "10.0.0.1"],
)
def test_a_host_that_is_not_this_machine_is_refused(served, host):
    for path in PATHS:
        method = "POST" if path.startswith("/api") else "GET"
        status, said = served.ask(path, method=method, host=host, origin=None)
        assert (status, list(said)) == (403, ["error"])


def test_this_machine_has_several_names(served):
    for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost.", "127.0.0.1:1"):
        host = name if ":1" in name and "]" not in name else f"{name}:{served.page.port}"
        expected = 403 if name == "localhost." else 200
        assert served.ask("/api/state", host=host, origin=f"http://{host}")[0] == expected


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "https://{host}", "http://localhost:1", "file://", "http://{host}.evil"]
)
def test_another_origin_is_refused_whatever_it_asks(served, origin):
    for path in PATHS:
        method = "POST" if path.startswith("/api") else "GET"
        status, said = served.ask(path, method=method, origin=origin.format(host=served.host))
        assert (status, list(said)) == (403, ["error"])


def test_a_request_that_a_browser_tells_is_another_sites_is_refused(served):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        assert served.ask("/api/state", origin=None, sec_fetch_site=site)[0] == status


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x", "Bearer é"]
)
def test_without_the_token_nothing_is_told(served, given):
    given = given and given.format(token=served.page.token).encode("latin-1")
    for name in ("state", "ask", "stop", "run", "view", "save", "open", "recall", "forget", "nothing"):
        status, said = served.ask(f"/api/{name}", authorization=given)
        assert (status, list(said)) == (401, ["error"])


def test_each_run_has_a_token_of_its_own(served, serving):
    other = serving()
    assert other.page.token != served.page.token
    assert served.ask("/api/state", authorization=f"Bearer {other.page.token}")[0] == 401


def test_the_token_stands_behind_the_fragment_sign_alone(served):
    before, _, fragment = served.page.address.partition("#")
    assert (before, fragment) == (f"http://{served.host}/", f"token={served.page.token}")
    for path in (f"/api/state?token={served.page.token}", f"/{served.page.token}/api/state"):
        assert served.ask(path, authorization=None)[0] in (401, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/..%2f..%2f..%2fpyproject.toml",
        "/../app.js",
        "/%2e%2e/server/app.py",
        "/app.js",
        "/app/words.js",
        "/node_modules/esbuild/package.json",
        "//etc/passwd",
        "/api/../api/state",
        "/api/%2e%2e%2fstate",
        "/index.html%00.js",
        "/.",
    ],
)
def test_no_path_leads_to_a_file_that_is_not_the_pages(served, path):
    status, said = served.ask(path, b"", method="GET", content_type=None)
    assert (status, list(said)) == (404, ["error"])


def test_the_page_is_its_files_with_headers_that_forbid_all_else(served):
    folder = Path(wire.__file__).parent / "page"
    for path, name in (("/", "index.html"), ("/app.css", "app.css"), ("/app.bundle.js", "app.bundle.js")):
        connection, response = served.open(path, b"", method="GET", authorization=None, content_type=None, origin=None)
        with contextlib.closing(connection):
            assert response.read() == (folder / name).read_bytes()
        assert_forbidding(response.headers)
    # of errors too
    for refused in ({"origin": EVIL}, {"authorization": None}, {"content_type": "text/plain"}):
        connection, response = served.open("/api/state", **refused)
        with contextlib.closing(connection):
            assert_forbidding(response.headers)


def assert_forbidding(headers):
    rules = dict(rule.strip().partition(" ")[::2] for rule in headers["content-security-policy"].split(";"))
    assert (rules["default-src"], rules["script-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert (rules["base-uri"], rules["form-action"], rules["style-src"]) == ("'none'", "'none'", "'self'")
    assert "unsafe" not in headers["content-security-policy"]
    wanted = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
    assert {name: headers[name] for name in wanted} == wanted
    assert not [name for name in headers if name.startswith("access-control-")]


def test_the_pages_html_has_no_script_or_style_within():
    html = (Path(wire.__file__).parent / "page" / "index.html").read_text(encoding="utf-8")
    assert "<style" not in html
    assert "style=" not in html
    assert " on" not in html.replace(" onto", "")
    assert html.count("<script") == html.count('<script type="module" src=') == 1


def test_a_preflight_is_not_granted(served):
    for origin in (EVIL, f"http://{served.host}"):
        connection, response = served.open("/api/ask", b"", method="OPTIONS", origin=origin, authorization=None)
        with contextlib.closing(connection):
            assert response.status in (401, 403)
            assert not [name for name in response.headers if name.startswith("access-control-")]


def test_a_socket_is_refused(served):
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    for path in ("/", "/api/ask", "/ws"):
        status, _ = served.ask(path, b"", method="GET", origin=EVIL, sec_websocket_key="AAAA", **upgrade)
        assert status == 403


def test_a_socket_that_reaches_the_guard_is_closed():
    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(None, token="x", names=None)
    with pytest.raises(StopIteration):
        guard({"type": "websocket"}, None, send).send(None)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("name", [None, frozenset({"192.168.7.7"})])
def test_on_a_network_it_goes_by_addresses_and_no_others_name(name):
    guard = Guard(None, token="x", names=name)
    hosts = ["192.168.7.7:80", "[fe80::1]:80", "localhost", "evil.example", "192.168.7.7.evil.example"]
    wanted = [True, True, True, False, False] if name is None else [True, False, False, False, False]
    assert [guard._is_ours(host) for host in hosts] == wanted


# how much


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"],
)
def test_anything_but_json_is_refused(served, content_type):
    for name in ("state", "ask", "view"):
        status, said = served.ask(f"/api/{name}", prompt(), content_type=content_type)
        assert (status, list(said)) == (415, ["error"])
    assert served.ask("/api/open", b"x", content_type=JSON)[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": "\\ud800"}',
        b'{"a": 1' + b"0" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_object_is_refused(served, body):
    status, said = served.ask("/api/ask", body)
    assert (status, list(said)) == (400, ["error"])
    assert len(said["error"]) < 400


def test_half_a_surrogate_pair_is_no_text(served):
    for change in ({"text": "a\ud800"}, {"model": "\udfff"}):
        status, said = served.ask("/api/ask", prompt() | change)
        assert (status, "not valid JSON" in said["error"]) == (400, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 1, not -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"max_new_tokens": 10**12}, "max_new_tokens must be at most"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens must be a whole number"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": -0.5}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "NaN is no number of JSON"),
        ({"temperature": float("inf")}, "Infinity is no number of JSON"),
        ({"top_p": 2}, "top_p must be at most 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"num_beams": 4}, "no setting 'num_beams'"),
        ({"n": 100}, "no setting 'n'"),
        ({"stream": 1}, "no setting 'stream'"),
    ],
)
def test_settings_out_of_range_are_told(served, settings, says):
    status, said = served.ask("/api/ask", prompt(**settings))
    assert status == 400
    assert says in said["error"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"temperature": "1e999"}, "finite"), ({"top_p": "0"}, "above 0"), ({"repetition_penalty": "-1"}, "above 0")],
)
def test_what_the_model_refuses_is_told_in_the_stream(served, settings, says):
    ((name, value),) = settings.items()
    body = json.dumps(prompt(**{name: 77})).replace("77", value).encode()
    status, data = served.ask("/api/ask", body)
    assert status == 200
    last = json.loads(data.strip().split(b"\n")[-1])
    assert last["type"] == "error"
    assert says in last["error"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "gpt2"}, 404),
        ({"model": "../smollm2"}, 404),
        ({"model": 3}, 400),
        ({"mode": "source"}, 400),
        ({"mode": "evil"}, 400),
        ({"text": 3}, 400),
        ({"text": None}, 400),
        ({"settings": []}, 400),
        ({"more": 1}, 400),
    ],
)
def test_a_question_that_is_none_is_told(served, change, status):
    found, said = served.ask("/api/ask", prompt() | change)
    assert (found, list(said)) == (status, ["error"])


def test_the_unknown_is_not_found(served):
    for path, body in (
        ("view", {"reading": "0" * 16, "message": {"type": "mean", "kind": "decoder", "measure": "weights"}}),
        ("save", {"reading": "x", "suffix": ".safetensors"}),
        ("recall", {"entry": 1}),
    ):
        assert served.ask(f"/api/{path}", body)[0] == 404
    assert served.ask("/api/stop", {"job": "x"}) == (200, {})
    assert served.ask("/api/ask", method="GET")[0] == 405


def test_a_prompt_of_a_million_tokens_is_refused_at_once(served, serving, model):
    began = time.monotonic()
    status, said = served.ask("/api/ask", prompt() | {"text": "a " * 1_000_000})
    assert (status, "longer than" in said["error"]) == (413, True)
    # and where the body is let through
    generous = serving(serve_language_model(model), limits=replace(LIMITS, body=1 << 24))
    status, said = generous.ask("/api/ask", prompt() | {"text": "a " * 1_000_000})
    assert (status, "2,000,000 characters" in said["error"]) == (413, True)
    events = served.events(prompt() | {"text": "a " * 90_000})
    assert events[-1]["type"] == "error"
    assert "tokens; this page takes at most 32,768" in events[-1]["error"]
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("path", ["/api/ask", "/api/open"])
def test_a_body_without_end_is_cut_off(serving, path):
    served = serving(limits=replace(LIMITS, body=1 << 16, file=1 << 16))
    connection = http.client.HTTPConnection("127.0.0.1", served.page.port, timeout=20)
    kind = JSON if path == "/api/ask" else "application/octet-stream"
    with contextlib.closing(connection):
        connection.putrequest("POST", path, skip_host=True)
        for name, value in {**served.headers(content_type=kind), "transfer-encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        sent = 0
        with contextlib.suppress(ConnectionError):
            # it never says that it is done
            while sent < 1 << 25:
                connection.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                sent += 0x4000
        assert sent < 1 << 25
    assert served.ask("/api/state")[0] == 200


def test_a_length_that_is_a_lie_changes_nothing(serving):
    served = serving(limits=replace(LIMITS, body=100))
    assert served.ask("/api/ask", b" " * 101)[0] == 413
    assert served.ask("/api/state", b"{}" + b" " * 98)[0] == 200


def test_a_body_that_does_not_come_is_given_up(serving):
    served = serving(limits=replace(LIMITS, body_seconds=0.2))
    connection = http.client.HTTPConnection("127.0.0.1", served.page.port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/api/ask", skip_host=True)
        for name, value in {**served.headers(), "content-length": "50"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"{")
        response = connection.getresponse()
        assert (response.status, list(json.loads(response.read()))) == (408, ["error"])


def test_a_reading_too_large_for_the_page_is_told_and_the_answer_stays(serving, model):
    served = serving(serve_language_model(model, replace(LIMITS, reading=1000)))
    events = served.events(prompt())
    assert "".join(event["text"] for event in events if event["type"] == "text")
    assert events[-1]["type"] == "error"
    assert "MiB that this page reads" in events[-1]["error"]


def test_the_newest_readings_stay_open(serving, model):
    size = sum(
        table.nbytes
        for _, table in model.read_written("one two", model.generate("one two", max_new_tokens=4)).tensors()
    )
    # the norms of values stand beside the weights
    served = serving(serve_language_model(model), limits=replace(LIMITS, readings=5 * size))
    ids = [served.events(prompt())[-1]["reading"]["id"] for _ in range(4)]
    message = {"type": "mean", "kind": "decoder", "measure": "weights"}
    found = [served.ask("/api/view", {"reading": id, "message": message})[0] for id in ids]
    assert found == [404, 404, 200, 200]


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\xff" * 8 + b"{}", b"PK\x03\x04" + bytes(60)])
def test_a_file_that_is_no_reading_is_told(served, data):
    status, said = served.ask("/api/open", data, content_type="application/octet-stream")
    assert status == 400
    assert said["error"].startswith("this file: not a readable reading")
