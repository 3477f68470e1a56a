"""A SentencePiece `.model` file as what a tokenizer.json holds, read without the library that wrote it.

Kudo and Richardson 2018, "SentencePiece: a simple and language independent subword tokenizer and detokenizer for neural
text processing". The file is a protocol buffer, `src/sentencepiece_model.proto` of that project; field numbers below
are those of its messages ModelProto, SentencePiece, TrainerSpec and NormalizerSpec.
"""

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regard.errors import RegardError

MOST_PIECES, LONGEST_PIECE = 2_000_000, 1000
# a space, in pieces
SPACE = "▁"
UNIGRAM, BPE, WORD, CHARACTER = range(1, 5)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
# what a piece that the user defined scores beyond the best of its length, so that no other way is taken
USER_DEFINED_LOSS = 0.1


class Piece(NamedTuple):
    """One token, its score and its type."""

    text: str
    score: float
    type: int


def tokenizer_of(data: bytes, path: Path | str) -> dict[str, Any]:
    """The content of a tokenizer.json that cuts text as a SentencePiece model does.

    Raises RegardError for what is no such model, or one whose words end in the space.
    """
    try:
        pieces, trainer, normalizer = _parsed(data)
    except (ValueError, struct.error) as error:
        raise RegardError(
            f"{path}: not a SentencePiece model ({error}); name the .model that spm_train wrote, or a tokenizer.json"
        ) from None
    if trainer.get(24) or not normalizer.get(5, 1):
        raise RegardError(
            f"{path}: its words end in the space, or keep it, instead of beginning with it; train it without "
            "--treat_whitespace_as_suffix and with --escape_whitespaces"
        )
    return {
        "model": _model(pieces, trainer.get(3, UNIGRAM), path),
        "added_tokens": [
            {"id": index, "content": piece.text, "special": True}
            for index, piece in enumerate(pieces)
            if piece.type in (CONTROL, UNUSED)
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(normalizer)},
        "pre_tokenizer": _pre_tokenizer(pieces, trainer.get(3, UNIGRAM)),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if normalizer.get(3, 1) else []),
            ],
        },
    }


def merges_by_score(vocabulary: Mapping[str, int], score: Sequence[float]) -> list[tuple[str, str]]:
    """Merges for pieces that have scores instead: of two neighbours, those merge first that make the highest."""
    return [
        (token[:place], token[place:])
        for token in sorted(vocabulary, key=lambda token: -score[vocabulary[token]])
        for place in range(1, len(token))
        if token[:place] in vocabulary and token[place:] in vocabulary
    ]


def _model(pieces: Sequence[Piece], type: int, path: Path | str) -> dict[str, Any]:
    has_bytes = any(piece.type == BYTE for piece in pieces)
    (unknown,) = (piece.text for piece in pieces if piece.type == UNKNOWN)
    ids = {piece.text: index for index, piece in enumerate(pieces)}
    if type == UNIGRAM:
        return {
            "type": "Unigram",
            "unk_id": ids[unknown],
            "vocab": _with_user_defined_first(pieces),
            "byte_fallback": has_bytes,
        }
    if type == WORD:
        return {"type": "WordLevel", "vocab": ids, "unk_token": unknown}
    if type not in (BPE, CHARACTER):
        raise RegardError(f"{path}: a SentencePiece model of type {type}; there are unigram, bpe, word and char")
    known = {piece.text: index for index, piece in enumerate(pieces) if piece.type == NORMAL}
    return {
        "type": "BPE",
        "vocab": ids,
        # of single characters nothing merges
        "merges": merges_by_score(known, [piece.score for piece in pieces]) if type == BPE else [],
        "unk_token": unknown,
        "fuse_unk": True,
        "byte_fallback": has_bytes,
        # what the user defined has no merges, and is taken whole
        "ignore_merges": any(piece.type == USER_DEFINED for piece in pieces),
    }


def spans_in(encoded: bytes) -> list[tuple[str, int, int]]:
    """The pieces of a text that SentencePiece encoded as `serialized_proto`, and the bytes of the text of each."""
    fields = [dict(_fields(_message(value))) for number, value in _fields(memoryview(encoded)) if number == 2]
    return [(bytes(_message(each[1])).decode(), each.get(4, 0), each.get(5, 0)) for each in fields]


def _with_user_defined_first(pieces: Sequence[Piece]) -> list[tuple[str, float]]:
    best = max((piece.score for piece in pieces if piece.type == NORMAL), default=0.0)
    return [
        (piece.text, len(piece.text.encode()) * best - USER_DEFINED_LOSS if piece.type == USER_DEFINED else piece.score)
        for piece in pieces
    ]


def _normalizers(spec: Mapping[int, Any]) -> list[dict[str, Any]]:
    rules, found = spec.get(2, b""), []
    if rules:
        found.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(rules).decode()})
    if spec.get(4, 1):
        found += [
            {"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]
    if spec.get(3, 1):
        found.append({"type": "Prepend", "prepend": SPACE})
    return [*found, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]


def _pre_tokenizer(pieces: Sequence[Piece], type: int) -> dict[str, Any] | None:
    """None where the model sees whole sentences."""
    if type == WORD:
        return {"type": "Split", "pattern": {"String": SPACE}, "behavior": "MergedWithNext", "invert": False}
    defined = sorted((piece.text for piece in pieces if piece.type == USER_DEFINED), key=len, reverse=True)
    if type == UNIGRAM or not defined:
        return None
    pattern = "|".join("".join(f"\\x{{{ord(letter):x}}}" for letter in text) for text in defined)
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _parsed(data: bytes) -> tuple[list[Piece], dict[int, Any], dict[int, Any]]:
    """The pieces, the trainer's settings and the normalizer's. Raises ValueError for what is no model."""
    pieces: list[Piece] = []
    settings: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in _fields(memoryview(data)):
        if number == 1:
            pieces.append(_piece(value))
            if len(pieces) > MOST_PIECES:
                raise ValueError(f"it has more than {MOST_PIECES:,} pieces")
        elif number in settings:
            settings[number] = dict(_fields(_message(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    if len({piece.text for piece in pieces}) < len(pieces):
        raise ValueError("two of its pieces are the same")
    if (unknown := sum(piece.type == UNKNOWN for piece in pieces)) != 1:
        raise ValueError(f"it has {unknown} pieces for what is unknown in place of one")
    trainer, normalizer = settings[2], settings[3]
    if not all(isinstance(each.get(number, 0), int) for each in settings.values() for number in (3, 4, 5, 24)):
        raise ValueError("a setting is no number")
    return pieces, trainer, normalizer | {2: bytes(_message(normalizer.get(2, memoryview(b""))))}


def _piece(value: Any) -> Piece:
    fields = dict(_fields(_message(value)))
    text, type = bytes(_message(fields.get(1, memoryview(b"")))).decode("utf-8"), fields.get(3, NORMAL)
    score = fields.get(2, 0.0)
    if len(text) > LONGEST_PIECE:
        raise ValueError(f"a piece is longer than {LONGEST_PIECE} characters")
    if not text or not isinstance(score, float) or not math.isfinite(score) or type not in range(NORMAL, BYTE + 1):
        raise ValueError(f"the piece {text!r} has a score or a type that is none")
    return Piece(text, score, type)


def _message(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number stands where a message should")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: a whole number, a float of four bytes, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, type = key >> 3, key & 7
        if type == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if type not in (FIXED64, BYTES, FIXED32):
            raise ValueError(f"field {number} is of no known type")
        size, at = _varint(data, at) if type == BYTES else (8 if type == FIXED64 else 4, at)
        if at + size > len(data):
            raise ValueError("it is cut off")
        part = data[at : at + size]
        yield number, struct.unpack("<f", part)[0] if type == FIXED32 else part
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(LONGEST_VARINT):
        if at + place >= len(data):
            raise ValueError("it is cut off")
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number is too long")
