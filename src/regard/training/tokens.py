"""The text of a run as token ids, in the cache: made once for every tokenizer, length and state of the files."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from regard.data.conversations import Conversations, prepare_chats
from regard.data.corpora import Corpus, cache_dir
from regard.data.corpus import Watcher, counted, unwatched
from regard.data.download import file_sha256
from regard.data.mixture import Mixture
from regard.data.mixture import Part as Rows
from regard.data.packed import PackedText, pack
from regard.data.pair_tokenizer import PairTokenizer
from regard.data.parts import Data, data_name, weighted
from regard.data.prepare import open_prepared, prepare
from regard.data.text import Passage, Text, are_chats
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.files import clear_leftovers
from regard.models.pretrained.own_tokenizer import as_transformers
from regard.models.pretrained.text_tokenizer import TextTokenizer
from regard.models.pretrained.texts import Texts
from regard.training.translators import AnyTokenizer

# of the reading of files and of what is written: token ids of texts that were read otherwise are not used again
READING = 3


@dataclass(frozen=True)
class Tokens:
    """Splits as token ids by the tokenizer of the model `name`, which is in `files`. `documents` as in `PackedText`."""

    name: str
    tokenizer: Callable[[], AnyTokenizer]
    files: Sequence[Path]
    max_length: int
    documents: bool

    def split(self, corpus: Corpus | Text, split: str, progress: Watcher = unwatched) -> Rows:
        """A split, from the cache if the same text was tokenized the same way before.

        Raises RegardError if there is no such split, or a file of it is gone.
        """
        step, folder = f"encoding {split}", self._folder(corpus, split)
        clear_leftovers(folder)
        if isinstance(corpus, Text):
            passages = counted(corpus.passages(split), step, progress)
            if corpus.chats:
                if not folder.is_dir():
                    return self.chats(passages, folder, f"{split} of {corpus.name}")
                return Conversations.open(folder, max_length=self.max_length)
            if not folder.is_dir():
                pack(passages, self._of_text(), folder)
            start = self._of_text().start if self.documents else None
            return PackedText.open(folder, context=self.max_length, documents=start)
        if folder.is_dir():
            return open_prepared(folder, max_length=self.max_length)
        tokenizer = self.tokenizer()
        assert isinstance(tokenizer, PairTokenizer)
        pairs, name = counted(corpus.pairs(split), step, progress), f"{split} of {corpus.name}"
        return prepare(pairs, tokenizer, folder, max_length=self.max_length, name=name)

    def _of_text(self) -> Tokenizer | TextTokenizer:
        tokenizer = self.tokenizer()
        assert isinstance(tokenizer, Tokenizer | TextTokenizer)
        return tokenizer

    def chats(self, passages: Iterable[Passage], folder: Path, name: str) -> Conversations:
        """Conversations in the model's chat template, encoded into `folder`. Raises RegardError."""
        tokenizer = self.tokenizer()
        backend = as_transformers(tokenizer) if isinstance(tokenizer, Tokenizer) else tokenizer.backend
        texts = Texts(backend, self.name)
        return prepare_chats(
            (passage.text for passage in passages),
            texts.encode_answered,
            folder,
            max_length=self.max_length,
            unknown=tokenizer.unknown,
            name=name,
        )

    @contextmanager
    def of_files(self, files: Sequence[str | Path], form: str | None) -> Iterator[PackedText | Conversations]:
        """The text of any files, in a Unicode normal form; of a short one the window is all of it."""
        with tempfile.TemporaryDirectory(prefix="regard-") as folder:
            names = list(map(str, files))
            given = Text(name="text", splits={"test": names}, form=form, chats=are_chats(names))
            if given.chats:
                yield self.chats(given.passages("test"), Path(folder) / "text", data_name(names))
                return
            pack(given.passages("test"), self._of_text(), Path(folder) / "text")
            context = min(len(PackedText.open(Path(folder) / "text", context=1)), self.max_length)
            start = self._of_text().start if self.documents else None
            yield PackedText.open(Path(folder) / "text", context=context, documents=start)

    def mixture(self, corpus: Corpus | Text, progress: Watcher = unwatched) -> Rows | Mixture:
        """The training split, or, where its corpora have weights, a mixture of them."""
        found = weighted(corpus.splits["train"])
        parts = [self.split(_only(corpus, "train", data), "train", progress) for _, data in found]
        weights = [weight for weight, _ in found]
        return parts[0] if weights == [1.0] else Mixture(parts, weights)

    def sum(self, corpus: Corpus | Text, split: str) -> str:
        """SHA-256 over the token ids of a split."""
        parts = [data for _, data in weighted(corpus.splits[split])] if split == "train" else [corpus.splits[split]]
        folders = [self._folder(_only(corpus, split, data), split) for data in parts]
        sums = "".join(file_sha256(path) for folder in folders for path in sorted(folder.glob("*.npy")))
        return hashlib.sha256(sums.encode()).hexdigest()

    def _folder(self, corpus: Corpus | Text, split: str) -> Path:
        parts = corpus.parts(split)
        try:
            key = hashlib.sha256(b"".join(path.read_bytes() for path in self.files))
            stats = [(str(path), os.stat(path)) for part in parts for path in part.on_disk]
        except OSError as error:
            raise RegardError(f"{error.filename}: cannot be read: {error.strerror}; check the path") from None
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        # members of one archive, and columns of one file, are other texts
        names = [([*map(str, part.files)], [*map(str, part.target)], part.columns.keys) for part in parts]
        key.update(repr((READING, files, names, corpus.hashes.get(split), corpus.form, self.max_length)).encode())
        return cache_dir() / "tokens" / key.hexdigest()[:32]


def _only(corpus: Corpus | Text, split: str, data: Data) -> Corpus | Text:
    return replace(corpus, splits={split: data})
