"""Tokenizers: round trips, offsets, words, and text that looks like special tokens."""

import errno
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from regard.data.batch import BOS, EOS, PAD, SPECIAL_TOKENS, UNKNOWN
from regard.data.tokenizer import TOKENIZERS, Tokenizer
from regard.data.words import split_words, word_spans
from regard.errors import RegardError

LINES = [
    "The quick brown fox (really) jumps over the lazy dog's back, twice.",
    "Le vif renard brun saute par-dessus le chien paresseux — deux fois !",
    "<s> </s> <unk> <pad> <s><s> are only text ▁ here",
    "敏捷的棕色狐狸跳过懒狗。 すばやい キツネ",
    "👩‍👩‍👧 שלום",
]
ANY_TEXT = st.text(alphabet=st.characters(codec="utf-8"))
SPECIALS = st.sampled_from(
    ["<s>", "</s>", "<|endoftext|>", "<unk>", "▁", "Ġ", " ", "  ", "a", "中", "👩‍👩‍👧", "\u2028", "\0"]
)
MIXED_TEXT = st.one_of(ANY_TEXT, st.lists(SPECIALS).map("".join))


@pytest.fixture(scope="module")
def bpe():
    return Tokenizer.train(LINES * 20, kind="bpe", vocab_size=400)


@pytest.fixture(scope="module")
def word():
    return Tokenizer.train(LINES, kind="word", vocab_size=1000)


@pytest.fixture(scope="module")
def character():
    return Tokenizer.train(LINES, kind="character", vocab_size=1000)


@given(text=MIXED_TEXT)
@example(text="<s>hello</s><|endoftext|><unk>")
def test_bytes_lose_nothing(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert min(ids, default=4) >= len(SPECIAL_TOKENS)
    assert bpe.decode([BOS, *ids, EOS, PAD]) == text


@given(words=st.lists(st.sampled_from([*LINES, "fox", " ", "狐", "(", ")", "▁", "<s>", "the"])))
def test_known_words_come_back_with_their_spacing(word, words):
    text = "".join(words)
    ids = word.encode(text)
    if UNKNOWN not in ids:
        assert word.decode(ids) == text
    assert all(word.decode(word.encode(line)) == line for line in LINES)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=MIXED_TEXT)
def test_no_text_produces_a_special_id(kind, bpe, word, character, text):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    made = set(tokenizer.encode(f"<s> {text}</s>")) | set(tokenizer.encode_batch([f"{text}<pad>"])[0])
    assert not made & {PAD, BOS, EOS}
    if kind == "bpe":
        assert UNKNOWN not in made


def test_an_unknown_word_keeps_its_place(word):
    ids = word.encode("The zyzzyva jumps")
    assert ids[1] == UNKNOWN
    assert word.decode(ids) == "The ⁇ jumps"
    assert word.tokens("The zyzzyva jumps")[1].text == " zyzzyva"


def test_characters_are_tokens_of_their_own_newlines_among_them_and_an_unknown_one_keeps_its_place(character):
    text = LINES[0][:9] + "\n\n☃" + LINES[0][9:]
    ids = character.encode(text)
    assert len(ids) == len(text)
    assert [(token.text, token.start, token.end) for token in character.tokens(text)] == [
        (letter, place, place + 1) for place, letter in enumerate(text)
    ]
    known = {letter for line in LINES for letter in line}
    assert [id == UNKNOWN for id in ids] == [letter not in known for letter in text]
    assert character.decode(character.encode(LINES[0] + "☃")) == LINES[0] + "⁇"


def test_words_are_marks_and_characters_of_their_own(word):
    shown = [token.text for token in word.tokens("(really) dog's 敏捷a")]
    assert shown == ["(", "really", ")", " dog", "'", "s", " ", "敏", "捷", "a"]


@given(text=MIXED_TEXT)
@example(text="狐 x")
def test_word_offsets_cover_the_text_without_gaps(word, text):
    assert "".join(text[token.start : token.end] for token in word.tokens(text)) == text


@given(text=MIXED_TEXT)
def test_byte_tokens_cover_their_characters(bpe, text):
    tokens = bpe.tokens(text)
    assert [token.id for token in tokens] == bpe.encode(text)
    covered = [index for token in tokens for index in range(token.start, token.end)]
    assert set(covered) == set(range(len(text)))
    assert covered == sorted(covered)
    for token in tokens:
        whole = text[token.start : token.end]
        # a token that is whole characters shows them as they are
        assert bpe.decode([token.id]) != whole or token.text == whole


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=MIXED_TEXT)
def test_decoded_tokens_are_those_of_the_text_they_spell(kind, bpe, word, character, text):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    ids = tokenizer.encode(text)
    if UNKNOWN not in ids:
        spans = [(token.id, token.start, token.end) for token in tokenizer.tokens(text)]
        assert [(token.id, token.start, token.end) for token in tokenizer.decode_tokens(ids)] == spans


@given(st.lists(st.integers(0, 399)))
# the ids of bytes that begin a surrogate, which UTF-8 does not have
@example(ids=[173, 98])
def test_any_ids_cover_their_text_in_order(bpe, ids):
    # a model may write half a character, or bytes that no text has
    tokens = bpe.decode_tokens(ids)
    covered = [index for token in tokens for index in range(token.start, token.end)]
    assert covered == sorted(covered)
    assert set(covered) == set(range(len(bpe.decode(ids))))
    words, indices = bpe.word_indices(ids)
    assert words == split_words(bpe.decode(ids))
    assert len(indices) == len(ids)
    assert {index for own in indices for index in own} == set(range(len(words)))


def test_a_character_that_was_broken_off_belongs_to_the_token_that_began_it(bpe):
    # the first byte of a character that is never finished, then a whole word
    begun, *after = bpe.encode("狐")[:1] + bpe.encode(" the")
    assert bpe.decode([begun, *after]) == "\ufffd the"
    assert [(token.start, token.end) for token in bpe.decode_tokens([begun, *after])] == [(0, 1), (1, 5)]
    assert bpe.word_indices([begun, *after]) == (["\ufffd", "the"], [[0], [1]])


def test_pieces_of_a_character_show_their_bytes(bpe):
    tokens = bpe.tokens("a 🦊")
    assert "".join(token.text for token in tokens).endswith("".join(f"⟨{byte:02x}⟩" for byte in "🦊".encode()))
    assert {(token.start, token.end) for token in tokens if "⟨" in token.text} == {(2, 3)}
    assert "Ġ" not in "".join(token.text for token in tokens)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=MIXED_TEXT)
def test_word_indices_agree_with_split_words_and_give_every_word_its_tokens_in_order(kind, bpe, word, character, text):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    ids = tokenizer.encode(text)
    words, (first, *inner, last) = tokenizer.word_indices([BOS, *ids, EOS])
    assert words == split_words(tokenizer.decode(ids))
    assert first == last == []
    for spelled, indices in ((words, inner), tokenizer.text_word_indices(text)):
        assert len(indices) == len(ids)
        covered = [index for own in indices for index in own]
        assert covered == sorted(covered)
        assert set(covered) == set(range(len(spelled)))
        assert all(indices) or not spelled


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=MIXED_TEXT)
def test_a_token_belongs_to_exactly_the_words_that_it_overlaps(kind, bpe, word, character, text):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    spans = word_spans(text)
    for token, own in zip(tokenizer.tokens(text), tokenizer.text_word_indices(text)[1], strict=True):
        places = set(range(token.start, token.end))
        overlapped = [index for index, (start, end) in enumerate(spans) if places & set(range(start, end))]
        after = [index for index, (start, _) in enumerate(spans) if start >= token.end]
        assert own == (overlapped or after[:1] or [len(spans) - 1][: len(spans)])


def test_each_word_gets_the_tokens_that_spell_it(bpe, word):
    for tokenizer in (bpe, word):
        ids = tokenizer.encode("The par-dessus fox  狐狸 back")
        words, indices = tokenizer.word_indices(ids)
        assert words == ["The", "par-dessus", "fox", "狐", "狸", "back"]
        for number, expected in enumerate(words):
            own = [id for id, of in zip(ids, indices, strict=True) if number in of]
            # of bytes, one token may hold the end of a character and the start of the next
            if expected.isascii() or tokenizer is word:
                assert tokenizer.decode(own).strip() == expected


def test_every_piece_of_a_character_belongs_to_that_character():
    tokenizer = Tokenizer.train(["x"], kind="bpe", vocab_size=260)
    assert tokenizer.word_indices(tokenizer.encode("é 狐🦊")) == (
        ["é", "狐", "🦊"],
        [[0], [0], [1], [1], [1], [1], [2], [2], [2], [2]],
    )


def test_a_token_over_several_words_belongs_to_all_of_them():
    tokenizer = Tokenizer.train(["狐狸", " fox"] * 9, kind="bpe", vocab_size=300)
    text = " 狐狸 fox 狐狸 "
    ids = tokenizer.encode(text)
    assert [token.text for token in tokenizer.tokens(text)] == [" ", "狐狸", " fox", " ", "狐狸", " "]
    # the last space has no word after it
    expected = ([*"狐狸", "fox", *"狐狸"], [[0], [0, 1], [2], [3], [3, 4], [4]])
    assert tokenizer.word_indices(ids) == expected
    assert tokenizer.text_word_indices(text) == expected


def test_tokens_of_a_text_without_words_belong_to_none(bpe):
    assert bpe.word_indices([BOS, *bpe.encode("  "), EOS, PAD]) == ([], [[]] * (3 + len(bpe.encode("  "))))
    assert bpe.text_word_indices("") == ([], [])


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_forms_without_accents_are_one_and_their_tokens_cover_the_words_as_they_stand(kind, form, tmp_path):
    text = unicodedata.normalize(form, "Βίβλος γενέσεως Ἰησοῦ: un café naïf, 각.")
    letters = (letter for letter in unicodedata.normalize("NFD", text) if unicodedata.category(letter) != "Mn")
    bare = unicodedata.normalize("NFC", "".join(letters))
    made = Tokenizer.train([text], kind=kind, vocab_size=400, strip_accents=True)
    made.save(tmp_path / "tokenizer.json")
    for tokenizer in (made, Tokenizer.load(tmp_path / "tokenizer.json")):
        ids = tokenizer.encode(text)
        assert ids == tokenizer.encode(bare)
        assert tokenizer.decode(ids) == bare
        words, indices = tokenizer.text_word_indices(text)
        assert (words, indices) == (split_words(text), tokenizer.text_word_indices(bare)[1])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_saved_tokenizer_is_the_same(kind, bpe, word, character, tmp_path):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert len(loaded) == len(tokenizer)
    assert loaded.kind == kind
    # a library of another make reads it too
    foreign = tokenizers.Tokenizer.from_file(str(path))
    foreign.encode_special_tokens = True
    for line in [*LINES, "never seen 狐x"]:
        assert loaded.encode(line) == tokenizer.encode(line) == foreign.encode(line).ids
        assert loaded.tokens(line) == tokenizer.tokens(line)
        assert loaded.decode(loaded.encode(line)) == tokenizer.decode(tokenizer.encode(line))
    assert foreign.decode(tokenizer.encode(LINES[0])) == LINES[0]
    assert [foreign.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_tokenizer_that_cannot_be_written_leaves_the_older_one_whole(word, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("the older one")

    def full(self, text, **settings):
        self.write_bytes(text.encode()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RegardError, match=r"tokenizer\.json: cannot be written: No space left on device; free some"):
        word.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    assert path.read_text() == "the older one"


def test_training_again_in_another_process_gives_the_same_files_and_a_fork_says_nothing(bpe, word, tmp_path):
    code = (
        "import os, sys; from regard.data.tokenizer import Tokenizer\n"
        f"bpe = Tokenizer.train({LINES!r} * 20, kind='bpe', vocab_size=400)\n"
        f"word = Tokenizer.train({LINES!r}, kind='word', vocab_size=1000)\n"
        "bpe.save(sys.argv[1]); word.save(sys.argv[2])\n"
        "pid = os.fork(); bpe.encode_batch(['a'] * 99); pid and os.waitpid(pid, 0)"
    )
    paths = [tmp_path / "bpe.json", tmp_path / "word.json"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for tokenizer, path in zip((bpe, word), paths, strict=True):
        tokenizer.save(tmp_path / "here.json")
        assert path.read_bytes() == (tmp_path / "here.json").read_bytes()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_half_a_surrogate_pair_is_refused(kind, bpe, word, character):
    tokenizer = {"bpe": bpe, "word": word, "character": character}[kind]
    for call in (tokenizer.encode, tokenizer.tokens, lambda text: tokenizer.encode_batch(["a", text])):
        with pytest.raises(RegardError, match="surrogate pair at character 2"):
            call("ab\ud800")
    with pytest.raises(RegardError, match="text 1: half a surrogate"):
        Tokenizer.train(["a", "\udfff"], kind=kind, vocab_size=300)


def test_a_vocabulary_too_small_for_its_alphabet_is_refused():
    with pytest.raises(RegardError, match="at least 260"):
        Tokenizer.train(["a"], kind="bpe", vocab_size=259)
    with pytest.raises(RegardError, match="at least 5"):
        Tokenizer.train(["a"], kind="word", vocab_size=4)
    with pytest.raises(RegardError, match="bpe, word"):
        Tokenizer.train(["a"], kind="char", vocab_size=400)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_vocabulary_is_no_larger_than_asked_and_holds_the_most_frequent(kind):
    tokenizer = Tokenizer.train(["common " * 50 + "rare"], kind=kind, vocab_size=TOKENIZERS[kind].least + 6)
    assert len(tokenizer) <= TOKENIZERS[kind].least + 6
    assert UNKNOWN not in (ids := tokenizer.encode("common"))
    assert len(ids) == len("common") if kind == "character" else len(ids) <= 2


@pytest.mark.parametrize("id", [-1, 10_000_000])
def test_an_id_outside_the_vocabulary_is_refused(bpe, id):
    with pytest.raises(RegardError, match=f"token id {id} at index 1"):
        bpe.decode([5, id])


def test_a_broken_file_is_refused(bpe, word, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(RegardError, match="no such file"):
        Tokenizer.load(path)
    bpe.save(path)
    whole = path.read_text(encoding="utf-8")

    def refused(text):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RegardError, match=r"tokenizer\.json: "):
            Tokenizer.load(path)

    for text in (
        "",
        whole[:500],
        "[]",
        "{}",
        '{"model": {"type": "BPE"}}',
        whole.replace('"BPE"', '"Unigram"'),
        "[" * 10**5,
    ):
        refused(text)
    for change in (
        {"vocab": {"a": 0}},
        {"vocab": {token: str(id) for id, token in enumerate(SPECIAL_TOKENS)}},
        {"vocab": {token: id for id, token in enumerate([*SPECIAL_TOKENS, "a"])}, "merges": []},
        {"merges": [["a", "never-seen"]]},
        {"merges": [["a"]]},
        {"merges": "a b"},
        {"merges": [[1, 2]]},
        {"vocab": {**json.loads(whole)["model"]["vocab"], "extra": 10**9}},
    ):
        stored = json.loads(whole)
        stored["model"].update(change)
        refused(json.dumps(stored))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RegardError, match="not a tokenizer file"):
        Tokenizer.load(path)
    with pytest.raises(RegardError, match="cannot be written"):
        bpe.save("/dev/null/tokenizer.json")
