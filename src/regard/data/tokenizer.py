"""Text as token ids: byte-level BPE, which loses nothing, whole words, which are easy to read, or single characters.

Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword units"; over bytes as in
Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from regard.data.batch import EOS, SPECIAL_TOKENS, UNKNOWN
from regard.data.normal_form import in_form, over_marks
from regard.data.pair_tokenizer import UNKNOWN_TEXT, PairTokenizer, checked
from regard.data.tokenizer_files import BYTES, form_of, read_tokenizer, spelling, take_over
from regard.data.words import CHARACTER, UNSPACED
from regard.errors import RegardError
from regard.files import new_file
from regard.kernels.memory import give_back_freed_memory

# threads of tokenizers do not survive a fork; who sets the variable decides otherwise
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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


@final
class Tokenizer(PairTokenizer):
    """Turns text into token ids and back; special tokens have ids that no text produces.

    `start` stands before each document of a language model's text.
    """

    start, unknown = EOS, UNKNOWN

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        stored = json.loads(backend.to_str())
        self.kind = _kind_of(stored)
        self._backend = backend
        self._form = form_of(stored)
        self.pieces = _pieces(backend, stored, self.kind)
        # what every text is read as if it stood before it; decoding drops it
        self.leading = b" " if b"".join(self.pieces_of(backend.encode("a").ids)).startswith(b" ") else b""

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
        backend.train_from_iterator(checked(lines), trainer)
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

    def normalised(self, text: str) -> str:
        """The text in the Unicode normal form that the tokenizer reads and writes, or as it is where it has none."""
        return in_form(text, self._form)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for every text."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(checked(texts)))]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the first and last character, exclusive, of each."""
        encoding = self._backend.encode(next(checked([text])))
        return encoding.ids, over_marks(text, encoding.offsets)

    def name_of(self, id: int) -> str:
        """The name of a special token, such as </s>."""
        return self._backend.id_to_token(id) or ""

    @property
    def target(self) -> "Tokenizer":
        """Itself: both sides share one vocabulary."""
        return self

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer of Hugging Face's tokenizers that does the work."""
        return self._backend


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
