"""The page's server under load: browsers that leave, stop, come all at once, and a model that fails."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from regard.errors import RegardError

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from regard.view.server.jobs import Busy, Workers
from regard.view.server.limits import LIMITS
from regard.view.server.models import Mode, ServedModel, serve_language_model
from regard.view.server.serve import Page


class Endless:
    """A model that writes a letter every few milliseconds until it is told to stop, and counts what it does."""

    def __init__(self, name="endless", *, pause=0.005):
        self.started = self.ended = self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.pause = pause
        self.served = ServedModel(name, {"prompt": Mode((), self.answer)})

    def answer(self, text, settings, job):
        with self.lock:
            self.started += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        while job.goes_on():
            job.tell("text", text="x")
            time.sleep(self.pause)
        with self.lock:
            self.at_once -= 1
            self.ended += 1
        job.tell("written", tokens=1, finished=False, late=job.is_late)


@pytest.fixture
def serving():
    """Serves models with settings, to the test's end: the page's port, and what its browser sends."""
    with contextlib.ExitStack() as stack:

        def serve(*models, **limits):
            page = Page(models, (), port=0, keeps_history=False, limits=replace(LIMITS, **limits))
            ready = threading.Event()
            thread = threading.Thread(target=page.run, kwargs={"ready": ready.set})
            thread.start()
            assert ready.wait(10)

            def end():
                page.stop()
                thread.join(10)
                assert not thread.is_alive()

            stack.callback(end)
            return page

        yield serve


def ask(page, body, *, path="/api/ask"):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    headers = {"authorization": f"Bearer {page.token}", "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    return connection, connection.getresponse()


def events(response):
    for line in response:
        if line.strip():
            yield json.loads(line)


def question(model="endless"):
    return {"model": model, "mode": "prompt", "text": "x"}


def soon(condition, *, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def leave(connection, response):
    """As a browser whose tab is closed."""
    response.close()
    connection.close()


def test_the_model_stops_each_of_100_times_when_the_browser_leaves_in_mid_stream(serving):
    model = Endless()
    page = serving(model.served)
    for number in range(1, 101):
        connection, response = ask(page, question())
        kinds = [next(events(response))["type"] for _ in range(4)]
        assert kinds == ["job", "started", "text", "text"]
        leave(connection, response)
        soon(lambda number=number: model.ended == number)
    soon(lambda: page.api.workers.count() == 0)
    assert (model.started, page.api.jobs) == (100, {})


def test_what_waits_is_forgotten_when_its_browser_leaves(serving):
    model = Endless()
    page = serving(model.served, jobs=3)
    first = ask(page, question())
    soon(lambda: model.started == 1)
    waiting = [ask(page, question()) for _ in range(2)]
    assert [next(events(response)) for _, response in waiting] == [
        {"type": "job", "job": ident, "waiting": count}
        for count, ident in zip((1, 2), list(page.api.jobs)[1:], strict=True)
    ]
    for each in waiting:
        leave(*each)
    soon(lambda: page.api.workers.count() == 1)
    leave(*first)
    soon(lambda: page.api.workers.count() == 0)
    assert model.started == 1


def test_of_50_clients_at_once_each_has_an_answer_or_is_told_to_come_again(serving):
    models = [Endless("one"), Endless("two")]
    page = serving(*(model.served for model in models), jobs=12, answer_seconds=0.05)
    found = []

    def client(number):
        connection, response = ask(page, question(("one", "two")[number % 2]))
        with contextlib.closing(connection):
            body = response.read()
        found.append((response.status, response.headers.get("retry-after"), body))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 50
    served = [body for status, _, body in found if status == 200]
    refused = [(after, json.loads(body)["error"]) for status, after, body in found if status == 503]
    assert len(served) + len(refused) == 50
    assert len(served) >= 12
    assert refused
    assert all(after == "5" and "try again" in error for after, error in refused)
    assert all(json.loads(body.strip().split(b"\n")[-1])["type"] == "written" for body in served)
    # one thread a model
    assert [model.most_at_once for model in models] == [1, 1]
    assert sum(model.ended for model in models) == len(served)
    soon(lambda: page.api.workers.count() == 0)


def test_the_server_answers_others_while_models_run(serving):
    model = Endless()
    page = serving(model.served)
    running = ask(page, question())
    soon(lambda: model.started == 1)
    connection, response = ask(page, {}, path="/api/state")
    with contextlib.closing(connection):
        assert (response.status, model.at_once) == (200, 1)
        response.read()
    leave(*running)


def test_a_stop_ends_the_writing_and_what_is_written_comes_to_its_end(serving):
    model = Endless()
    page = serving(model.served)
    connection, response = ask(page, question())
    stream = events(response)
    job = next(stream)["job"]
    connection_2, done = ask(page, {"job": job}, path="/api/stop")
    with contextlib.closing(connection_2):
        assert done.status == 200
        done.read()
    assert list(stream)[-1] == {"type": "written", "tokens": 1, "finished": False, "late": False}
    connection.close()


def test_a_stop_of_what_waits_ends_it_unwritten(serving):
    model = Endless()
    page = serving(model.served)
    running = ask(page, question())
    soon(lambda: model.started == 1)
    connection, response = ask(page, question())
    stream = events(response)
    ask(page, {"job": next(stream)["job"]}, path="/api/stop")[0].close()
    leave(*running)
    assert list(stream) == []
    assert model.started == 1
    connection.close()


def test_the_time_of_an_answer_is_bounded(serving):
    page = serving(Endless().served, answer_seconds=0.1)
    connection, response = ask(page, question())
    with contextlib.closing(connection):
        assert list(events(response))[-1] == {"type": "written", "tokens": 1, "finished": False, "late": True}


def test_a_model_that_fails_ends_its_stream_and_serves_the_next(serving, caplog):
    def answer(text, settings, job):
        if text == "x":
            raise ZeroDivisionError("a mistake of ours")
        if text == "y":
            raise RegardError("what the user did")
        job.tell("text", text=text)

    page = serving(ServedModel("endless", {"prompt": Mode((), answer)}))
    for text, type, said in (
        ("x", "error", "the model failed"),
        ("y", "error", "what the user did"),
        ("z", "text", "z"),
    ):
        connection, response = ask(page, question() | {"text": text})
        with contextlib.closing(connection):
            last = list(events(response))[-1]
        assert last["type"] == type
        assert (last.get("error") or last["text"]).startswith(said)
    assert "a mistake of ours" in caplog.text
    soon(lambda: page.api.workers.count() == 0)


def test_a_silent_stream_says_now_and_then_that_it_is_there(serving):
    def answer(text, settings, job):
        time.sleep(1.5)

    page = serving(ServedModel("endless", {"prompt": Mode((), answer)}))
    connection, response = ask(page, question())
    with contextlib.closing(connection):
        assert b"\n\n" in response.read()


def test_what_runs_in_steps_ends_after_the_step_in_which_it_is_stopped(serving):
    began, waits = threading.Event(), threading.Event()
    steps = []

    def answer(text, settings, job):
        for _ in range(3):
            steps.append(text)
            job.progress(1)
            began.set()
            waits.wait(10)

    page = serving(ServedModel("endless", {"prompt": Mode((), answer)}))
    connection, response = ask(page, question())
    stream = events(response)
    job = next(stream)["job"]
    assert began.wait(10)
    ask(page, {"job": job}, path="/api/stop")[0].close()
    soon(lambda: page.api.jobs[job].is_stopped)
    waits.set()
    assert list(stream) == [{"type": "started"}, {"type": "progress", "done": 1}]
    assert len(steps) == 2
    connection.close()


def test_the_time_of_what_runs_in_steps_is_bounded(serving):
    def answer(text, settings, job):
        time.sleep(0.02)
        job.progress(1)

    page = serving(ServedModel("endless", {"prompt": Mode((), answer)}), answer_seconds=0.01)
    connection, response = ask(page, question())
    with contextlib.closing(connection):
        assert "it took more than" in list(events(response))[-1]["error"]


def test_an_end_of_the_server_ends_its_streams(serving):
    model = Endless()
    page = serving(model.served)
    connection, response = ask(page, question())
    soon(lambda: model.started == 1)
    began = time.monotonic()
    page.stop()
    with contextlib.closing(connection), contextlib.suppress(http.client.IncompleteRead):
        response.read()
    soon(lambda: model.ended == 1)
    assert time.monotonic() - began < 5


def test_no_more_work_waits_than_may():
    workers = Workers(["one"], most=2)
    gate = threading.Event()
    futures = [workers.submit("one", gate.wait) for _ in range(2)]
    with pytest.raises(Busy, match="2 answers are under way"):
        workers.submit("one", gate.wait)
    gate.set()
    assert [future.result(5) for future in futures] == [True, True]
    soon(lambda: workers.count() == 0)
    assert workers.submit("one", lambda: 3).result(5) == 3
    workers.close()


def test_a_real_model_stops_between_two_tokens(serving, tiny_smollm2):
    import regard

    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    written = []
    generate = model.generate

    def counting(*args, **settings):
        written.append(generate(*args, **settings))
        return written[-1]

    model.generate = counting
    page = serving(serve_language_model(model))
    asked = {"model": "smollm2", "mode": "prompt", "text": "one", "settings": {"max_new_tokens": 2000}}
    connection, response = ask(page, asked)
    stream = events(response)
    assert [next(stream)["type"] for _ in range(5)] == ["job", "started", "text", "text", "text"]
    leave(connection, response)
    soon(lambda: page.api.workers.count() == 0)
    assert 3 <= len(written[0].tokens) < 2000
    # and a stop keeps and reads what there is
    connection, response = ask(page, asked)
    stream = events(response)
    job = next(stream)["job"]
    assert [next(stream)["type"] for _ in range(3)] == ["started", "text", "text"]
    ask(page, {"job": job}, path="/api/stop")[0].close()
    rest = list(stream)
    connection.close()
    assert [event["type"] for event in rest if event["type"] != "text"] == ["written", "reading"]
    assert rest[-2]["tokens"] == len(written[1].tokens) < 2000


def test_an_interruption_waits_for_the_event_loop_to_be_whole(monkeypatch):
    new, made = asyncio.events.new_event_loop, []

    def interrupted():
        signal.raise_signal(signal.SIGINT)
        made.append(new())
        return made[-1]

    monkeypatch.setattr(asyncio.events, "new_event_loop", interrupted)
    page = Page([Endless().served], (), port=0, keeps_history=False)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        page.run()
    assert [loop.is_closed() for loop in made] == [True]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("busy", [False, True])
def test_an_interruption_ends_the_command_with_130_and_no_traceback(busy, tiny_smollm2):
    command = [sys.executable, "-m", "regard", "view", str(tiny_smollm2 / "models" / "smollm2")]
    command += ["--port", "0", "--no-browser", "--no-history"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        port, token = address.removeprefix("http://127.0.0.1:").split("/#token=")
        page = type("Remote", (), {"port": int(port), "token": token})
        if busy:
            asked = {"model": "smollm2", "mode": "prompt", "text": "one", "settings": {"max_new_tokens": 2000}}
            connection, response = ask(page, asked)
            assert next(events(response))["type"] == "job"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert (process.returncode, told) == (130, b"regard: interrupted\n")
        if busy:
            connection.close()
    finally:
        process.kill()
        process.communicate()
