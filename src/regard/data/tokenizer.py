"""Text as token ids: byte-level BPE, which loses nothing, whole words, which are easy to read, or single characters.

Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword units"; over bytes as in
Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2.
"""

import codecs
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from regard.data.batch import EOS, SPECIAL_TOKENS, UNKNOWN
from regard.data.normal_form import in_form, over_marks
from regard.data.tokenizer_files import BYTES, form_of, read_tokenizer, spelling, take_over
from regard.data.words import CHARACTER, UNSPACED, word_spans
from regard.errors import RegardError
from regard.files import new_file
from regard.kernels.memory import give_back_freed_memory

# threads of tokenizers do not survive a fork; who sets the variable decides otherwise
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# how an unknown word is written, as SentencePiece does: it is not text that anybody typed
UNKNOWN_TEXT = " ⁇"
# begins a byte that is no character by itself
BROKEN = "⟨"
# one character of a script without spaces; a word with the space before it, a punctuation mark likewise; other space
WORD_PATTERN = rf"{CHARACTER}| ?[\p{{L}}\p{{M}}\p{{N}}&&[^{UNSPACED}]]+| ?[^\s\p{{L}}\p{{M}}\p{{N}}]|\s"
ANY_CHARACTER = r"[\s\S]"


def _byte_of() -> dict[str, int]:
    """Which byte each letter of the byte-level alphabet stands for (Radford et al.'s `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_OF = _byte_of()


@dataclass(frozen=True)
class Token:
    """One token of a text: `text` is what it shows, `start` and `end` are characters of that text."""

    id: int
    text: str
    start: int
    end: int


@final
class Tokenizer:
    """Turns text into token ids and back; special tokens have ids that no text produces.

    `start` stands before each document of a language model's text, `unknown` for what the vocabulary has not.
    """

    start, unknown = EOS, UNKNOWN

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        stored = json.loads(backend.to_str())
        self.kind = _kind_of(stored)
        self._backend = backend
        self._form = form_of(stored)
        self._pieces = _pieces(backend, stored, self.kind)
        # what every text is read as if it stood before it; decoding drops it
        self.leading = b" " if b"".join(self._pieces_of(backend.encode("a").ids)).startswith(b" ") else b""

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        kind: Literal["bpe", "word", "character"],
        vocab_size: int,
        strip_accents: bool = False,
        form: str | None = None,
    ) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` tokens, special ones included, from lines read once.

        Texts are brought into the Unicode normal `form`, such as NFC, before they become tokens; with `strip_accents`
        letters lose their accents, and are written without them.
        Raises RegardError if `vocab_size` cannot hold the special tokens and, for "bpe", the 256 bytes.
        """
        if kind not in TOKENIZERS:
            raise RegardError(f"no tokenizer of kind {kind!r}; there are {', '.join(TOKENIZERS)}")
        build = TOKENIZERS[kind]
        if vocab_size < build.least:
            raise RegardError(
                f"vocab_size {vocab_size} is too small for a {kind!r} tokenizer; give at least {build.least}"
            )
        backend = build.backend({token: index for index, token in enumerate(SPECIAL_TOKENS)})
        before = [*([getattr(normalizers, form)()] if form else []), *(_without_accents() if strip_accents else [])]
        backend.normalizer = _in_order([*before, *([backend.normalizer] if backend.normalizer else [])])
        # "<s>" typed by a user is ordinary characters, in training too
        backend.encode_special_tokens = True
        backend.add_special_tokens(list(SPECIAL_TOKENS))
        trainer = build.trainer(vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
        backend.train_from_iterator(_checked(lines), trainer)
        # what the counts of all words took is larger than any later need
        give_back_freed_memory()
        return cls(backend)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """A tokenizer that `save` wrote. Raises RegardError if the file is missing, broken or of another make."""
        return cls(read_tokenizer(path))

    @classmethod
    def take_over(cls, path: Path | str, *, form: str | None = None) -> "Tokenizer":
        """The tokenizer of a tokenizer.json of any program, or of a SentencePiece .model, for a new model.

        It cuts text as it always did, after the Unicode normal `form`; its ids are numbered anew.
        Raises RegardError if the file is neither, or texts cannot be put together again of its tokens.
        """
        return cls(take_over(path, form=form))

    def save(self, path: Path | str) -> None:
        """Write a `tokenizer.json` that Hugging Face's tokenizers reads too.

        Raises RegardError where it cannot be written; nothing half-written is left.
        """
        with new_file(Path(path)) as partial:
            partial.write_text(self._backend.to_str(pretty=True) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self._pieces)

    def normalised(self, text: str) -> str:
        """The text in the Unicode normal form that the tokenizer reads and writes, or as it is where it has none."""
        return in_form(text, self._form)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens. Raises RegardError for half a surrogate pair."""
        return self._encoded(text).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for every text."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(_checked(texts)))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; padding and sentence marks are left out, an unknown word shows as ⁇.

        Raises RegardError for an id that is not in the vocabulary.
        """
        return b"".join(self._pieces_of(ids)).removeprefix(self.leading).decode("utf-8", "replace")

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text and which of its characters each covers.

        Where several tokens make up one character, each covers it and shows its own bytes, like ⟨e4⟩.
        """
        encoding = self._encoded(text)
        tokens = []
        spans = over_marks(text, encoding.offsets)
        for index, (id, (start, end)) in enumerate(zip(encoding.ids, spans, strict=True)):
            if index == 0 and self.leading == self._pieces[id]:
                # this space is not the text's own
                start = end = 0
            spelt = self._pieces[id].decode("utf-8", "regard.show_bytes")
            shown = spelt if BROKEN in spelt else text[start:end]
            tokens.append(Token(id=id, text=shown, start=start, end=end))
        return tokens

    def decode_tokens(self, ids: Sequence[int]) -> list[Token]:
        """Each id as a token of `decode(ids)`, which need not be the text's own tokens: models may write others."""
        shown = (piece.decode("utf-8", "regard.show_bytes") for piece in self._pieces_of(ids))
        return [
            Token(id=id, text=text, start=start, end=end)
            for id, text, (start, end) in zip(ids, shown, self._decoded_spans(ids), strict=True)
        ]

    def word_indices(self, ids: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """The words of `decode(ids)`, as `split_words` gives them, and all those that each id belongs to.

        A token belongs to every word of which it covers a character, or part of one; whitespace alone to the word
        after it, at the end to the word before; a token without text to none.
        """
        words, indices = _words_at(self.decode(ids), self._decoded_spans(ids))
        pieces = self._pieces_of(ids)
        return words, [own if piece else [] for own, piece in zip(indices, pieces, strict=True)]

    def text_word_indices(self, text: str) -> tuple[list[str], list[list[int]]]:
        """The words of the text itself, even those unknown, and all those that each id of `encode` belongs to."""
        return _words_at(text, [(token.start, token.end) for token in self.tokens(text)])

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer of Hugging Face's tokenizers that does the work."""
        return self._backend

    @property
    def pieces(self) -> list[bytes]:
        """What each id adds to a text, in bytes: nothing for special tokens, ⁇ for unknown text."""
        return self._pieces

    def _decoded_spans(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """First and last character, exclusive, of each id in `decode(ids)`; a part of a character covers it."""
        pieces = self._pieces_of(ids)
        data = b"".join(pieces)
        # a leading space that decoding drops stands before the first byte
        end = -len(self.leading) if data.startswith(self.leading) else 0
        starts = _character_starts(data[-end:])
        spans = []
        for piece in pieces:
            start, end = end, end + len(piece)
            first = bisect_right(starts, start) - 1 if end > start else bisect_left(starts, start)
            spans.append((max(first, 0), bisect_left(starts, end)))
        return spans

    def _encoded(self, text: str) -> tokenizers.Encoding:
        return self._backend.encode(next(_checked([text])))

    def _pieces_of(self, ids: Iterable[int]) -> list[bytes]:
        pieces = []
        for index, id in enumerate(ids):
            if not 0 <= id < len(self._pieces):
                raise RegardError(f"token id {id} at index {index} is not in the vocabulary of {len(self)}")
            pieces.append(self._pieces[id])
        return pieces


def _character_starts(data: bytes) -> list[int]:
    """The byte at which each character of `data.decode("utf-8", "replace")` starts."""
    starts: list[int] = []
    offset = 0
    while offset < len(data):
        try:
            valid, invalid = data[offset:].decode("utf-8"), 0
        except UnicodeDecodeError as error:
            # these bytes become one replacement character
            valid, invalid = data[offset : offset + error.start].decode("utf-8"), error.end - error.start
        for character in valid:
            starts.append(offset)
            offset += len(character.encode("utf-8"))
        if invalid:
            starts.append(offset)
            offset += invalid
    return starts


def _words_at(text: str, spans: Iterable[tuple[int, int]]) -> tuple[list[str], list[list[int]]]:
    """The words of a text, and for the first and last character, exclusive, of each token its words."""
    words = word_spans(text)
    starts, ends = [start for start, _ in words], [end for _, end in words]
    indices = []
    for start, end in spans:
        first, after = bisect_right(ends, start), bisect_left(starts, end)
        if first >= after:
            # no word is covered: the next one takes the whitespace, or the last where none follows
            after = min(first + 1, len(words))
            first = max(after - 1, 0)
        indices.append(list(range(first, after)))
    return [text[start:end] for start, end in words], indices


def _bpe(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    # the pre-tokenizer parts letters from other signs, so that no merge can spell a special token
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _word(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN]))
    # a word at the start of the text is the same entry as after a space
    backend.normalizer = normalizers.Prepend(" ")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return backend


def _character(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(ANY_CHARACTER), "isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _without_accents() -> list[normalizers.Normalizer]:
    # what is no accent is put together again: a Hangul syllable stays one character
    return [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]


def _in_order(steps: list[normalizers.Normalizer]) -> normalizers.Normalizer | None:
    return normalizers.Sequence(steps) if len(steps) > 1 else steps[0] if steps else None


class TokenizerKind(NamedTuple):
    """How a kind of tokenizer is built from its special tokens, what trains it, and its smallest vocabulary."""

    backend: Callable[[dict[str, int]], tokenizers.Tokenizer]
    trainer: Callable[..., Any]
    least: int


TOKENIZERS: dict[str, TokenizerKind] = {
    "bpe": TokenizerKind(
        _bpe, partial(trainers.BpeTrainer, initial_alphabet=BYTES), least=len(SPECIAL_TOKENS) + len(BYTES)
    ),
    "word": TokenizerKind(_word, trainers.WordLevelTrainer, least=len(SPECIAL_TOKENS) + 1),
    "character": TokenizerKind(_character, trainers.WordLevelTrainer, least=len(SPECIAL_TOKENS) + 1),
}


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RegardError(
                f"text {index}: half a surrogate pair at character {error.start} of {text[:40]!a}; remove it"
            ) from None
        yield text


def _pieces(backend: tokenizers.Tokenizer, stored: Mapping[str, Any], kind: str) -> list[bytes]:
    """What each id adds to the decoded text, in bytes."""
    ids, spell = backend.get_vocab(), spelling(stored)
    pieces = [spell(token) for token in sorted(ids, key=ids.__getitem__)]
    unknown = UNKNOWN_TEXT.strip() if kind == "character" else UNKNOWN_TEXT
    pieces[: len(SPECIAL_TOKENS)] = [unknown.encode() if id == UNKNOWN else b"" for id in range(len(SPECIAL_TOKENS))]
    return pieces


def _kind_of(stored: Mapping[str, Any]) -> str:
    # two kinds have a model alike: what a text is cut into tells them apart
    is_character = json.dumps(ANY_CHARACTER) in json.dumps(stored.get("pre_tokenizer"))
    kinds = {"BPE": "bpe", "Unigram": "unigram", "WordLevel": "character" if is_character else "word"}
    return kinds[stored["model"]["type"]]


def _show_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"{BROKEN}{byte:02x}⟩" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("regard.show_bytes", _show_bytes)
