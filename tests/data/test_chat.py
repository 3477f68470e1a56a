"""Conversations come from files of records, are split by what they ask, and are refused where they are none."""

import json

import pytest

from regard.data.chat import chat_messages, holds_chats, read_chats
from regard.data.corpora import Corpus
from regard.data.text import Text
from regard.errors import RegardError


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


CHATS = [[user("Größe?"), assistant("Two.")], [user("And 日本?"), assistant("Far."), user("So?"), assistant("So.")]]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read(path):
    return [chat_messages(text) for text in read_chats(path)]


def refusal(path):
    with pytest.raises(RegardError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_messages_are_read_from_json_whatever_else_is_beside_them(tmp_path, name):
    records = [{"id": 1, "Messages": chat} for chat in CHATS]
    assert read(written(tmp_path, name, "\n" + lines(records))) == CHATS


def test_messages_are_read_from_a_list_of_json(tmp_path):
    assert read(written(tmp_path, "a.json", json.dumps([{"messages": chat} for chat in CHATS], indent=2))) == CHATS


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_messages_are_read_from_columns(tmp_path, ending):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    path = tmp_path / f"a.{ending}"
    # where one message has a name, pyarrow gives the others null
    named = [[CHATS[0][0] | {"name": "Ann"}, CHATS[0][1]], CHATS[1], None]
    table = pa.table({"id": [1, 2, 3], "messages": named})
    parquet.write_table(table, path) if ending == "parquet" else feather.write_feather(table, str(path))
    assert read(path) == named[:2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'Question,Answer\n"Größe, so?",Two.\nb,c\n'),
        ("a.csv", "id;question;answer\n1;Größe, so?;Two.\n2;b;c\n"),
        ("a.tsv", "prompt\tcompletion\nGröße, so?\tTwo.\n\nb\tc\n"),
        ("a.jsonl", lines([{"question": "Größe, so?", "answer": "Two."}, {"answer": "c", "question": "b"}])),
        ("a.jsonl", lines([{"prompt": "Größe, so?", "completion": "Two."}, {"prompt": "b", "completion": "c"}])),
    ],
)
def test_questions_with_answers_are_conversations_of_two_messages(tmp_path, name, text):
    assert read(written(tmp_path, name, text)) == [[user("Größe, so?"), assistant("Two.")], [user("b"), assistant("c")]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "question,answer\n"),
        ("a.csv", "text,question,answer\na,b,c\n"),
        ("a.csv", "a question,an answer\n"),
        ("a.jsonl", '{"text": "a"}\n'),
        ("a.jsonl", '"a"\n'),
    ],
)
def test_other_files_hold_no_conversations(tmp_path, name, text):
    assert not holds_chats(written(tmp_path, name, text))


def test_a_blank_answer_is_left_out_and_told_of(tmp_path, caplog):
    path = written(tmp_path, "a.csv", "question,answer\na,b\nc, \n")
    assert len(read(path)) == 1
    assert f"{path}: conversations skipped because a question or an answer is blank: 1" in caplog.text


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"from": "human", "value": "a"}], "message 1 has no role"),
        ([user("a"), "b"], "message 2 must be one such as"),
        ([user("a"), {"role": "assistant", "content": ["b"]}], "its content must be a text"),
        ([user("a"), assistant(" ")], "is empty"),
        ([user("a")], "there is no answer to learn"),
        ([], "there is no message"),
        ("a", "give a list of messages"),
        ([user("a"), assistant("\ud800")], "half a surrogate pair"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_line(tmp_path, messages, told):
    path = written(tmp_path, "a.jsonl", lines([{"messages": CHATS[0]}]) + "\n" + json.dumps({"messages": messages}))
    error = refusal(path)
    assert error.startswith(f"{path}:3: ")
    assert told in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lines([{"messages": CHATS[0]}, {"chat": CHATS[1]}]), ':2: needs "messages"'),
        (lines([{"messages": CHATS[0], "tools": [{}]}]), ":1: it has tools"),
        (lines([{"question": "a", "answer": ["b"]}]), ':1: "answer" must be a text'),
        (lines([{"text": "a"}]), "holds no conversations"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path, text, told):
    assert told in refusal(written(tmp_path, "a.jsonl", text))


def test_splits_share_no_question_and_are_in_the_normal_form(tmp_path):
    # every question has two answers, and differs from its copy in case alone
    questions = [f"{'WO' if n % 2 else 'Wo'} liegt e\u0301 {n // 2}?" for n in range(80)]
    chats = [[user(question), assistant("Da.")] for question in questions]
    path = written(tmp_path, "a.jsonl", lines([{"messages": chat} for chat in chats]))
    text = Text.from_files(path, form="NFC")
    asked = {}
    for split in ("train", "dev", "test"):
        found = [chat_messages(passage.text) for passage in text.passages(split)]
        assert found
        asked[split] = [messages[0]["content"].casefold() for messages in found]
    assert sum(map(len, asked.values())) == 80
    assert all(asked["train"].count(question) == 2 for question in asked["train"])
    assert not set(asked["train"]) & set(asked["dev"])
    assert "é" in asked["train"][0]


def test_a_long_conversation_is_one_document(tmp_path):
    chat = [user("line\n" * 30_000), assistant("b")]
    path = written(tmp_path, "a.jsonl", lines([{"messages": chat}]))
    (passage,) = Text.from_files(path, path, path).passages("train")
    assert passage.begins
    assert chat_messages(passage.text) == chat


def test_plain_text_beside_conversations_is_refused(tmp_path):
    chats, text = written(tmp_path, "a.jsonl", lines([{"messages": CHATS[0]}])), written(tmp_path, "b.txt", "a\n")
    with pytest.raises(RegardError, match=r"b\.txt: holds no conversations"):
        list(Text.from_files([str(chats), str(text)], chats, chats).passages("train"))


def test_with_a_text_key_a_file_is_read_as_text(tmp_path):
    path = written(tmp_path, "a.jsonl", lines([{"question": "a", "answer": "b"}]))
    (passage,) = Text.from_files(path, path, path, text_key="answer").passages("train")
    assert passage.text == "b"


def test_questions_and_answers_are_sentence_pairs_for_a_translator_as_before(tmp_path):
    path = written(tmp_path, "a.jsonl", lines([{"question": "a", "answer": "b"}]))
    assert list(Corpus.from_files(path, path, path).pairs("train")) == [("a", "b")]
