"""The Bible's verses, from fabricated sources."""

import sqlite3

import pytest

from regard.data.bible import align_verses, clean_verse, read_token_table, read_verses, split_pairs
from regard.data.formats import Pair
from regard.errors import RegardError

HEADER = "id\tsource_verse\ttext\tskip_space_after\texclude\tid_range_end\tsource_verse_range_end\n"


def test_tokens_are_joined_into_verses(tmp_path):
    path = tmp_path / "ot.tsv"
    rows = [
        "01001001001\t\tIn\t\t\t\t",
        '01001001002\t\t"it\ty\t\t\t',
        "01001001003\t\t.\t\ty\t\t",
        "66022021001\t\tAmen\ty\t\t\t",
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    assert read_token_table(path) == {(1, 1, 1): 'In "it.', (66, 22, 21): "Amen"}


@pytest.mark.parametrize("row", ["0100100100\t\tIn\t\t\t\t", "01001001001", "x"])
def test_a_row_that_is_no_token_is_refused(tmp_path, row):
    path = tmp_path / "ot.tsv"
    path.write_text(HEADER + row + "\n")
    with pytest.raises(RegardError, match=r"ot.tsv:2: .*bring your own text"):
        read_token_table(path)


def test_verses_of_the_chosen_bible_alone_are_read(tmp_path):
    path = tmp_path / "a # bible.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE bible (bbName TEXT, bNumber INT, cNumber INT, vNumber INT, vText TEXT)")
    rows = [
        ("l", 2, 8, 1, "(7:26) L'Éternel  dit"),
        ("c", 2, 8, 1, "another"),
        ("l", 19, 23, 1, "Psaume de David. Oui."),
    ]
    database.executemany("INSERT INTO bible VALUES (?, ?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    assert read_verses(path, "l") == {(2, 8, 1): "L'Éternel dit", (19, 23, 1): "Oui."}


@pytest.mark.parametrize("data", [b"", b"not a database at all" * 100])
def test_what_is_no_database_is_refused(tmp_path, data):
    path = tmp_path / "bible.db"
    path.write_bytes(data)
    with pytest.raises(RegardError, match="bring your own text"):
        read_verses(path, "l")


@pytest.mark.parametrize(
    ("book", "verse", "text", "cleaned"),
    [
        (41, 9, "Sel. (9:51) Ayez du sel.", "Sel. Ayez du sel."),
        (23, 1, "(63:19b) Oh! si", "Oh! si"),
        (3, 2, "(5:21 Lorsque quelqu'un", "Lorsque quelqu'un"),
        (19, 2, "(51:4) Lave-moi", "Lave-moi"),
        (19, 1, "(51:1) Au chef des chantres. (51:2) Lorsque Nathan vint. (51:3) O Dieu!", "O Dieu!"),
        (19, 1, "Au chef des chantres. De David. Psaume. Éternel! tu me sondes", "Éternel! tu me sondes"),
        (19, 1, "Prière de Moïse, homme de Dieu. Seigneur!", "Seigneur!"),
        (19, 1, "Cantique des degrés, Je lève mes yeux.", "Je lève mes yeux."),
        (19, 1, "Louez l'Éternel! Mon âme, loue.", "Louez l'Éternel! Mon âme, loue."),
        (19, 1, "Au chef des chantres. Psaume de David.", ""),
        (1, 1, "Psaume de David. Oui.", "Psaume de David. Oui."),
    ],
)
def test_markers_and_psalm_titles_are_taken_off(book, verse, text, cleaned):
    assert clean_verse(book, verse, text) == cleaned


def test_only_translated_verses_of_like_length_and_numbering_are_paired():
    english = {
        (1, 1, 1): "one two",
        (1, 1, 2): "one two three",
        (1, 1, 3): "one",
        (1, 1, 4): "one",
        (1, 1, 5): "a MISSING",
        (1, 1, 6): "only english",
        (1, 2, 0): "a title",
        (19, 13, 1): "one",
        (19, 13, 2): "two",
    }
    french = {
        (1, 1, 1): "un deux trois quatre",
        (1, 1, 2): "un",
        (1, 1, 3): "un deux trois",
        (1, 1, 4): "",
        (1, 1, 5): "un dummy",
        (1, 1, 7): "seul",
        (1, 2, 0): "un titre",
        (19, 13, 1): "un",
        (19, 13, 2): "un",
    }
    assert list(align_verses(english, french)) == [("one two", "un deux trois quatre")]


def test_a_source_text_that_comes_twice_is_in_one_split():
    pairs = [Pair(f"source {n % 50}", f"target {n}") for n in range(100)]
    splits = split_pairs(pairs, 10)
    assert {split: len(part) for split, part in splits.items()} == {"train": 60, "dev": 20, "test": 20}
    sources = [{pair.source for pair in part} for part in splits.values()]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 50
