"""The tokenizer of a pretrained model, as training a language model asks for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from regard.errors import RegardError
from regard.models.pretrained.folder import load_tokenizer
from regard.models.pretrained.needs import quiet


@final
class TextTokenizer:
    """A tokenizer of transformers.

    `start` is the token that stands before each document: the one that the model's own texts begin with or, where they
    begin with none, the one that ends them. `unknown` stands for what the vocabulary has not, None where it has all.
    """

    kind = "pretrained"

    def __init__(self, backend: Any, *, where: Path | str) -> None:
        self.backend = backend
        with quiet():
            empty = backend("").input_ids
        starts = [*empty[:1], backend.eos_token_id, backend.bos_token_id]
        start = next((id for id in starts if id is not None), None)
        if start is None:
            raise RegardError(f"{where}: its tokenizer has no token that begins or ends a text; name its eos_token")
        self.start: int = start
        # byte-level tokenizers spell everything, and name an unknown token all the same
        self.unknown: int | None = backend.unk_token_id if backend.unk_token_id != start else None

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """The tokenizer of a Hugging Face folder. Raises RegardError where it has none."""
        backend = load_tokenizer(folder)
        if backend is None:
            raise RegardError(f"{folder}: it has no tokenizer; fetch the whole folder of the model")
        return cls(backend, where=folder)

    def __len__(self) -> int:
        return len(self.backend)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens; those that are spelt out in it are plain text."""
        with quiet():
            return self.backend(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
