"""What each token of a transformers tokenizer adds to a text, in bytes, by the steps of its decoder."""

import json
import re
from typing import Any

from regard.data.tokenizer import BYTE_OF
from regard.errors import RegardError
from regard.generation.spelling import NEVER_SPELT, Prefix, Spelling

# how a tokenizer with byte fallback writes a byte
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def prefix_of(text: str, tokenizer: Any, name: str, *, one_line: bool) -> Prefix:
    """A text that what the model `name` writes begins with.

    Raises RegardError where its tokens cannot spell it, and for a newline in an answer that has one line.
    """
    if one_line and "\n" in text:
        raise RegardError("the answer to a framed question is one line; leave newlines out of the prefix")
    prefix = Prefix(spelling_of(tokenizer, name), text)
    if prefix.need == NEVER_SPELT:
        raise RegardError(f"{name} cannot begin with {text!r}: no tokens of its vocabulary spell that")
    return prefix


def spelling_of(tokenizer: Any, name: str) -> Spelling:
    """The bytes of every token of the model `name`; a special token has none.

    Raises RegardError for a tokenizer whose decoder does more than to join its tokens.
    """
    steps = _steps(tokenizer)
    for step in steps:
        if not _joins(step):
            raise RegardError(
                f"{name}: what its tokens spell is not known, for its tokenizer decodes them by {step['type']}; leave "
                "out the prefix"
            )
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    vocabulary = tokenizer.get_vocab()
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, id in vocabulary.items():
        if id not in special:
            pieces[id] = _bytes(token, steps)
    strips = any(
        step["type"] == "Strip" or (step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )
    return Spelling(pieces, leading=b" " if strips else b"")


def _steps(tokenizer: Any) -> list[dict[str, Any]]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return [{"type": "code of its own"}]
    decoder = json.loads(backend.decoder.__getstate__())
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _joins(step: dict[str, Any]) -> bool:
    match step["type"]:
        case "ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace":
            return True
        case "Replace":
            return "String" in step["pattern"]
        case "Strip":
            return (step["content"], step["start"], step["stop"]) == (" ", 1, 0)
    return False


def _bytes(token: str, steps: list[dict[str, Any]]) -> bytes:
    for step in steps:
        match step["type"]:
            case "ByteLevel" if all(letter in BYTE_OF for letter in token):
                return bytes(BYTE_OF[letter] for letter in token)
            case "ByteFallback" if (byte := _BYTE.fullmatch(token)) is not None:
                return bytes([int(byte[1], 16)])
            case "Replace":
                token = token.replace(step["pattern"]["String"], step["content"])
            case "Metaspace":
                token = token.replace(step["replacement"], " ")
    return token.encode()
