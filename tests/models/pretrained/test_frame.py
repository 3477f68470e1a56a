"""A question for a model without a chat template stands in a frame of its own language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.models.pretrained.frame import frame_question, split_question


@pytest.mark.parametrize("question", ["日本的首都是哪里？", "Regard 是什么软件，它能做什么？", "第1章讲了什么？"])
def test_a_question_mostly_in_chinese_is_framed_in_chinese(question):
    before, after = frame_question(question)
    assert f"{before}{question}{after}" == f"问题：{question}\n答案："


@pytest.mark.parametrize(
    "question", ["What is the capital of Japan?", "What does 你好 mean?", "東京はどこにありますか", "12 + 3", ""]
)
def test_any_other_is_framed_in_english(question):
    before, after = frame_question(question)
    assert f"{before}{question}{after}" == f"Question: {question}\nAnswer:"


@pytest.mark.parametrize(
    ("message", "question"),
    [
        ("Where is Tokyo?", "Where is Tokyo?"),
        ("Line one.\nWhere is Tokyo?", "Line one.\nWhere is Tokyo?"),
        ("One.\n\nTwo.\n\nWhere is Tokyo?", "Where is Tokyo?"),
        ("One.\r\n \t\r\n\n  Where is Tokyo?\n\n", "Where is Tokyo?\n\n"),
        ("北京是中国的首都。\n\n首都是哪里？", "首都是哪里？"),
        ("\n\n", "\n\n"),
    ],
)
def test_the_question_stands_after_the_last_blank_line(message, question):
    assert split_question(message)[1] == question


@given(st.text("a?\n \r", max_size=12))
def test_page_and_question_are_the_message_and_the_question_is_never_empty(message):
    page, question = split_question(message)
    assert page + question == message
    assert question.strip() or not message.strip()
