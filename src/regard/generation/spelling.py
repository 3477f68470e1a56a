"""Decoding means text: which tokens may follow so that a text is valid UTF-8 and begins with its prefix.

A finite automaton over tokens, as in Willard and Louf 2023, "Efficient guided generation for large language models".
Its states are the bytes of the prefix that are written already, then what a character under way still needs. A prefix
leaves open how it is cut into tokens: any token may follow that agrees with the rest of its bytes.
"""

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.data.batch import OWN_FRAMES
from regard.data.pair_tokenizer import PairTokenizer
from regard.errors import RegardError

# between characters; within one, by the bytes that may follow (Unicode 16.0, table 3-7)
BETWEEN, ONE_LEFT, TWO_LEFT, THREE_LEFT, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4 = range(8)
# from each state: first and last byte, and the state after it
TRANSITIONS = {
    BETWEEN: (
        (0x00, 0x7F, BETWEEN),
        (0xC2, 0xDF, ONE_LEFT),
        (0xE0, 0xE0, AFTER_E0),
        (0xED, 0xED, AFTER_ED),
        (0xE1, 0xEF, TWO_LEFT),
        (0xF0, 0xF0, AFTER_F0),
        (0xF1, 0xF3, THREE_LEFT),
        (0xF4, 0xF4, AFTER_F4),
    ),
    ONE_LEFT: ((0x80, 0xBF, BETWEEN),),
    TWO_LEFT: ((0x80, 0xBF, ONE_LEFT),),
    THREE_LEFT: ((0x80, 0xBF, TWO_LEFT),),
    AFTER_E0: ((0xA0, 0xBF, ONE_LEFT),),
    AFTER_ED: ((0x80, 0x9F, ONE_LEFT),),
    AFTER_F0: ((0x90, 0xBF, TWO_LEFT),),
    AFTER_F4: ((0x80, 0x8F, TWO_LEFT),),
}
# a state of this number or more counts the bytes of the prefix that are written
PREFIX = len(TRANSITIONS)
# more tokens than any character needs, and than any text has: these cannot be completed
NEVER, NEVER_SPELT = 255, 1 << 60


def state_after(state: int, data: bytes) -> int | None:
    """The state of UTF-8 after these bytes, or None where they are not valid."""
    for byte in data:
        found = next((after for first, last, after in TRANSITIONS[state] if first <= byte <= last), None)
        if found is None:
            return None
        state = found
    return state


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Option(NamedTuple):
    """A token that may follow, the state after it, and how few tokens then complete prefix and character."""

    token: int
    state: int
    need: int


@final
class Spelling:
    """What each token of a vocabulary adds to a text, in bytes; tokens without any are no text.

    Every text is written as if `leading` stood before it, which decoding drops where it is there.
    """

    def __init__(self, pieces: Sequence[bytes], *, leading: bytes = b"") -> None:
        self.pieces = pieces
        self.leading = leading
        self._lengths = sorted({len(piece) for piece in pieces} - {0})
        self.longest = max(self._lengths, default=0)

    def text(self, tokens: Sequence[int]) -> bytes:
        """The bytes of the text of these tokens."""
        return b"".join(self.pieces[token] for token in tokens).removeprefix(self.leading)

    @functools.cached_property
    def states(self) -> np.ndarray:
        """The state of UTF-8 after each token, [state, token]; arbitrary where `needs` is NEVER."""
        return self._tables[0]

    @functools.cached_property
    def needs(self) -> np.ndarray:
        """How few tokens complete a character after each token, [state, token]; NEVER where none can."""
        return self._tables[1]

    @functools.cached_property
    def fewest(self) -> list[int]:
        """How few tokens complete a character in each state; NEVER where none can."""
        return self._tables[2]

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        states = np.zeros((PREFIX, len(self.pieces)), dtype=np.uint8)
        valid = np.zeros(states.shape, dtype=bool)
        for token, piece in enumerate(self.pieces):
            if _is_text(piece):
                # within a character none of these may follow; the end of a text, which adds nothing, is one of them
                states[BETWEEN, token], valid[BETWEEN, token] = BETWEEN, True
                continue
            for state in TRANSITIONS:
                after = state_after(state, piece)
                if after is not None:
                    states[state, token], valid[state, token] = after, True
        fewest = np.full(PREFIX, NEVER)
        fewest[BETWEEN] = 0
        # a character has four bytes at most
        for _ in range(4):
            following = np.where(valid, fewest[states], NEVER).min(axis=1, initial=NEVER)
            fewest[1:] = np.minimum(following[1:] + 1, NEVER)
        return states, np.where(valid, fewest[states], NEVER).astype(np.uint8), fewest.tolist()

    @functools.cached_property
    def _by_bytes(self) -> dict[bytes, list[int]]:
        tokens: dict[bytes, list[int]] = {}
        for token, piece in enumerate(self.pieces):
            if piece:
                tokens.setdefault(piece, []).append(token)
        return tokens

    @functools.cached_property
    def _sorted(self) -> list[bytes]:
        return sorted(self._by_bytes)

    def agreeing(self, rest: bytes) -> Iterator[tuple[int, int]]:
        """Tokens that begin with `rest`, or are the beginning of it, and how many of their bytes are in it."""
        for length in self._lengths:
            if length > len(rest):
                break
            for token in self._by_bytes.get(rest[:length], ()):
                yield token, length
        for index in range(bisect_left(self._sorted, rest), len(self._sorted)):
            piece = self._sorted[index]
            if not piece.startswith(rest):
                break
            if piece != rest:
                yield from ((token, len(rest)) for token in self._by_bytes[piece])


@final
class Prefix:
    """A text to begin with. Its state is how many bytes of it are written; with none left it is one of UTF-8."""

    def __init__(self, spelling: Spelling, text: str) -> None:
        self._spelling = spelling
        self._target = spelling.leading + text.encode() if text else b""
        self._options: dict[int, list[Option]] = {}
        # from the end, so that the options of what follows are known
        self._needs = [NEVER_SPELT] * len(self._target)
        for position in reversed(range(len(self._target))):
            self._needs[position] = min([1 + each.need for each in self._of(position)] + [NEVER_SPELT])

    @property
    def start(self) -> int:
        """The state before the first token."""
        return PREFIX if self._target else BETWEEN

    @property
    def need(self) -> int:
        """How few tokens spell it; NEVER_SPELT where none do."""
        return self._needs[0] if self._target else 0

    def options(self, state: int) -> list[Option]:
        """The tokens that may follow where so much is written; an end of the text is none of them."""
        position = state - PREFIX
        if position not in self._options:
            self._options[position] = [each for each in self._of(position) if each.need < NEVER_SPELT]
        return self._options[position]

    def _of(self, position: int) -> Iterator[Option]:
        spelling, leading = self._spelling, self._spelling.leading
        yield from self._from(position, spelling.agreeing(self._rest(position)))
        if position == 0 and leading:
            # decoding drops what leads where it is there, so that it may as well be left out
            rest = spelling.agreeing(self._rest(len(leading)))
            others = ((token, count) for token, count in rest if not spelling.pieces[token].startswith(leading))
            yield from self._from(len(leading), others)

    def _rest(self, position: int) -> bytes:
        # one more than any token has, so that none that goes past it seems to complete the prefix
        return self._target[position : position + self._spelling.longest + 1]

    def _from(self, position: int, agreeing: Iterator[tuple[int, int]]) -> Iterator[Option]:
        for token, count in agreeing:
            if (reached := position + count) < len(self._target):
                yield Option(token, PREFIX + reached, self._needs[reached])
            elif (state := state_after(BETWEEN, self._spelling.pieces[token][count:])) is not None:
                need = self._spelling.fewest[state]
                yield Option(token, state, need if need < NEVER else NEVER_SPELT)


def prefixes_of(
    tokenizer: PairTokenizer, spelling: Spelling, texts: Mapping[int, str], name: Callable[[int], str]
) -> list[Prefix]:
    """The prefix that each text is. Raises RegardError, by the `name` of its key, where no tokens spell it."""
    found = {text: Prefix(spelling, tokenizer.normalised(text)) for text in dict.fromkeys(texts.values())}
    for index, text in texts.items():
        if found[text].need == NEVER_SPELT:
            closest = tokenizer.decode(tokenizer.encode(text))
            raise RegardError(
                f"{name(index)}: the model cannot begin with {text!r}, only with {closest!r}; use words that it "
                "knows, or a model with a bpe tokenizer"
            )
    return [found[text] for text in texts.values()]


@final
class TextConstraint:
    """What the translations of a batch may continue with; with none of the tokens `never`.

    Without a `spelling` each token is a text of its own. `room` is how many tokens a translation can have at most, its
    end counted. The tokens of a prefix are over and above the limit if `apart`, else part of it; they may exceed it.
    """

    def __init__(
        self,
        spelling: Spelling | None,
        prefixes: Sequence[Prefix] | None,
        *,
        room: int,
        apart: bool,
        device: torch.device,
        never: Sequence[int] = OWN_FRAMES.never,
    ) -> None:
        self._spelling, self._prefixes, self._room, self._apart = spelling, prefixes, room, apart
        never = list(never)
        if spelling is not None:
            self._states = torch.from_numpy(spelling.states).to(device)
            self._needs = torch.from_numpy(spelling.needs.copy()).to(device)
            self._needs[:, never] = NEVER
            never += (spelling.needs[BETWEEN] == NEVER).nonzero()[0].tolist()
            self._slack = max((need for need in spelling.fewest if need < NEVER), default=0)
        self._never = torch.tensor(never, dtype=torch.long, device=device)

    def text(self, tokens: Sequence[int]) -> bytes | tuple[int, ...]:
        """What tells a translation from others."""
        return tuple(tokens) if self._spelling is None else self._spelling.text(tokens)

    def longest(self, limits: Int[Tensor, " row"]) -> int:
        """How many steps there are at most."""
        return int(limits.max()) if self._prefixes is None else self._room

    def start(self, tokens: Int[Tensor, "row 1"]) -> Int[Tensor, "row 1"]:
        """The states of all sentences before their first token."""
        if self._prefixes is None:
            return torch.full_like(tokens, BETWEEN)
        return torch.tensor([[prefix.start] for prefix in self._prefixes], device=tokens.device)

    def limits(self, limits: Int[Tensor, "row beam"], states: Int[Tensor, "row beam"]) -> Int[Tensor, "row beam"]:
        """How many tokens each may have, with one more for the prefix that it is about to go on with."""
        if self._prefixes is None or not self._apart:
            return limits
        return torch.where(states >= PREFIX, (limits + 1).clamp(max=self._room), limits)

    def cut(
        self, limits: Int[Tensor, "row beam"], states: Int[Tensor, "row beam"], step: int
    ) -> Bool[Tensor, "row beam"]:
        """Which are at their limit after this step, with all of their prefix."""
        return (limits <= step + 1) & (states < PREFIX)

    def close(
        self,
        log_probs: Float[Tensor, "row beam vocabulary"],
        sentences: Int[Tensor, " row"],
        states: Int[Tensor, "row beam"],
        limits: Int[Tensor, "row beam"],
        step: int,
    ) -> Float[Tensor, "row beam vocabulary"]:
        """-inf, in place, for each token after which no text could be valid, or begin with its prefix, in its limit."""
        left = limits - step - 1
        if self._spelling is None or not bool((states > BETWEEN).any() | (left < self._slack).any()):
            return log_probs.index_fill_(2, self._never, -torch.inf)
        closed = self._needs[states.clamp(max=PREFIX - 1)] > left.clamp(0, NEVER - 1).to(torch.uint8)[:, :, None]
        for row, beam in (states >= PREFIX).nonzero().tolist():
            # a prefix may take all the room there is, what follows it only its own limit
            most = {True: self._room - step - 1, False: max(0, int(left[row, beam]))}
            options = self._options(sentences[row], states[row, beam])
            closed[row, beam] = True
            closed[row, beam, [each.token for each in options if each.need <= most[each.state >= PREFIX]]] = False
        return log_probs.masked_fill_(closed, -torch.inf)

    def after(
        self, sentences: Int[Tensor, " row"], states: Int[Tensor, "row token"], tokens: Int[Tensor, "row token"]
    ) -> Int[Tensor, "row token"]:
        """The states after these tokens; arbitrary after one that was closed."""
        if self._spelling is None:
            return states
        following = self._states[states.clamp(max=PREFIX - 1), tokens].long()
        for row, column in (states >= PREFIX).nonzero().tolist():
            token = int(tokens[row, column])
            options = self._options(sentences[row], states[row, column])
            following[row, column] = next((each.state for each in options if each.token == token), BETWEEN)
        return following

    def _options(self, sentence: Tensor, state: Tensor) -> list[Option]:
        assert self._prefixes is not None
        return self._prefixes[int(sentence)].options(int(state))
