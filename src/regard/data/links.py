"""Gold links: which source word translates which target word, as people who read both languages marked it.

One line for each pair, in the Pharaoh format: `i-j` links source word i to target word j, both from 0, in
`regard.data.words.split_words`; `i?j` is a possible link, which Och and Ney 2003, "A systematic comparison of various
statistical alignment models", section 5, set apart from a sure one.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from regard.data.formats import Pair, display_name, read_lines
from regard.data.words import count_words
from regard.errors import RegardError

# the digits that int takes are those of all scripts, and it balks at thousands of them
LINK = re.compile(r"([0-9]{1,9})([-?])([0-9]{1,9})")

Link = tuple[int, int]


class Links(NamedTuple):
    """The links of one pair as (source word, target word), from 0. Every sure link is a possible one as well."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def read_links(path: Path | str, pairs: Iterable[Pair]) -> Iterator[Links]:
    """The links of each pair, from a file with a line for each.

    Raises RegardError, with file and line, for what is no link, for a link past the sentence, and for more or fewer
    lines than pairs.
    """
    name = display_name(path)
    counts = {"lines": 0, "pairs": 0}
    for line, pair in zip_longest(read_lines(path), pairs):
        counts["lines"] += line is not None
        counts["pairs"] += pair is not None
        if line is not None and pair is not None:
            yield _parsed(line, pair, f"{name}:{counts['lines']}")
    if counts["lines"] != counts["pairs"]:
        raise RegardError(
            f"{name} has {counts['lines']} lines for {counts['pairs']} pairs; it needs a line of links for each pair, "
            "an empty one for none"
        )


def read_both_directions(
    forward: Path | str, reverse: Path | str, *, swapped: bool = False
) -> Iterator[tuple[set[Link], set[Link]]]:
    """The links of each line of two files, possible ones too; with `swapped` the second has target words first.

    Raises RegardError, with file and line, for what is no link, and for files of unequal length.
    """
    names = [display_name(path) for path in (forward, reverse)]
    for number, lines in enumerate(zip_longest(read_lines(forward), read_lines(reverse)), 1):
        if None in lines:
            short, long = names if lines[0] is None else names[::-1]
            raise RegardError(f"{short} ends before line {number} of {long}; both need a line for each pair")
        one, other = (
            {(int(i), int(j)) for i, j in (_match(word, f"{name}:{number}").group(1, 3) for word in line.split())}
            for line, name in zip(lines, names, strict=True)
        )
        yield one, {(i, j) for j, i in other} if swapped else other


def write_links(path: Path, links: Iterable[Links]) -> None:
    """Write one line for each pair."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{format_links(each)}\n" for each in links)


def format_links(links: Links) -> str:
    """The links of one pair as a line, in order of source words."""
    assert links.sure <= links.possible
    return " ".join(f"{i}{'-' if (i, j) in links.sure else '?'}{j}" for i, j in sorted(links.possible))


def _match(word: str, where: str) -> re.Match[str]:
    match = LINK.fullmatch(word)
    if match is None:
        raise RegardError(
            f"{where}: {word[:40]!r} is no link; write i-j, or i?j for a possible one, with the number of a "
            "source word and of a target word, both from 0"
        )
    return match


def _parsed(line: str, pair: Pair, where: str) -> Links:
    sizes = [count_words(side) for side in pair]
    found: dict[str, set[Link]] = {"-": set(), "?": set()}
    for word in line.split():
        match = _match(word, where)
        link = int(match[1]), int(match[3])
        if link[0] >= sizes[0] or link[1] >= sizes[1]:
            raise RegardError(
                f"{where}: {word} points past the sentence: it has {sizes[0]} source and {sizes[1]} target words, "
                "counted from 0"
            )
        found[match[2]].add(link)
    return Links(sure=frozenset(found["-"]), possible=frozenset(found["-"] | found["?"]))
