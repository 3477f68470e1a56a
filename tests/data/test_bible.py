"""The Bible's verses, from fabricated sources."""

import sqlite3

import pytest

from regard.data.bible import ELBERFELDER, SEGOND, align_verses, clean_verse, read_tokens, read_verses
from regard.errors import RegardError

HEADER = "id\tsource_verse\ttext\tskip_space_after\texclude\tid_range_end\tsource_verse_range_end\n"


def test_tokens_are_read_by_verse_with_the_spaces_after_them(tmp_path):
    path = tmp_path / "ot.tsv"
    rows = [
        "01001001001\t\tIn\t\t\t\t",
        '01001001002\t\t"it\ty\t\t\t',
        "01001001003\t\t.\t\ty\t\t",
        "66022021001\t\tAmen\ty\t\t\t",
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    assert read_tokens(path) == {
        (1, 1, 1): {"01001001001": "In ", "01001001002": '"it', "01001001003": ". "},
        (66, 22, 21): {"66022021001": "Amen"},
    }


def test_a_table_without_spaces_has_one_after_each_token(tmp_path):
    path = tmp_path / "greek.tsv"
    path.write_text(
        "id\ttext\tlemma\r\nn40001001001\tΒίβλος\tβίβλος\r\nn40001001002\tγενέσεως\tγένεσις\r\n", newline=""
    )
    assert read_tokens(path) == {(40, 1, 1): {"n40001001001": "Βίβλος ", "n40001001002": "γενέσεως "}}


@pytest.mark.parametrize(
    "row", ["0100100100\t\tIn\t\t\t\t", "01001001001", "x", "01001001001\t\tI n\t", "01001001001\t\t\t"]
)
def test_a_row_that_is_no_token_is_refused(tmp_path, row):
    path = tmp_path / "ot.tsv"
    path.write_text(HEADER + row + "\n")
    with pytest.raises(RegardError, match=r"ot.tsv:2: .*bring your own text"):
        read_tokens(path)


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
    assert clean_verse((book, 1, verse), text, SEGOND) == cleaned


@pytest.mark.parametrize(
    ("book", "verse", "text", "cleaned"),
    [
        (19, 1, "(Ein Psalm; von David.) Jehova, wer wird weilen?", "Jehova, wer wird weilen?"),
        (19, 1, "(Lobet Jehova!) Lobet Gott!", "(Lobet Jehova!) Lobet Gott!"),
        (19, 1, "Singet (immer) Jehova!", "Singet (immer) Jehova!"),
        (19, 2, "Viele sagen. (Sela.)", "Viele sagen. (Sela.)"),
        (1, 1, "(Und Bethuel zeugte Rebekka.) Diese", "(Und Bethuel zeugte Rebekka.) Diese"),
        (19, 20, "Amen. * * *", "Amen."),
        (19, 8, "Verlaß mich nicht! *", "Verlaß mich nicht!"),
    ],
)
def test_german_titles_and_asterisks_are_taken_off(book, verse, text, cleaned):
    assert clean_verse((book, 1, verse), text, ELBERFELDER) == cleaned


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
