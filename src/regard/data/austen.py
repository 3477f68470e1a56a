"""Jane Austen's six novels, chapter by chapter, as the R package janeaustenr brings them."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from regard.data.download import OWN_FILE, Package, download, read_deb_bytes
from regard.data.r_data import read_database
from regard.data.splits import write_document_splits
from regard.errors import RegardError

PACKAGE = Package(
    requirement="r-cran-janeaustenr=1.0.0-1",
    size=1_626_392,
    sha256="df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
)
DATABASE = "/data/Rdata"
CHAPTER = re.compile(r"chapter (?:\d+|[ivxlc]+)", re.IGNORECASE)
# what stands between and after the chapters
NO_CHAPTER = re.compile(r"volume [ivx]+|finis|the end|a note on the text", re.IGNORECASE)


def write_austen(folder: Path) -> None:
    """Split files of the novels' chapters; the download is deleted.

    Raises RegardError if the package cannot be fetched or is not the one that was checked.
    """
    package = download(PACKAGE, folder)
    files = {Path(name).suffix: content for name, content in read_deb_bytes(package, "") if DATABASE in name}
    package.unlink()
    if not {".rdx", ".rdb"} <= files.keys():
        raise RegardError(f"{package.name}: the novels are not in it; {OWN_FILE}")
    novels = read_database(files[".rdx"], files[".rdb"])
    write_document_splits(folder, [chapter for name in sorted(novels) for chapter in chapters(novels[name])])


def chapters(lines: Iterable[str]) -> Iterator[str]:
    """The chapters of a novel, each headed by its number, a paragraph a line with a blank line before the next."""
    chapter: list[str] = []
    inside = False
    for is_blank, group in groupby(lines, key=lambda line: not line.strip()):
        if is_blank:
            continue
        paragraph = " ".join(" ".join(group).split())
        is_heading = CHAPTER.fullmatch(paragraph) is not None
        if is_heading or NO_CHAPTER.fullmatch(paragraph):
            if chapter:
                yield "\n\n".join(chapter) + "\n"
            chapter, inside = [], is_heading
        if inside:
            chapter.append(paragraph)
    if chapter:
        yield "\n\n".join(chapter) + "\n"
