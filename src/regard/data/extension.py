"""A tokenizer with more tokens: those that it has keep their ids, and new text adds others behind them.

BPE is continued where it ended: Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword
units", algorithm 1.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

import tokenizers

from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError

Pair = tuple[str, str]
# seen less often, a pair or a word is no part of a language
LEAST = 2


def extended(tokenizer: Tokenizer, lines: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """The tokenizer with tokens that lines teach it, `vocab_size` at most in all.

    Raises RegardError where that leaves no room, and for a tokenizer of another kind than BPE, words and characters.
    """
    backend = tokenizer.backend
    stored = json.loads(backend.to_str())
    room = vocab_size - len(tokenizer)
    if room < 1:
        raise RegardError(
            f"vocab_size {vocab_size:,} leaves no room beyond the {len(tokenizer):,} tokens that there are; raise "
            "data.vocab_size"
        )
    pieces = Counter(piece for line in lines for piece in _pieces(backend, line))
    if stored["model"]["type"] == "WordLevel":
        added = _words(pieces, stored["model"]["vocab"], room)
    elif stored["model"]["type"] == "BPE":
        added, merges = _merged(pieces, backend, room)
        stored["model"]["merges"] += merges
    else:
        raise RegardError(
            f"a tokenizer of the kind {stored['model']['type']} cannot be extended; name another data.tokenizer, whose "
            "tokens take over the weights of those that it shares"
        )
    vocabulary = stored["model"]["vocab"]
    vocabulary |= {token: len(vocabulary) + index for index, token in enumerate(added)}
    longer = tokenizers.Tokenizer.from_str(json.dumps(stored))
    longer.encode_special_tokens = True
    return Tokenizer(longer)


def _pieces(backend: tokenizers.Tokenizer, line: str) -> list[str]:
    """What is cut into tokens by itself: a word with its space, or a character."""
    if backend.normalizer is not None:
        line = backend.normalizer.normalize_str(line)
    return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(line)]


def _words(pieces: Counter[str], known: dict[str, int], room: int) -> list[str]:
    return [piece for piece, count in pieces.most_common() if piece not in known and count >= LEAST][:room]


def _merged(pieces: Counter[str], backend: tokenizers.Tokenizer, room: int) -> tuple[list[str], list[list[str]]]:
    """The tokens and merges that follow: always the most frequent pair, of equal ones that with the lowest ids."""
    model: Any = backend.model
    words = [[token.value for token in model.tokenize(piece)] for piece in pieces]
    counts = list(pieces.values())
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += counts[index]
            places[pair].add(index)
    ids, known = backend.get_vocab(), len(backend.get_vocab())
    # an entry holds as long as its count is the pair's
    heap = [(-count, (ids[left], ids[right]), (left, right)) for (left, right), count in pairs.items()]
    heapify(heap)
    merges: list[list[str]] = []
    while len(ids) - known < room and heap:
        count, _, best = heappop(heap)
        if -count != pairs[best]:
            continue
        if -count < LEAST:
            break
        merges.append(list(best))
        ids.setdefault("".join(best), len(ids))
        changed: set[Pair] = set()
        for index in list(places[best]):
            before, after = words[index], _joined(words[index], best)
            words[index] = after
            for pair in pairwise(before):
                pairs[pair] -= counts[index]
                places[pair].discard(index)
            for pair in pairwise(after):
                pairs[pair] += counts[index]
                places[pair].add(index)
            changed.update(pairwise(before), pairwise(after))
        for left, right in changed:
            heappush(heap, (-pairs[left, right], (ids[left], ids[right]), (left, right)))
    return [*ids][known:], merges


def _joined(word: list[str], pair: Pair) -> list[str]:
    joined: list[str] = []
    for token in word:
        if joined and (joined[-1], token) == pair:
            joined[-1] += token
        else:
            joined.append(token)
    return joined
