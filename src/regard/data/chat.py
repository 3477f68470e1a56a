"""Conversations to learn answers from: lists of messages, or questions with answers, in files of records.

Each becomes one text, the JSON of its messages, so that it is split, normalised and kept as any document is.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regard.data.columnar import column_names
from regard.data.columns import CHATS, MESSAGES, TEXT_NAMES, Columns
from regard.data.formats import FORMATS
from regard.data.json_records import read_records
from regard.data.lines import check_whole, read_lines, tell_once
from regard.data.messages import Message, check_conversation
from regard.data.packing import display_name, file_suffix
from regard.errors import RegardError

JSON, TABLES, COLUMNAR = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv"), (".parquet", ".arrow", ".feather")
# characters of a first line that may hold the names of columns
LONGEST_HEADER = 1000


def holds_chats(path: Path | str) -> bool:
    """Whether a file holds conversations, by the names of its first record. Raises RegardError as its format does."""
    return _columns(path) is not None


def read_chats(path: Path | str) -> Iterator[str]:
    """The messages of each conversation as JSON; a question or an answer that is blank is left out and told of.

    Raises RegardError, with the place, for what is no conversation or has no answer.
    """
    columns = _columns(path)
    if columns is None:
        wanted = ", ".join(" and ".join(names) for names in CHATS)
        raise RegardError(f"{display_name(path)}: holds no conversations, which other files here do; name {wanted}")
    blank = 0
    for where, messages in _conversations(path, columns):
        if messages is None:
            blank += 1
        else:
            check_conversation(messages, where)
            text = chat_text(messages)
            check_whole(text, where)
            yield text
    if blank:
        tell_once("%s: conversations skipped because a question or an answer is blank: %d", display_name(path), blank)


def chat_text(messages: list[Message]) -> str:
    """A conversation as a text, the same for the same messages."""
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def chat_messages(text: str) -> list[Message]:
    """The messages of a `chat_text`."""
    return json.loads(text)


def contents(text: str) -> str:
    """All that is said in a `chat_text`."""
    return "\n".join(message.get("content") or "" for message in chat_messages(text))


def questions(text: str) -> str:
    """All that is asked in a `chat_text`; conversations that ask the same belong into one split."""
    return "\n".join(message.get("content") or "" for message in chat_messages(text) if message["role"] != "assistant")


def _columns(path: Path | str) -> Columns | None:
    """Where a file has its conversations; None where it has none."""
    suffix = file_suffix(path)
    if suffix in JSON:
        record = next(read_records(path), ("", None))[1]
        present = list(record) if isinstance(record, dict) else []
    elif suffix in TABLES:
        line = next((line for line in read_lines(path, "documents") if line.strip()), "")
        present = [name.strip(' "') for name in re.split(r"[,;\t]", line[:LONGEST_HEADER])]
    elif suffix in COLUMNAR:
        present = column_names(path)
    else:
        return None
    spelt = {name.lower(): name for name in present}
    if spelt.keys().isdisjoint(TEXT_NAMES):
        for names in CHATS if suffix not in TABLES else CHATS[1:]:
            if spelt.keys() >= set(names):
                return Columns(names, tuple(spelt[name] for name in names))
    return None


def _conversations(path: Path | str, columns: Columns) -> Iterator[tuple[str, list[Message] | None]]:
    """Where each one is, and its messages; None for a question or an answer that is blank."""
    suffix = file_suffix(path)
    if suffix in JSON:
        for where, record in read_records(path):
            yield where, _of_record(record, columns, where)
        return
    # in a table blank lines are rows too, as they are in read_table
    for row, texts in enumerate(FORMATS[suffix](path, columns), 1):
        where = f"{display_name(path)}: row {row}"
        yield where, json.loads(texts[0] or "null") if columns.names == MESSAGES else _asked(*texts)


def _of_record(record: Any, columns: Columns, where: str) -> list[Message] | None:
    if not isinstance(record, dict) or any(key not in record for key in columns.keys):
        wanted = " and ".join(f'"{key}"' for key in columns.keys)
        raise RegardError(f"{where}: needs {wanted}, as the first record of the file has")
    if record.get("tools"):
        raise RegardError(f"{where}: it has tools, which are not learned from; write them into a message of the system")
    values = [record[key] for key in columns.keys]
    if columns.names == MESSAGES:
        return values[0]
    for key, value in zip(columns.keys, values, strict=True):
        if not isinstance(value, str | None):
            raise RegardError(f'{where}: "{key}" must be a text, not {type(value).__name__}')
    return _asked(*(value or "" for value in values))


def _asked(question: str, answer: str) -> list[Message] | None:
    if not question.strip() or not answer.strip():
        return None
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
