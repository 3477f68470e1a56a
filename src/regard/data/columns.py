"""Which texts of a record are wanted: the two sides of a pair or the text of a document, and under which names.

A record is a row of a table, an object of JSON, a unit of a translation memory. Its names are those of the columns,
the keys or the languages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regard.config import suggest
from regard.data.kinds import Task
from regard.data.lines import tell_once
from regard.errors import RegardError

Key = str | int


@dataclass(frozen=True)
class Columns:
    """The texts that are wanted of each record, by the names that they usually have.

    `keys` are the names that they have in these files, or their numbers from 1, where a user said so.
    """

    names: tuple[str, ...]
    keys: tuple[Key | None, ...]

    @property
    def task(self) -> Task:
        return "pairs" if len(self.names) == 2 else "documents"

    @property
    def named(self) -> set[str]:
        """The keys that are names, not numbers."""
        return {str(key) for key in self.keys if key is not None and column_number(key) is None}

    @property
    def blank(self) -> tuple[str, ...]:
        """A record with nothing to read."""
        return ("",) * len(self.names)

    def settings(self, values: Sequence[object] = ()) -> str:
        """The settings that name the columns, with these values or, where there are none, those to be filled in."""
        shown = [repr(value) for value in values] or ["…"] * len(self.names)
        return " and ".join(f"data.{name}_key = {value}" for name, value in zip(self.names, shown, strict=True))

    def find(
        self,
        present: Sequence[str],
        where: str,
        *,
        what: str = "column",
        same: Callable[[str, str], bool] = str.__eq__,
        told: bool = True,
    ) -> tuple[int, ...]:
        """The places of the wanted texts among the names that are `present`, which are `what` calls them.

        Where no keys were given, these are the columns of the usual names, or all of them if there are no more.
        Raises RegardError that lists the names where they leave open which is meant.
        """
        found = [None if key is None else self._place(key, present, where, what, same) for key in self.keys]
        usual = None
        if None in found:
            usual = [next((place for place, n in enumerate(present) if n.lower() == name), None) for name in self.names]
            if found == [None] * len(found) and None not in usual:
                found = usual
            elif len(present) == len(self.names):
                left = [place for place in range(len(present)) if place not in found]
                found = [left.pop(0) if place is None else place for place in found]
        places = [place for place in found if place is not None]
        if len(places) < len(self.names):
            raise RegardError(
                f"{where}: has the {_plural(what)} {_listed(present)}; say which to read: {self.settings()}"
            )
        if len(set(places)) < len(places):
            raise RegardError(f"{where}: source and target are both {what} {present[places[0]]!r}; name two")
        if told and len(present) > 1 and any(key is None for key in self.keys) and usual != found:
            tell_once("%s: %s; to choose otherwise set %s", where, self.told(present, places), self.settings())
        return tuple(places)

    def told(self, present: Sequence[str], places: Sequence[int]) -> str:
        """Which name is taken for what."""
        return ", ".join(f"{name} is {present[place]!r}" for name, place in zip(self.names, places, strict=True))

    def _place(self, key: Key, present: Sequence[str], where: str, what: str, same: Callable[[str, str], bool]) -> int:
        exact = [place for place, name in enumerate(present) if name == str(key)]
        found = exact or [place for place, name in enumerate(present) if same(name, str(key))]
        if len(found) == 1:
            return found[0]
        if found:
            raise RegardError(f"{where}: {key!r} may be {_listed([present[place] for place in found])}; name one")
        if (number := column_number(key)) is not None and number <= len(present):
            return number - 1
        raise RegardError(f"{where}: there is no {what} {key!r}{suggest(str(key), present[:12])}")


def column_number(key: Key | None) -> int | None:
    """The number of a column, from 1, that a key may be."""
    text = str(key)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 and int(text) else None


PAIR_NAMES, TEXT_NAMES = ("source", "target"), ("text",)
# of conversations: a list of messages, or a question and its answer
MESSAGES = ("messages",)
CHATS = (MESSAGES, ("prompt", "completion"), ("question", "answer"))
PAIR, TEXT = Columns(PAIR_NAMES, (None, None)), Columns(TEXT_NAMES, (None,))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:12]) + (" …" if len(names) > 12 else "")


def _plural(what: str) -> str:
    return what if what.endswith("s") else f"{what}s"
