"""Tokenizers in files: those that Regard wrote, and those that other programs did, taken over for a model of its own.

A tokenizer that is taken over cuts text as it always did. Its ids are others: the four special tokens of Regard come
first, and those of its own maker are gone, which a model that begins from nothing has never seen.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from regard.data import sentencepiece
from regard.data.batch import SPECIAL_TOKENS, UNKNOWN
from regard.data.normal_form import FORMS
from regard.errors import RegardError

# the largest that are known, of 250,000 tokens, have a third of this
LARGEST_FILE = 1 << 27
MODELS = ("BPE", "Unigram", "WordLevel")
# why others cannot be taken over
OTHERS = {"WordPiece": ", whose tokens do not say where a text has spaces; train one of these on the same text"}
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
# a special token that is spelt in a text is cut behind its "<", so that no vocabulary finds it there
GUARD = {
    "type": "Split",
    "pattern": {"Regex": r"<(?=(?:pad|s|/s|unk|0x[0-9A-F]{2})>)"},
    "behavior": "Isolated",
    "invert": False,
}
# what a text of these tokens is written by: a token's bytes
Spelling = Callable[[str], bytes]


def read_tokenizer(path: Path | str) -> tokenizers.Tokenizer:
    """A tokenizer.json whose special tokens are Regard's. Raises RegardError for a file that is none."""
    stored = _object(_read(path), path)
    tokens = _checked_tokens(stored, path)
    if tuple(tokens[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        raise RegardError(
            f"{path}: {', '.join(SPECIAL_TOKENS)} must have the ids 0 to 3; this tokenizer is of another make"
        )
    return _built(stored, path)


def take_over(path: Path | str, *, form: str | None) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, or of a SentencePiece model, for a new model of Regard's.

    Texts are brought into the Unicode normal `form` before all else.
    Raises RegardError for a file that is neither, and for a tokenizer that cannot write what it reads.
    """
    data = _read(path)
    # JSON begins with a brace; a protocol buffer of pieces cannot
    is_json = data.lstrip()[:1] == b"{" or Path(path).suffix == ".json"
    stored = _object(data, path) if is_json else sentencepiece.tokenizer_of(data, path)
    tokens = _checked_tokens(stored, path)
    if not _is_own(stored, tokens):
        stored = _renumbered(stored, tokens)
    backend = _built(stored, path)
    if form is not None and form != form_of(json.loads(backend.to_str())):
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([getattr(normalizers, form)(), *own])
    return backend


def form_of(stored: Mapping[str, Any]) -> str | None:
    """The Unicode normal form into which texts are brought first."""
    normalizer = stored.get("normalizer") or {}
    first, *_ = *normalizer.get("normalizers", [normalizer]), {}
    return first.get("type") if first.get("type") in FORMS else None


def spelling(stored: Mapping[str, Any], path: Path | str = "tokenizer") -> Spelling:
    """The bytes that a token adds to a text. Raises RegardError where a text is more than what its tokens add."""
    decoder = stored.get("decoder")
    parts = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    types = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if types == ["ByteLevel"]:
        byte_of = _byte_of()
        return lambda token: bytes(map(byte_of.__getitem__, token)) if byte_of.keys() >= set(token) else token.encode()
    if not parts and stored["model"].get("type") == "WordLevel":
        return lambda token: f" {token}".encode()
    if not parts or not {*types} <= {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}:
        raise RegardError(
            f"{path}: its decoder ({', '.join(map(str, types)) or 'none'}) cannot put the spaces of a text back; train "
            "it with ByteLevel or Metaspace as pre-tokenizer and decoder, or give a SentencePiece model"
        )
    replaced = [
        (part.get("replacement", sentencepiece.SPACE), " ")
        if part["type"] == "Metaspace"
        else (part.get("pattern", {}).get("String"), part.get("content"))
        for part in parts
        if part["type"] in ("Metaspace", "Replace")
    ]
    if not all(isinstance(text, str) for pair in replaced for text in pair):
        raise RegardError(f"{path}: its decoder replaces by patterns, which is more than what tokens add; change it")

    def spell(token: str) -> bytes:
        if "ByteFallback" in types and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode()

    return spell


def _read(path: Path | str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        # a path with a NUL in it is no error of the system's
        raise RegardError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST_FILE:
        raise RegardError(f"{path}: not a tokenizer file, it is larger than {LARGEST_FILE >> 20} MiB")
    return data


def _object(data: bytes, path: Path | str) -> dict[str, Any]:
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegardError(f"{path}: not a tokenizer file ({error}); train or copy it again") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("model"), dict):
        raise RegardError(
            f"{path}: not a tokenizer file, which has a model; name a tokenizer.json, or a SentencePiece .model"
        )
    return stored


def _checked_tokens(stored: dict[str, Any], path: Path | str) -> list[str]:
    """The tokens of the model in the order of their ids; the library itself would raise anything.

    Raises RegardError for a model that is not one of MODELS, or whose parts do not fit together.
    """
    model = stored["model"]
    vocabulary = model.get("vocab")
    if "type" not in model and isinstance(vocabulary, list | dict):
        model["type"] = "Unigram" if isinstance(vocabulary, list) else "BPE" if "merges" in model else None
    if model.get("type") not in MODELS:
        raise RegardError(
            f"{path}: its model is {model.get('type')!r}{OTHERS.get(str(model.get('type')), '')}; Regard takes "
            f"{', '.join(MODELS)}, and SentencePiece's .model"
        )
    if model["type"] == "Unigram":
        tokens = _unigram_tokens(model, path)
    else:
        if not isinstance(vocabulary, dict) or not vocabulary:
            raise RegardError(f"{path}: its vocabulary is missing; train it or copy it again")
        if not all(type(id) is int for id in vocabulary.values()) or len({*vocabulary.values()}) < len(vocabulary):
            raise RegardError(f"{path}: its token ids are not different whole numbers; train it or copy it again")
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if model["type"] == "BPE":
        _check_merges(model, path)
    elif model.get("merges"):
        raise RegardError(f"{path}: a model {model['type']} has no merges; train it or copy it again")
    added = stored.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) and token["content"] for token in added
    ):
        raise RegardError(f"{path}: its added tokens are no texts; train it or copy it again")
    return tokens


def _unigram_tokens(model: dict[str, Any], path: Path | str) -> list[str]:
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, list) or not all(
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int | float)
        and math.isfinite(entry[1])
        for entry in vocabulary
    ):
        raise RegardError(f"{path}: its vocabulary is no list of tokens with scores; train it or copy it again")
    tokens = [token for token, _ in vocabulary]
    if len({*tokens}) < len(tokens) or not tokens:
        raise RegardError(f"{path}: its tokens are not different; train it or copy it again")
    unknown = model.get("unk_id")
    if unknown is not None and not (type(unknown) is int and 0 <= unknown < len(tokens)):
        raise RegardError(f"{path}: its unknown token is {unknown!r} of {len(tokens)}; train it or copy it again")
    return tokens


def _check_merges(model: dict[str, Any], path: Path | str) -> None:
    """Merges as pairs, which older files have as texts."""
    merges, vocabulary = model.get("merges", []), model["vocab"]
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise RegardError(f"{path}: its tokens mark where words go on or end; train it with ByteLevel or Metaspace")
    if not isinstance(merges, list):
        raise RegardError(f"{path}: its merges are missing; train it or copy it again")
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    for pair in pairs:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not is_pair or any(part not in vocabulary for part in (*pair, "".join(pair))):
            raise RegardError(f"{path}: a merge joins tokens that are not in its vocabulary; train it or copy it again")
    model["merges"] = [list(pair) for pair in pairs]


def _is_own(stored: Mapping[str, Any], tokens: Sequence[str]) -> bool:
    """Whether it has Regard's special tokens alone, and nothing that it reads becomes one of them, or is lost."""
    special = [token["content"] for token in stored.get("added_tokens") or [] if token.get("special")]
    is_safe = stored["model"]["type"] != "Unigram" or json.dumps(GUARD) in json.dumps(stored.get("pre_tokenizer"))
    return (
        is_safe and tuple(tokens[: len(special)]) == tuple(special) == SPECIAL_TOKENS and not _missing(stored, tokens)
    )


def _missing(stored: Mapping[str, Any], tokens: Iterable[str]) -> list[str]:
    """Bytes for which a byte-level model has no token: it would lose them silently."""
    if stored["model"]["type"] != "BPE" or not _is_byte_level(stored):
        return []
    known = {*tokens}
    return [letter for letter in BYTES if letter not in known]


def _renumbered(stored: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """The tokenizer with Regard's special tokens in place of its own, and a token for every byte."""
    model, added = dict(stored["model"]), stored.get("added_tokens") or []
    is_unigram = model["type"] == "Unigram"
    unknown = tokens[model["unk_id"]] if is_unigram and model.get("unk_id") is not None else model.get("unk_token")
    gone = {token["content"] for token in added if token.get("special")} | {unknown, *SPECIAL_TOKENS}
    more = [token for token in added if token["content"] not in gone]
    wanted = [*tokens, *_missing(stored, tokens), *(token["content"] for token in more)]
    kept = [token for token in dict.fromkeys(wanted) if token not in gone]
    order = [*SPECIAL_TOKENS, *kept]
    if is_unigram:
        scores = dict(model["vocab"])
        lowest = min((scores[token] for token in kept if token in scores), default=0.0)
        model |= {"vocab": [[token, scores.get(token, lowest)] for token in order], "unk_id": UNKNOWN}
        # what no text may find has the score of what it finds last
        model["vocab"][: len(SPECIAL_TOKENS)] = [[token, lowest] for token in SPECIAL_TOKENS]
    else:
        # bytes spell everything
        has_unknown = model["type"] != "BPE" or not _is_byte_level(stored)
        model |= {
            "vocab": {token: id for id, token in enumerate(order)},
            "unk_token": SPECIAL_TOKENS[UNKNOWN] if has_unknown else None,
        }
    if model["type"] == "BPE":
        merges = model["merges"]
        model["merges"] = [pair for pair in merges if gone.isdisjoint((*pair, "".join(pair)))]
    ids = {token: id for id, token in enumerate(order)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    own = [{"id": id, "content": token, "special": True, **plain} for id, token in enumerate(SPECIAL_TOKENS)]
    theirs = [{**plain, **token, "id": ids[token["content"]], "special": False} for token in more]
    before = stored.get("pre_tokenizer")
    return {
        **stored,
        "model": model,
        "added_tokens": [*own, *theirs],
        # behind the others, some of which begin each piece with a space
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*([before] if before else []), GUARD]},
    }


def _built(stored: Mapping[str, Any], path: Path | str) -> tokenizers.Tokenizer:
    """The library's tokenizer, of which nothing cuts, fills up, adds, or differs from call to call."""
    model = stored["model"] | ({"dropout": None} if stored["model"]["type"] == "BPE" else {})
    if missing := _missing(stored, model["vocab"]):
        raise RegardError(f"{path}: it has no token for {len(missing)} of 256 bytes; this tokenizer is of another make")
    nothing = dict.fromkeys(("truncation", "padding", "post_processor"))
    with _library(path):
        backend = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **stored, **nothing, "model": model}))
        backend.encode("a b")
    ids = sorted(backend.get_vocab().values())
    if ids != list(range(len(ids))):
        raise RegardError(f"{path}: its token ids do not run from 0 to {len(ids) - 1}; train it or copy it again")
    spelling(json.loads(backend.to_str()), path)
    # "<s>" typed by a user is ordinary characters
    backend.encode_special_tokens = True
    return backend


def _is_byte_level(stored: Mapping[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps(stored.get("decoder"))


def _byte_of() -> dict[str, int]:
    """Which byte each letter of the byte-level alphabet stands for (Radford et al.'s `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


@final
class _library:
    """Whatever the library of tokenizers raises about a file is a RegardError that names the file."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # it raises Exception itself, of no kind of its own, or panics
        if kind is not None and (kind in (Exception, TypeError, ValueError) or kind.__name__ == "PanicException"):
            reason = " ".join(str(error).split())[:200]
            raise RegardError(f"{self.path}: not a tokenizer that can be used ({reason}); train or copy it again")
