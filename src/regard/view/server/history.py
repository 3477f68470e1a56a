"""The newest readings in a file of the user's own, which nobody else may read."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from regard.errors import RegardError
from regard.view.server.limits import Limits

VERSION = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS readings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    made TEXT NOT NULL,
    model TEXT NOT NULL,
    title TEXT NOT NULL,
    file BLOB NOT NULL
);
PRAGMA user_version = {VERSION};
"""


@final
class History:
    """An SQLite database: the readings as the files that `Reading.save` writes, oldest dropped."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Opens or makes it, its folder too. Raises RegardError where that cannot be done."""
        self.path = path
        self._limits = limits
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.chmod(0o700)
            # made before SQLite would make it for all to read; its journals take on the file's mode
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise self._unusable(error.strerror or error) from None
        with self._open() as database:
            if database.execute("PRAGMA user_version").fetchone()[0] > VERSION:
                raise self._unusable("a newer version of Regard made it")
            database.executescript(SCHEMA)

    def add(self, file: bytes, *, model: str, title: str) -> int | None:
        """Keep a reading and return its number."""
        made = datetime.now(UTC).isoformat(timespec="seconds")
        with self._open() as database:
            added = database.execute(
                "INSERT INTO readings (made, model, title, file) VALUES (?, ?, ?, ?)", (made, model, title, file)
            )
            # the newest that are few enough and, together, small enough
            database.execute(
                "DELETE FROM readings WHERE id NOT IN (SELECT id FROM (SELECT id, SUM(LENGTH(file)) OVER newest AS "
                "size, ROW_NUMBER() OVER newest AS place FROM readings WINDOW newest AS (ORDER BY id DESC)) "
                "WHERE place <= ? AND size <= ?)",
                (self._limits.history_entries, self._limits.history),
            )
        return added.lastrowid

    def replace(self, entry: int, file: bytes) -> None:
        """Keep a reading's new file in place of its old one, unless it was forgotten."""
        with self._open() as database:
            database.execute("UPDATE readings SET file = ? WHERE id = ?", (file, entry))

    def entries(self) -> list[dict[str, Any]]:
        """Number, time (UTC), model and title of each, the newest first."""
        with self._open() as database:
            rows = database.execute("SELECT id, made, model, title FROM readings ORDER BY id DESC").fetchall()
        return [dict(zip(("entry", "made", "model", "title"), row, strict=True)) for row in rows]

    def get(self, entry: int) -> tuple[str, bytes]:
        """Its title and file. Raises KeyError if it is not there."""
        with self._open() as database:
            row = database.execute("SELECT title, file FROM readings WHERE id = ?", (entry,)).fetchone()
        if row is None:
            raise KeyError(entry)
        return row

    def forget(self, entry: int | None) -> None:
        """Remove one, or all, so that nothing of it stays in the file."""
        with self._open() as database:
            if entry is None:
                database.execute("DELETE FROM readings")
            else:
                database.execute("DELETE FROM readings WHERE id = ?", (entry,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as database:
                database.execute("PRAGMA secure_delete = ON")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, why: object) -> RegardError:
        return RegardError(
            f"{self.path}: the history cannot be used: {why}; move that file away, or leave it alone with --no-history"
        )
