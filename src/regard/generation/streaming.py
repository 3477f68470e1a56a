"""Text as its tokens come: whole characters, as a reader sees them, and nothing that may yet be a stop text.

A character is what Unicode Standard Annex 29 calls an extended grapheme cluster: a letter with its accents, a flag, an
emoji of several parts.
"""

from collections.abc import Callable, Sequence
from typing import final

import regex


@final
class TextStream:
    """`add` a token and get the text that is certain by now, `finish` and get the rest; `stopped` by a stop text.

    `text` is all that was given, and the same however the text is cut into tokens. With `one_line` it stops at the
    first newline after text, too.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], stops: Sequence[str] = (), *, one_line: bool = False
    ) -> None:
        self._decode = decode
        self._stops = stops
        self._one_line = one_line
        self._ids: list[int] = []
        # ids before `_done` are text already; those from `_context` on tell how the next are spelt
        self._context = self._done = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that may be shown now, often none."""
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self._decode(self._ids[self._context :])
        # bytes of a character whose others are still to come
        return "" if text.endswith("\ufffd") else self._release(self._new(text), whole=False)

    def finish(self) -> str:
        """What is left; a character that was never made whole shows as U+FFFD."""
        if self.stopped:
            return ""
        return self._release(self._new(self._decode(self._ids[self._context :])), whole=True)

    def _new(self, text: str) -> str:
        before = self._decode(self._ids[self._context : self._done])
        self._context, self._done = self._done, len(self._ids)
        return text[len(before) :]

    def _release(self, added: str, *, whole: bool) -> str:
        self._held += added
        found = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if self._one_line:
            newlines = (place for place, letter in enumerate(self._held) if letter == "\n")
            found += [(place + 1, place) for place in newlines if (self.text + self._held[:place]).strip()]
        if found:
            # that which was complete first, as if the text had come letter by letter
            self.stopped = True
            cut = min(found)[1]
        else:
            cut = len(self._held) if whole else self._certain()
        shown, self._held = self._held[:cut], "" if self.stopped else self._held[cut:]
        self.text += shown
        return shown

    def _certain(self) -> int:
        """How much of what is held is whole characters and no beginning of a stop text."""
        held = self._held
        begun = min((at for stop in self._stops for at in range(len(held)) if stop.startswith(held[at:])), default=None)
        least = len(held) if begun is None else begun
        # what is added may join the last character; to a newline nothing does
        starts = [match.start() for match in regex.finditer(r"\X", held)]
        borders = [*starts, len(held)] if held.endswith("\n") else starts
        return max((border for border in borders if border <= least), default=0)
