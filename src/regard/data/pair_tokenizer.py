"""What translating asks of a tokenizer, most of which follows from the bytes that each token adds to a text."""

import codecs
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from regard.data.batch import OWN_FRAMES, Frames
from regard.data.words import word_spans
from regard.errors import RegardError

# how an unknown word is written, as SentencePiece does: it is not text that anybody typed
UNKNOWN_TEXT = " ⁇"
# begins a byte that is no character by itself
BROKEN = "⟨"


@dataclass(frozen=True)
class Token:
    """One token of a text: `text` is what it shows, `start` and `end` are characters of that text."""

    id: int
    text: str
    start: int
    end: int


class PairTokenizer(ABC):
    """Turns texts of one side of pairs into token ids and back.

    `pieces` is what each id adds to a text, in bytes: nothing for special tokens, ⁇ for unknown text. Every text is
    read as if `leading` stood before it, which decoding drops. `frames` stand around sources and targets, `unknown` for
    what the vocabulary has not.
    """

    pieces: list[bytes]
    leading: bytes
    kind: str
    unknown: int | None
    frames: Frames = OWN_FRAMES

    @property
    @abstractmethod
    def target(self) -> "PairTokenizer":
        """The tokenizer of the other side's texts."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for every text."""

    @abstractmethod
    def normalised(self, text: str) -> str:
        """The text in the Unicode normal form that the tokenizer reads and writes, or as it is where it has none."""

    @abstractmethod
    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the first and last character, exclusive, of each."""

    @abstractmethod
    def name_of(self, id: int) -> str:
        """The name of a special token, such as </s>."""

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens. Raises RegardError for half a surrogate pair."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; padding and sentence marks are left out, an unknown word shows as ⁇.

        Raises RegardError for an id that is not in the vocabulary.
        """
        return b"".join(self.pieces_of(ids)).removeprefix(self.leading).decode("utf-8", "replace")

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text and which of its characters each covers.

        Where several tokens make up one character, each covers it and shows its own bytes, like ⟨e4⟩.
        """
        tokens = []
        ids, spans = self.spans(text)
        for index, (id, (start, end)) in enumerate(zip(ids, spans, strict=True)):
            if index == 0 and self.leading == self.pieces[id]:
                # this space is not the text's own
                start = end = 0
            spelt = self.pieces[id].decode("utf-8", "regard.show_bytes")
            shown = spelt if BROKEN in spelt else text[start:end]
            tokens.append(Token(id=id, text=shown, start=start, end=end))
        return tokens

    def decode_tokens(self, ids: Sequence[int]) -> list[Token]:
        """Each id as a token of `decode(ids)`, which need not be the text's own tokens: models may write others."""
        shown = (piece.decode("utf-8", "regard.show_bytes") for piece in self.pieces_of(ids))
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
        pieces = self.pieces_of(ids)
        return words, [own if piece else [] for own, piece in zip(indices, pieces, strict=True)]

    def text_word_indices(self, text: str) -> tuple[list[str], list[list[int]]]:
        """The words of the text itself, even those unknown, and all those that each id of `encode` belongs to."""
        return _words_at(text, [(token.start, token.end) for token in self.tokens(text)])

    def _decoded_spans(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """First and last character, exclusive, of each id in `decode(ids)`; a part of a character covers it."""
        pieces = self.pieces_of(ids)
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

    def pieces_of(self, ids: Iterable[int]) -> list[bytes]:
        """The piece of each id. Raises RegardError for an id that is not in the vocabulary."""
        pieces = []
        for index, id in enumerate(ids):
            if not 0 <= id < len(self.pieces):
                raise RegardError(f"token id {id} at index {index} is not in the vocabulary of {len(self)}")
            pieces.append(self.pieces[id])
        return pieces


def checked(texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RegardError(
                f"text {index}: half a surrogate pair at character {error.start} of {text[:40]!a}; remove it"
            ) from None
        yield text


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


def _show_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"{BROKEN}{byte:02x}⟩" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("regard.show_bytes", _show_bytes)
