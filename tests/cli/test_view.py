"""`regard view`: the page of named models and readings, on a port of this machine."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import regard

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


class Running:
    """The command, and the page that it serves."""

    def __init__(self, *arguments, home, opener="true"):
        command = [sys.executable, "-m", "regard", "view", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(home), "BROWSER": opener}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        assert self.address, self.end()
        self.page, self.token = self.address.split("#token=")
        self.port = int(self.page.rstrip("/").rpartition(":")[2])

    def ask(self, name, body=None, host="127.0.0.1"):
        with contextlib.closing(http.client.HTTPConnection(host, self.port, timeout=30)) as connection:
            headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
            connection.request("POST", f"/api/{name}", json.dumps(body or {}), headers)
            lines = connection.getresponse().read().split(b"\n")
        return [json.loads(line) for line in lines if line]

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self):
        """Its exit code, what else it printed, and what it told."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        written, told = self.process.communicate(timeout=30)
        return self.process.returncode, written.decode(), told.decode()


@pytest.fixture
def running(tmp_path):
    """Runs `regard view` with these arguments, to the test's end."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            started = Running(*arguments, "--no-browser", home=tmp_path / "home")
            stack.callback(started.kill)
            return started

        yield start


def test_a_translator_is_asked_as_the_command_line_translates(running, runs):
    page = running(runs["bahdanau"], "--port", 0, "--no-history")
    (state,) = page.ask("state")
    assert [(each["name"], list(each["modes"])) for each in state["models"]] == [("bahdanau", ["source"])]
    names = [setting["name"] for setting in state["models"][0]["modes"]["source"]]
    assert names == ["num_beams", "length_penalty", "max_new_tokens"]
    for settings in ({}, {"num_beams": 3, "length_penalty": 0.6, "max_new_tokens": 9}):
        asked = {"model": "bahdanau", "mode": "source", "text": "one hundred and two", "settings": settings}
        *_, text, reading = page.ask("ask", asked)
        wanted = regard.load(runs["bahdanau"]).translate("one hundred and two", **settings).text
        assert (text["text"], reading["reading"]["header"]["sequences"]["target"]["text"]) == (wanted, wanted)
    (error,) = page.ask("ask", asked | {"settings": {"num_beams": 1000}})
    assert error["error"] == "num_beams must be at most 16 on this page, not 1000"
    assert page.end() == (130, "", "regard: interrupted\n")


def test_a_model_without_attention_is_told(running, runs):
    page = running(runs["rnn"], "--port", 0)
    *_, last = page.ask("ask", {"model": "rnn", "mode": "source", "text": "one"})
    assert last["type"] == "error"
    assert "attention" in last["error"]


def test_readings_and_models_are_named_side_by_side(running, runs, tmp_path):
    path = tmp_path / "a reading.safetensors"
    regard.read(runs["transformer"], source="one hundred").save(path)
    page = running(path, runs["transformer"], "--port", 0, "--lang", "zh")
    (state,) = page.ask("state")
    assert [each["title"] for each in state["readings"]] == ["one hundred"]
    assert [each["name"] for each in state["models"]] == ["transformer"]
    assert state["language"] == "zh"


def test_the_history_is_kept_from_one_time_to_the_next_unless_it_is_not_wanted(running, runs, tmp_path):
    arguments = (runs["bahdanau"], "--port", 0)
    asked = {"model": "bahdanau", "mode": "source", "text": "one hundred"}
    first = running(*arguments, "--no-history")
    assert first.ask("ask", asked)[-1]["entry"] is None
    assert first.ask("state")[0]["history"] is None
    first.end()
    assert not (tmp_path / "home").exists()
    second = running(*arguments)
    header = second.ask("ask", asked)[-1]["reading"]["header"]
    second.end()
    third = running(*arguments)
    (entry,) = third.ask("state")[0]["history"]
    assert (entry["title"], entry["model"]) == ("one hundred", "bahdanau")
    (recalled,) = third.ask("recall", {"entry": entry["entry"]})
    assert (recalled["header"], recalled["live"]) == (header, False)
    (path,) = (tmp_path / "home").rglob("history.sqlite3")
    assert [place.stat().st_mode & 0o777 for place in (path.parent, path)] == [0o700, 0o600]


def test_a_port_that_is_taken_is_told(cli, running):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("view", "--port", port, "--no-browser", "--no-history")
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"regard: --port {port} is taken by another program; choose another, or --port 0 for any that is free\n"
        )


def test_without_a_port_the_next_free_one_is_taken_and_told(running):
    first = running("--no-history")
    second = running("--no-history")
    assert second.port > first.port >= 8765
    assert second.end()[2].startswith(f"port 8765 is taken; this is port {second.port}\n")


def test_it_listens_for_this_machine_alone_unless_it_is_told_otherwise(running):
    page = running("--port", 0, "--no-history")
    assert page.page == f"http://127.0.0.1:{page.port}/"
    with pytest.raises(OSError):
        # the whole of 127/8 is this machine, but only one address of it was asked for
        socket.create_connection(("127.0.0.2", page.port), timeout=5).close()
    assert "warning" not in page.end()[2]
    wide = running("--port", 0, "--no-history", "--host", "0.0.0.0")
    assert wide.ask("state", host="127.0.0.2")[0]["models"] == []
    assert wide.end()[2].startswith("warning: others on the network can reach this page.")


def test_ipv6_works_where_there_is_any(running):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    page = running("--port", 0, "--no-history", "--host", "::1")
    assert page.page == f"http://[::1]:{page.port}/"
    assert page.ask("state", host="::1")[0]["models"] == []
    assert "warning" not in page.end()[2]


def test_the_browser_is_opened_at_the_address_unless_it_is_told_not_to(tmp_path):
    opened, script = tmp_path / "opened", tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    script.chmod(0o700)
    for arguments in (["--no-browser"], []):
        page = Running("--port", 0, "--no-history", *arguments, home=tmp_path, opener=str(script))
        end = time.monotonic() + 10
        while not opened.exists() and not arguments and time.monotonic() < end:
            time.sleep(0.02)
        assert page.ask("state")
        assert page.end()[0] == 130
        assert opened.exists() == (arguments == [])
    assert opened.read_text().strip() == page.address


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--port", "-1"], 2, "--port"),
        (["--port", "65536"], 2, "--port"),
        (["--port", "http"], 2, "--port"),
        (["--lang", "fr"], 2, "--lang"),
        (["--browser"], 2, "--browser"),
        (["./nowhere"], 1, "./nowhere: there is no such run, Hugging Face folder or GGUF file"),
        (["nowhere.safetensors"], 1, "nowhere.safetensors: there is no such file"),
        (["--host", "192.0.2.1", "--no-history"], 1, "--host 192.0.2.1: cannot listen there"),
        (["--host", "", "--no-history"], 1, "--host is empty, which would be every address of this machine"),
        (["--host", " ", "--no-history"], 1, "--host is empty"),
        (["--host", "\ud800", "--no-history"], 1, "--host '\\ud800': not the name of a host"),
        (["--host", "x" * 99, "--no-history"], 1, "not the name of a host"),
        (["--host", "no.such.host.invalid", "--no-history"], 1, "--host no.such.host.invalid: cannot listen there"),
    ],
)
def test_what_cannot_be_is_told(cli, arguments, code, says):
    done = cli("view", *arguments, "--no-browser")
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert "Traceback" not in done.err


def test_help_waits_for_nothing_heavy():
    script = (
        "import sys\nsys.argv = ['regard', 'view', '--help']\nfrom regard.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "heavy = {'torch', 'numpy', 'starlette', 'uvicorn', 'sqlite3', 'transformers'}\n"
        "print(*(heavy & set(sys.modules)), file=sys.stderr, end='')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "--no-history" in done.stdout
