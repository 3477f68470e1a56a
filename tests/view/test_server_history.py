"""The history: in the user's own file, bounded, and nowhere if it is not wanted."""

import sqlite3
import stat
from dataclasses import replace

import pytest

from regard.errors import RegardError
from regard.view.server.history import History
from regard.view.server.limits import LIMITS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "history.sqlite3"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_read_it(path):
    history = History(path, LIMITS)
    history.add(b"x" * 100_000, model="tiny", title="one")
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    # what was open to all is closed when it is used again
    path.parent.chmod(0o755)
    path.chmod(0o644)
    History(path, LIMITS)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)


def test_what_is_kept_is_there_the_next_time_the_newest_first(path):
    first = History(path, LIMITS)
    numbers = [first.add(f"file {number}".encode(), model="tiny", title=f"<b>{number}") for number in range(3)]
    second = History(path, LIMITS)
    found = second.entries()
    assert [(each["entry"], each["model"], each["title"]) for each in found] == [
        (number, "tiny", f"<b>{place}") for place, number in reversed(list(enumerate(numbers)))
    ]
    assert all(each["made"].endswith("+00:00") for each in found)
    assert [second.get(number) for number in numbers] == [(f"<b>{n}", f"file {n}".encode()) for n in range(3)]


def test_the_oldest_are_dropped_by_number_and_by_size(path):
    history = History(path, replace(LIMITS, history_entries=3, history=10))
    for size in (1, 1, 1, 1):
        history.add(b"x" * size, model="", title=str(size))
    assert len(history.entries()) == 3
    history.add(b"x" * 8, model="", title="8")
    assert [each["title"] for each in history.entries()] == ["8", "1", "1"]
    history.add(b"x" * 9, model="", title="9")
    assert [each["title"] for each in history.entries()] == ["9"]


def test_a_new_file_replaces_the_old_one_but_brings_nothing_forgotten_back(path):
    history = History(path, LIMITS)
    one, other = (history.add(b"old", model="m", title=title) for title in "ab")
    history.forget(other)
    for entry in (one, other):
        history.replace(entry, b"new")
    assert history.get(one) == ("a", b"new")
    assert [each["entry"] for each in history.entries()] == [one]


def test_what_is_forgotten_is_no_longer_in_the_file(path):
    history = History(path, LIMITS)
    kept, secret = (history.add(text * 9000, model="m", title="t") for text in (b"harmless", b"a-secret"))
    assert b"a-secret" in path.read_bytes()
    history.forget(secret)
    assert b"a-secret" not in path.read_bytes()
    assert [each["entry"] for each in history.entries()] == [kept]
    with pytest.raises(KeyError):
        history.get(secret)
    history.forget(None)
    assert history.entries() == []
    assert b"harmless" not in path.read_bytes()


@pytest.mark.parametrize("content", [b"no database " * 400, b"SQLite format 3\x00" + bytes(4000)])
def test_a_file_that_is_no_history_is_told_and_left(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RegardError, match=r"the history cannot be used: .*--no-history"):
        History(path, LIMITS)
    assert path.read_bytes() == content


def test_a_newer_history_is_left(path):
    History(path, LIMITS)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(RegardError, match="a newer version of Regard made it"):
        History(path, LIMITS)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RegardError, match="cannot be used"):
        History(tmp_path / "file" / "history.sqlite3", LIMITS)
