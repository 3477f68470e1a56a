"""Text that is shown as it comes: whole characters, and no piece of a stop text."""

import itertools

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders

from regard.generation.streaming import TextStream

EMOJI = "👨‍👩‍👧 🇫🇷🇩🇪 👍🏽 ❤️ 1️⃣"
TEXTS = [
    "Plain words.",
    "日本語の文 漢字",
    EMOJI,
    "한국어 한국어",
    "é e\u0301 ñ n\u0303\u0323",
    "नमस्ते ไทย",
    "a\r\nb\n\nc\td",
    "\u200d\u0301 \ufeffx",
    "",
]
CHARACTERS = st.sampled_from(
    [*"ab \n\r", "é", "e\u0301", "日", "👍", "🏽", "👨‍👩‍👧", "\u200d", "🇫", "🇷", "ᄒ", "ᅡ", "ᆫ", "\ufe0f"]
)


def byte_tokens(data, cuts):
    """Ids that stand for pieces of some bytes, and what decodes them: as byte-level tokenizers do."""
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(borders)]
    return list(range(len(pieces))), lambda ids: b"".join(pieces[id] for id in ids).decode("utf-8", "replace")


def streamed(ids, decode, stops=()):
    stream = TextStream(decode, stops)
    pieces = [stream.add(id) for id in ids]
    pieces.append(stream.finish())
    assert "".join(pieces) == stream.text
    return stream, pieces


def borders(pieces):
    """Where in the whole text pieces end."""
    ends, length = set(), 0
    for piece in pieces:
        length += len(piece)
        ends.add(length)
    return ends


def grapheme_borders(text):
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_what_is_shown_is_whole_characters_and_all_of_them(text, size):
    data = text.encode()
    stream, pieces = streamed(*byte_tokens(data, range(0, len(data), size)))
    assert stream.text == text
    assert borders(pieces) <= grapheme_borders(text)
    assert not any("\ufffd" in piece for piece in pieces)


@given(text=st.lists(CHARACTERS, max_size=24).map("".join), cuts=st.lists(st.integers(0, 200), max_size=60))
def test_however_tokens_cut_the_bytes_characters_stay_whole(text, cuts):
    stream, pieces = streamed(*byte_tokens(text.encode(), cuts))
    assert stream.text == text
    assert borders(pieces) <= grapheme_borders(text)


@given(data=st.binary(max_size=30), cuts=st.lists(st.integers(0, 40), max_size=30))
def test_bytes_that_are_no_text_are_shown_as_the_whole_of_them_decodes(data, cuts):
    stream, _ = streamed(*byte_tokens(data, cuts))
    assert stream.text == data.decode("utf-8", "replace")


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 60), max_size=30),
)
@example(text="abca", stops=["abc", "b"], cuts=[])
@example(text="abca", stops=["bc", "abc"], cuts=[1])
def test_a_stop_text_cuts_exactly_however_it_is_spread_over_tokens(text, stops, cuts):
    stream, _ = streamed(*byte_tokens(text.encode(), cuts), stops=stops)
    # letter by letter, it ends as soon as any stop text is whole; the longest one that ends there
    wanted, stopped = text, False
    for end in range(1, len(text) + 1):
        whole = [stop for stop in stops if text[:end].endswith(stop)]
        if whole:
            wanted, stopped = text[: end - max(map(len, whole))], True
            break
    assert (stream.text, stream.stopped) == (wanted, stopped)


def test_nothing_is_added_after_a_stop_text():
    stream = TextStream(lambda ids: "".join("ab.cd"[id] for id in ids), ["."])
    assert [stream.add(id) for id in range(5)] == ["", "a", "b", "", ""]
    assert stream.finish() == ""
    assert stream.text == "ab"


def test_words_are_shown_before_the_text_ends():
    words = ["The", " capital", " is", " Paris", ".", "\n", "So"]
    stream = TextStream(lambda ids: "".join(words[id] for id in ids))
    # the last letter may yet get an accent
    assert [stream.add(id) for id in range(7)] == ["Th", "e capita", "l i", "s Pari", "s", ".\n", "S"]
    assert stream.finish() == "o"


def test_a_tokenizer_that_falls_back_to_bytes_shows_whole_characters_too():
    """SentencePiece's bytes: none of a run is text before all of it is."""
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokens = ["▁say", *(f"<0x{byte:02X}>" for byte in "日本🙂".encode()), "▁now"]
    stream, pieces = streamed(range(len(tokens)), lambda ids: decoder.decode([tokens[id] for id in ids]))
    assert stream.text == " say日本🙂 now"
    assert borders(pieces) <= grapheme_borders(stream.text)
    assert not any("\ufffd" in piece for piece in pieces)


def test_words_of_a_tokenizer_keep_the_spaces_between_them():
    """The first word of what is decoded has none before it."""
    decoder = decoders.Metaspace()
    tokens = ["▁Hello", "▁wor", "ld", ",", "▁again"]
    stream, _ = streamed(range(len(tokens)), lambda ids: decoder.decode([tokens[id] for id in ids]))
    assert stream.text == "Hello world, again"
