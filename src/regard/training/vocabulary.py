"""The tokenizer of a run: taken over from a file, or learnt from its text."""

import itertools
import os

from regard.data.corpora import Corpus
from regard.data.text import Text
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.training.recipe import Recipe

# more text teaches a tokenizer little, while each new word that it counts takes memory
TOKENIZER_BYTES = 50_000_000


def make_tokenizer(recipe: Recipe, corpus: Corpus | Text) -> Tokenizer:
    """The tokenizer that a recipe names, or one learnt from all training text; of files beyond TOKENIZER_BYTES, from
    pairs or passages spread over them.

    Raises RegardError for a file that is no tokenizer, or one that the model cannot use.
    """
    data = recipe.data
    if data.tokenizer_file is not None:
        tokenizer = Tokenizer.take_over(data.tokenizer_file, form=data.form)
        if tokenizer.kind == "word" and not recipe.translates:
            raise RegardError(
                f"{data.tokenizer_file}: a tokenizer of words loses some of the text, which a language model must write"
            )
        return tokenizer
    # of a file that is not there the reading tells
    size = sum(os.path.getsize(path) for path in corpus.splits["train"] if os.path.isfile(path))
    every = 1 + size // TOKENIZER_BYTES
    is_text = isinstance(corpus, Text)
    units = ((passage.text,) for passage in corpus.passages("train")) if is_text else corpus.pairs("train")
    return Tokenizer.train(
        (text for unit in itertools.islice(units, 0, None, every) for text in unit),
        kind=data.tokenizer,  # pyright: ignore[reportArgumentType]
        vocab_size=data.vocab_size,
        strip_accents=data.strip_accents,
        form=data.form,
    )
