"""`regard symmetrise`: one set of word links from those of both directions."""

from pathlib import Path

from regard.cli.options import Heuristic


def symmetrise(
    forward: Path,
    reverse: Path,
    /,
    *,
    heuristic: Heuristic = "grow-diag-final-and",
    swapped: bool = False,
) -> None:
    """Join the word links of both directions, as `atools -c` of fast_align does: lines of `i-j` in, lines of `i-j` out.

    Parameters
    ----------
    forward
        Links from source to target, a line for each pair (Pharaoh format), of any aligner. `-` is standard input.
    reverse
        Links of the other direction for the same pairs; also in these the source word comes first, as `fast_align -r`
        writes them.
    heuristic
        intersection keeps the links that both have, union those that either has. grow-diag adds to the intersection
        links of the union next to those found; -final adds links of words that have none, -final-and where neither
        word has one.
    swapped
        In the second file the target word comes first: it was aligned with source and target changed over.
    """
    from regard.data.links import read_both_directions
    from regard.data.word_links import HEURISTICS, as_text

    for one, other in read_both_directions(forward, reverse, swapped=swapped):
        print(as_text(HEURISTICS[heuristic](one, other)))
