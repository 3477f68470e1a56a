"""Corpora by name, prepared once in the user's cache and checked every time they are used."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regard.config import suggest
from regard.data.austen import write_austen
from regard.data.bible import ELBERFELDER, SEGOND, write_bible, write_english_bible
from regard.data.corpus import Corpus
from regard.data.download import cache_dir, file_sha256
from regard.data.formats import read_pairs
from regard.data.greek import write_greek
from regard.data.libreoffice import write_libreoffice
from regard.data.numbers import write_numbers
from regard.data.parts import paths_in
from regard.data.text import Text, read_passages
from regard.errors import RegardError
from regard.files import new_folder

__all__ = ["CORPORA", "Corpus", "NamedCorpus", "cache_dir", "get_corpus"]

FACTS = "corpus.json"
LICENCE = "LICENCE.txt"
# of the making of corpora: what another version made is made anew
VERSION = 2
SPLITS = ("train", "dev", "test")
UNITS = {".tsv": "pairs", ".jsonl": "documents"}

logger = logging.getLogger("regard")


@dataclass(frozen=True)
class NamedCorpus:
    """What is told of a corpus before it is made, and what makes it.

    `write` writes the splits into a folder, as train.tsv and so on, and gold links, if there are any, as test.links;
    plain text, which has no target language, as train.jsonl and so on.
    """

    about: str
    source_language: str
    target_language: str | None
    licence: str
    attribution: str
    write: Callable[[Path], None]

    @property
    def suffix(self) -> str:
        """Of the files of its splits."""
        return ".jsonl" if self.target_language is None else ".tsv"


BEREAN = (
    "English: Berean Standard Bible (berean.bible), public domain, from a table of Bible Word Alignments, "
    "© 2022 Clear Bible, Inc, CC BY 4.0."
)


def _libreoffice(language: str, name: str) -> NamedCorpus:
    return NamedCorpus(
        about=f"Help pages of LibreOffice, English to {name}: modern, technical and short.",
        source_language="en",
        target_language=language,
        licence="MPL-2.0",
        attribution="LibreOffice 7.4 help, © LibreOffice contributors (libreoffice.org), under the Mozilla Public "
        "License 2.0 (mozilla.org/MPL/2.0), from Debian's packages. Changed: paragraphs are paired, without markup.",
        write=partial(write_libreoffice, language=language),
    )


CORPORA: dict[str, NamedCorpus] = {
    "numbers-en-fr": NamedCorpus(
        about="Number names, English to French, generated: from one word to 24, of numbers below 10^15.",
        source_language="en",
        target_language="fr",
        licence="none needed: generated",
        attribution="Number names by num2words.",
        write=write_numbers,
    ),
    "bible-en-fr": NamedCorpus(
        about="The Bible, English (Berean Standard Bible) to French (Segond 1910): 80 MB to download.",
        source_language="en",
        target_language="fr",
        licence="public domain",
        attribution=f"{BEREAN} French: La Sainte Bible, Louis Segond 1910, public domain.",
        write=partial(write_bible, code=SEGOND),
    ),
    "bible-en-de": NamedCorpus(
        about="The Bible, English (Berean Standard Bible) to German (Elberfelder): 80 MB to download.",
        source_language="en",
        target_language="de",
        licence="public domain",
        attribution=f"{BEREAN} German: Elberfelder Bibel, unrevised, public domain.",
        write=partial(write_bible, code=ELBERFELDER),
    ),
    "greek-en": NamedCorpus(
        about="The New Testament, Greek (SBLGNT) to English (Berean Standard Bible), with manual word links: 9 MB.",
        source_language="el",
        target_language="en",
        licence="CC-BY-4.0",
        attribution="Greek: SBL Greek New Testament (sblgnt.com), © 2010 Society of Biblical Literature and Logos "
        "Bible Software, CC BY 4.0. English: Berean Standard Bible (berean.bible), public domain. Tables and manual "
        "word links: Bible Word Alignments (github.com/Clear-Bible/Alignments), © 2022 Clear Bible, Inc, CC BY 4.0. "
        "Changed: links join words, not tokens; verses with no link, or with one to another verse, are left out.",
        write=write_greek,
    ),
    "libreoffice-en-fr": _libreoffice("fr", "French"),
    "libreoffice-en-de": _libreoffice("de", "German"),
    "libreoffice-en-zh": _libreoffice("zh", "Chinese"),
    "austen": NamedCorpus(
        about="Plain text: Jane Austen's six novels, by chapters: 2 MB to download.",
        source_language="en",
        target_language=None,
        licence="public domain",
        attribution="Jane Austen's novels, public domain, as in the R package janeaustenr, © 2016-2017 Julia Silge, "
        "MIT licence, from Debian's r-cran-janeaustenr.",
        write=write_austen,
    ),
    "bible-en": NamedCorpus(
        about="Plain text: the Bible in English (Berean Standard Bible), by chapters: 9 MB to download.",
        source_language="en",
        target_language=None,
        licence="public domain",
        attribution=BEREAN,
        write=write_english_bible,
    ),
}


def get_corpus(name: str) -> Corpus | Text:
    """A corpus of CORPORA, made now or taken from the cache.

    Raises RegardError if there is none of that name, or if it cannot be downloaded or written.
    """
    if name not in CORPORA:
        raise RegardError(f"there is no corpus {name!r}{suggest(name, CORPORA)}")
    if (corpus := cached_corpus(name)) is not None:
        return corpus
    folder = corpus_folder(name)
    if folder.exists():
        logger.warning("%s: not as it is made now; making it anew", folder)
    logger.info("preparing corpus %s in %s", name, folder)
    with new_folder(folder) as temporary:
        CORPORA[name].write(temporary)
        facts = {"name": name, "version": VERSION, "files": _files(temporary)}
        (temporary / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    corpus = cached_corpus(name)
    assert corpus is not None, folder
    return corpus


def cached_corpus(name: str) -> Corpus | Text | None:
    """The corpus of that name in the cache, or None where it is not there just as it is made now."""
    folder, named = corpus_folder(name), CORPORA[name]
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            return None
        for file, recorded in facts["files"].items():
            path = folder / file
            if (path.stat().st_size, file_sha256(path)) != (recorded["size"], recorded["sha256"]):
                return None
        splits = {split: (folder / f"{split}{named.suffix}",) for split in SPLITS}
        if any(path.name not in facts["files"] for (path,) in splits.values()):
            return None
        links = {split: folder / f"{split}.links" for split in SPLITS if f"{split}.links" in facts["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if named.target_language is None:
        return Text(name=name, splits=splits, licence=named.licence, attribution=named.attribution)
    return Corpus(
        name=name,
        splits=splits,
        source_language=named.source_language,
        target_language=named.target_language,
        licence=named.licence,
        attribution=named.attribution,
        links=links,
    )


def cached_sizes(name: str) -> dict[str, int] | None:
    """How many pairs, or documents, each split has, or None where a corpus is not in the cache as it is made now."""
    if cached_corpus(name) is None:
        return None
    files = json.loads((corpus_folder(name) / FACTS).read_text(encoding="utf-8"))["files"]
    suffix = CORPORA[name].suffix
    return {split: files[f"{split}{suffix}"][UNITS[suffix]] for split in SPLITS}


def copy_corpus(corpus: Corpus | Text, to: Path) -> list[Path]:
    """Copy a named corpus, its gold links and a note of its licence into a new folder; returns the files.

    Raises RegardError if there is something at `to` already, or if it cannot be written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RegardError(f"{to}: there is something already, and nothing is overwritten; name a new folder")
    paths = [path for data in corpus.splits.values() for path in paths_in(data)] + list(corpus.links.values())
    with new_folder(to) as folder:
        for path in paths:
            shutil.copyfile(path, folder / Path(path).name)
        lines = [corpus.name, CORPORA[corpus.name].about, f"Licence: {corpus.licence}", corpus.attribution]
        (folder / LICENCE).write_text("\n".join(filter(None, lines)) + "\n", encoding="utf-8")
    return sorted(to.iterdir())


def corpus_folder(name: str) -> Path:
    return cache_dir() / "corpora" / name


def _files(folder: Path) -> Mapping[str, Any]:
    files = {}
    for path in sorted(folder.iterdir()):
        files[path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        if path.suffix in UNITS:
            units = read_pairs([path]) if path.suffix == ".tsv" else read_passages([path])
            files[path.name][UNITS[path.suffix]] = sum(1 for _ in units)
    return files
