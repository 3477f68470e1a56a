"""A line in parts: nothing is lost, every part fits, and its translations are one line again."""

from hypothesis import given
from hypothesis import strategies as st

from regard.generation.result import Generation
from regard.jobs.parts import Part, fitting_parts, joined, sentence_parts, together

TEXTS = st.text(st.sampled_from("ab é.,;!?。，、一二กิ\u0301 \n"), max_size=60)


def letters(texts):
    return "".join("".join(texts).split())


def check_parts(text, parts):
    assert letters(part.text for part in parts) == letters([text])
    for part in parts:
        assert text[part.start : part.start + len(part.text)] == part.text == part.text.strip()


@given(TEXTS.map(str.strip).filter(bool), st.integers(1, 9))
def test_parts_fit_and_lose_nothing(text, most):
    parts = fitting_parts(Part(0, text), lambda part: len(part) <= most)
    check_parts(text, parts)
    assert all(len(part.text) <= most for part in parts)
    assert len(parts) > 1 or len(text) <= most


@given(TEXTS.filter(str.strip))
def test_sentences_lose_nothing(text):
    check_parts(text, sentence_parts(text))


def test_a_text_is_divided_where_a_reader_would():
    words = "when the ferry came again, two goats were on board"
    parts = fitting_parts(Part(0, words), lambda text: len(text.split()) <= 6)
    assert [part.text for part in parts] == ["when the ferry came again,", "two goats were on board"]
    assert [part.text for part in fitting_parts(Part(0, "一二三四，五六七"), lambda text: len(text) <= 5)] == [
        "一二三四，",
        "五六七",
    ]
    assert [part.text for part in fitting_parts(Part(0, "one two three four"), lambda text: len(text) <= 10)] == [
        "one two",
        "three four",
    ]


def test_a_mark_stays_with_its_letter():
    parts = fitting_parts(Part(0, "e\u0301" * 6), lambda text: len(text) <= 5)
    assert all(part.text.startswith("e") for part in parts)


def test_sentences_of_scripts_with_spaces_are_parted_by_one_and_others_by_none():
    assert together("Il pleut.", "Il neige.") == "Il pleut. Il neige."
    assert together("下雨了。", "下雪了。") == "下雨了。下雪了。"
    assert together("비가 온다", "눈이 온다") == "비가 온다 눈이 온다"
    assert together("ฝนตก", "หิมะตก") == "ฝนตก หิมะตก"
    assert together("", "one") == together("one", "") == together(" one", " ").strip() == "one"


def test_the_translation_of_parts_is_as_likely_as_all_of_them():
    parts = [
        Generation("un", [1], score=-1.0, finished=True, log_probability=-2.0),
        Generation("deux trois", [2, 3, 4], score=-0.5, finished=False, log_probability=-2.0),
    ]
    whole = joined(parts)
    assert (whole.text, whole.tokens, whole.finished) == ("un deux trois", [1, 2, 3, 4], False)
    # by default a score is the log-probability over the tokens, each part's end among them
    assert whole.score == whole.log_probability / 6 == -4.0 / 6
    assert joined(parts[:1]) is parts[0]
