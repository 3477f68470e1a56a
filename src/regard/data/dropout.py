"""BPE dropout: while a model trains, some merges are left out, so that it sees a text in other tokens each time.

Provilkov, Emelianenko and Voita 2020, "BPE-dropout: simple and effective subword regularization", section 3.
"""

import itertools
import json
import random
import re
from collections.abc import Sequence
from typing import final

from regard.data.sentencepiece import SPACE
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

_WORD = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")


@final
class BPEDropout:
    """Cuts texts anew, each merge left out with a probability; what is drawn follows from the seed and the key."""

    def __init__(self, tokenizer: Tokenizer, probability: float, *, seed: int) -> None:
        """Raises RegardError for a tokenizer without merges."""
        if tokenizer.kind != "bpe":
            raise RegardError(f"bpe_dropout needs a tokenizer of kind bpe, not {tokenizer.kind}; leave it out")
        stored = json.loads(tokenizer.backend.to_str())
        self._tokenizer, self._probability, self._seed = tokenizer, probability, seed
        self._ids = ids = tokenizer.backend.get_vocab()
        pairs = [tuple(pair) for pair in stored["model"]["merges"]]
        # of two merges the one that was learnt first is done first
        self._merges = {(ids[left], ids[right]): (rank, ids[left + right]) for rank, (left, right) in enumerate(pairs)}
        made = {left + right for left, right in pairs}
        # tokens that no merge makes are never cut, nor is what was added to the vocabulary
        self._whole = {token for token in ids if len(token) > 1 and token not in made}
        self._added = {token["id"] for token in stored["added_tokens"] if not token["special"]}
        # where no token goes on past a space, merges of each word are looked for by themselves
        self._has_words = not any(SPACE in token.lstrip(SPACE) for token in ids)

    def __call__(self, ids: Sequence[int], key: object) -> list[int]:
        """The same text in other tokens, as `ids` are those of `Tokenizer.encode`; the same for the same key."""
        if not self._added.isdisjoint(ids):
            return list(ids)
        draw = random.Random(f"{self._seed} {key}")
        return [id for word in self._words(self._tokenizer.decode(ids)) for id in self._cut(word, draw)]

    def _words(self, text: str) -> list[str]:
        """What merges stay within."""
        backend = self._tokenizer.backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = (
            [text] if backend.pre_tokenizer is None else [w for w, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        )
        if not self._has_words:
            return words
        return [word for part in words for word in _WORD.findall(part)]

    def _cut(self, word: str, draw: random.Random) -> list[int]:
        if word in self._whole or any(letter not in self._ids for letter in word):
            return [token.id for token in self._tokenizer.backend.model.tokenize(word)]
        ids = [self._ids[letter] for letter in word]
        while True:
            best = None
            for place, pair in enumerate(itertools.pairwise(ids)):
                merge = self._merges.get(pair)
                # of those that come too late in any case it does not matter which are left out
                if merge and (best is None or merge < best[0]) and draw.random() >= self._probability:
                    best = merge, place
            if best is None:
                return ids
            (_, merged), place = best
            ids[place : place + 2] = [merged]
