import pytest

from regard.data.links import read_both_directions
from regard.data.word_links import HEURISTICS, WordAligner
from regard.errors import RegardError

# a grid as in Koehn, Och and Marcu 2003: the diagonal is agreed on but for one place, and far off is a word of its own
FORWARD = {(0, 0), (1, 1), (2, 3), (5, 5), (4, 2)}
REVERSE = {(0, 0), (1, 1), (1, 2), (5, 5), (6, 7)}


@pytest.mark.parametrize(
    ("heuristic", "expected"),
    [
        ("intersection", {(0, 0), (1, 1), (5, 5)}),
        ("union", FORWARD | REVERSE),
        # (1, 2) is beside (1, 1) and (2, 3) beside that
        ("grow-diag", {(0, 0), (1, 1), (5, 5), (1, 2), (2, 3)}),
        # of the words of (4, 2) one has a link, of those of (6, 7) none
        ("grow-diag-final-and", {(0, 0), (1, 1), (5, 5), (1, 2), (2, 3), (6, 7)}),
        ("grow-diag-final", {(0, 0), (1, 1), (5, 5), (1, 2), (2, 3), (6, 7), (4, 2)}),
    ],
)
def test_each_heuristic_joins_both_directions_as_the_papers_say(heuristic, expected):
    assert HEURISTICS[heuristic](set(FORWARD), set(REVERSE)) == expected


def test_words_that_translate_each_other_are_linked_without_a_link_being_given():
    nouns = {"dog": "chien", "cat": "chat", "bird": "oiseau", "fish": "poisson"}
    colours = {"red": "rouge", "green": "vert", "blue": "bleu"}
    pairs = [(["the", colour, noun], ["le", nouns[noun], colours[colour]]) for noun in nouns for colour in colours]
    for forward, reverse in WordAligner.learn(pairs).directions(pairs):
        assert forward == reverse == {(0, 0), (1, 2), (2, 1)}


def test_files_of_both_directions_are_read_line_by_line(tmp_path):
    forward, reverse = tmp_path / "forward", tmp_path / "reverse"
    forward.write_text("0-0 1-2\n\n")
    reverse.write_text("0-0 2-1\n0?1\n")
    assert list(read_both_directions(forward, reverse)) == [({(0, 0), (1, 2)}, {(0, 0), (2, 1)}), (set(), {(0, 1)})]
    swapped = list(read_both_directions(forward, reverse, swapped=True))
    assert swapped == [({(0, 0), (1, 2)}, {(0, 0), (1, 2)}), (set(), {(1, 0)})]
    forward.write_text("0-0\n")
    with pytest.raises(RegardError, match="forward ends before line 2 of"):
        list(read_both_directions(forward, reverse))
    forward.write_text("0-0\n0:1\n")
    with pytest.raises(RegardError, match="forward:2: '0:1' is no link"):
        list(read_both_directions(forward, reverse))
