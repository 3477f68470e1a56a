"""The tokenizer of a pretrained translator, fast or over SentencePiece, with what Regard's own gives."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, final

from regard.data.batch import Frames
from regard.data.normal_form import over_marks
from regard.data.pair_tokenizer import UNKNOWN_TEXT, PairTokenizer, checked
from regard.data.sentencepiece import SPACE, spans_in
from regard.data.tokenizer_files import spelling
from regard.errors import RegardError
from regard.models.pretrained.languages import tags_of
from regard.models.pretrained.needs import quiet

# a tag of Marian as it is typed
TAG = re.compile(r"^>>.*?<< ")
# how SentencePiece puts a text together
SENTENCEPIECE = {
    "decoder": {
        "type": "Sequence",
        "decoders": [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}],
    },
    "model": {"type": "SentencePiece"},
}


@final
class PretrainedTokenizer(PairTokenizer):
    """A tokenizer of transformers, or one side of it: its SentencePiece `model`, and the `ids` of tokens.

    `size` is how many ids the translator has, which may be more than there are tokens. `target` tokenizes targets,
    itself where none is given. Special tokens that are spelt out in a text are plain text. `typed` is what a user of
    transformers types before each source, whose tokens are in the frame; without a language's tag it is the `prefix`.
    """

    def __init__(
        self,
        backend: Any,
        *,
        name: str,
        size: int,
        frames: Frames,
        model: Any = None,
        ids: Mapping[str, int] | None = None,
        target: "PretrainedTokenizer | None" = None,
        typed: str = "",
    ) -> None:
        self.backend, self.name, self.frames, self.typed = backend, name, frames, typed
        self._model, self._target = model, target
        stored = SENTENCEPIECE if model is not None else _stored(backend.backend_tokenizer)
        self.kind = str(stored["model"]["type"]).lower()
        self._ids = backend.get_vocab() if ids is None else ids
        self.prefix = TAG.sub("", typed)
        self.unknown: int | None = backend.unk_token_id
        self._special = _special(backend)
        self._special.discard(self.unknown)  # pyright: ignore[reportArgumentType]
        spell = spelling(stored, name)
        self.pieces = [b""] * size
        for token, id in self._ids.items():
            if id < size and id not in self._special:
                self.pieces[id] = UNKNOWN_TEXT.encode() if id == self.unknown else spell(token)
        self.leading = b""
        if b"".join(self.pieces_of(self.encode("a"))).startswith(b" "):
            self.leading = b" "

    @property
    def target(self) -> "PretrainedTokenizer":
        """The tokenizer of targets."""
        return self._target or self

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for every text. Raises RegardError where a special token cannot be written as plain text."""
        texts = list(checked(texts))
        if self._model is not None:
            return [[self._id(piece) for piece in pieces] for pieces in self._model.encode(texts, out_type=str)]
        if not texts:
            return []
        with quiet():
            found = self.backend(texts, add_special_tokens=False, split_special_tokens=True).input_ids
        for ids in found:
            for id in self._special.intersection(ids):
                raise RegardError(
                    f"a text spells {self.name_of(id)!r}, which the tokenizer of {self.name} cannot write as plain "
                    "text; remove it"
                )
        return found

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the first and last character, exclusive, of each."""
        text = next(checked([text]))
        if self._model is not None:
            found = spans_in(self._model.encode(text, out_type="serialized_proto"))
            places = {byte: place for place, byte in enumerate([0, *accumulate(len(char.encode()) for char in text)])}
            spans = [(places[start], places[end]) for _, start, end in found]
            return [self._id(piece) for piece, _, _ in found], over_marks(text, spans)
        with quiet():
            encoded = self.backend(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
            )
        return encoded.input_ids, over_marks(text, encoded.offset_mapping)

    def normalised(self, text: str) -> str:
        """The text itself: what the tokenizer writes otherwise is part of how it cuts."""
        return text

    def name_of(self, id: int) -> str:
        """The name of a special token, such as </s>."""
        return self.backend.convert_ids_to_tokens(id)

    def _id(self, piece: str) -> int:
        return self._ids.get(piece, self.unknown)  # pyright: ignore[reportReturnType]


def pair_tokenizer(
    backend: Any, *, name: str, sizes: tuple[int, int], frames: Frames, typed: str
) -> PretrainedTokenizer:
    """The tokenizer of sources, with that of targets; `sizes` are the ids that the model has for each.

    Raises RegardError for a tokenizer that does not say where tokens stand in a text.
    """
    size, target_size = sizes
    side = partial(PretrainedTokenizer, backend, name=name, frames=frames, typed=typed)
    if hasattr(backend, "spm_target"):
        ids = backend.target_encoder if backend.separate_vocabs else backend.encoder
        target = side(size=target_size, model=backend.spm_target, ids=ids)
        return side(size=size, model=backend.spm_source, ids=backend.encoder, target=target)
    if (model := getattr(backend, "sp_model", None)) is not None:
        return side(size=size, model=model, ids={**backend.encoder, **getattr(backend, "lang_token_to_id", {})})
    if not backend.is_fast:
        raise RegardError(
            f"{name}: its tokenizer does not tell where tokens stand in a text; convert it to a tokenizer.json"
        )
    return side(size=size)


def _stored(backend: Any) -> dict[str, Any]:
    """How a fast tokenizer is stored, without its vocabulary."""
    decoder = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
    return {"decoder": decoder, "model": {"type": type(backend.model).__name__}}


def _special(backend: Any) -> set[int]:
    added = {id for id, token in backend.added_tokens_decoder.items() if token.special}
    return {*backend.all_special_ids, *added, *tags_of(backend).values()}
