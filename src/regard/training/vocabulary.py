"""The tokenizer of a run, learnt from its text."""

import itertools
import os
from pathlib import Path

from regard.data.corpora import Corpus
from regard.data.corpus import Watcher, counted, unwatched
from regard.data.extension import extended
from regard.data.packing import COMPRESSION_SUFFIXES
from regard.data.text import Passage, Text
from regard.data.tokenizer import Tokenizer
from regard.models.pretrained.frame import frame_question
from regard.training.recipe import EXTENDED, Recipe

# more text teaches a tokenizer little, while each new word that it counts takes memory
TOKENIZER_BYTES = 50_000_000
# a compressed file has about so many times its size of text
PACKED = 4


def train_tokenizer(
    recipe: Recipe, corpus: Corpus | Text, progress: Watcher = unwatched, *, known: Tokenizer | None = None
) -> Tokenizer:
    """Learnt from all training text, or, of files beyond TOKENIZER_BYTES, from every so many of them.

    A recipe may ask for the tokens of a `known` one, extended.
    """
    data = recipe.data
    paths = {path for part in corpus.parts("train") for path in part.on_disk}
    # of a file that is not there the reading tells
    every = 1 + sum(map(_text_size, paths)) // TOKENIZER_BYTES
    is_text = isinstance(corpus, Text)
    units = ((_learned(corpus, each),) for each in corpus.passages("train")) if is_text else corpus.pairs("train")
    units = itertools.islice(counted(units, "learning the tokenizer", progress), 0, None, every)
    texts = (text for unit in units for text in unit)
    if data.tokenizer == EXTENDED:
        assert known is not None, "read_recipe has told"
        return extended(known, texts, vocab_size=data.vocab_size)
    return Tokenizer.train(
        texts,
        kind=data.tokenizer,  # pyright: ignore[reportArgumentType]
        vocab_size=data.vocab_size,
        strip_accents=data.strip_accents,
        form=data.form,
    )


def _learned(corpus: Text, passage: Passage) -> str:
    """The text of a passage; that of a conversation comes with the frame of its questions."""
    text = corpus.plain(passage)
    return text.join(frame_question(text)) if corpus.chats else text


def _text_size(path: Path) -> int:
    """About how many bytes of text a file has."""
    packed = path.suffix.lower() in (*COMPRESSION_SUFFIXES, ".zip", ".parquet")
    return os.path.getsize(path) * (PACKED if packed else 1) if path.is_file() else 0
