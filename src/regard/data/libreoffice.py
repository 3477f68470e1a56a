"""The help pages of LibreOffice, paragraph by paragraph, in two languages: modern, technical and short sentences."""

import math
import statistics
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

from regard.data.download import Package, download, read_deb
from regard.data.formats import Pair
from regard.data.near_duplicates import letters
from regard.data.splits import write_splits

VERSION = "4:7.4.7-1+deb12u14"
PACKAGES = {
    language: Package(f"libreoffice-help-{code}={VERSION}", size, sha256)
    for language, code, size, sha256 in [
        ("en", "en-us", 1_753_504, "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712"),
        ("de", "de", 3_293_908, "00490b63c509ac96f7f212d6a6e40452d3e0d1f97ccf4b824dd5ec4c01e8277f"),
        ("fr", "fr", 3_237_008, "c796530d3e95af1ea4d054076682efc8aad2b569ae9513f3d4a776b2df3fd206"),
        ("zh", "zh-cn", 3_435_780, "db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee"),
    ]
}
# file below the language's folder, paragraph id
Place = tuple[str, str]

PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
CODE = {"bascode", "pycode", "code", "codeintable", "smathcode"}
MOST_LENGTH_RATIO = 3.0


def write_libreoffice(folder: Path, *, language: str) -> None:
    """Split files of the English help pages beside those of another language; the downloads are deleted.

    Raises RegardError if a package cannot be fetched or is not the one that was checked.
    """
    sides = []
    for side in ("en", language):
        package = download(PACKAGES[side], folder)
        sides.append(read_help(package))
        package.unlink()
    write_splits(folder, align_paragraphs(*sides))


def align_paragraphs(source: Mapping[Place, str], target: Mapping[Place, str]) -> list[Pair]:
    """Pairs of the paragraphs in both, each pair once, that are translated and of like length.

    Not translated is what has the same letters on both sides, or none on one. Of like length is a pair whose ratio of
    letters is within MOST_LENGTH_RATIO times the median.
    """
    pairs = {Pair(source[place], target[place]): None for place in sorted(source.keys() & target.keys())}
    ratios = {}
    for pair in pairs:
        one, other = map(letters, pair)
        if one and other and one != other:
            ratios[pair] = math.log(len(other) / len(one))
    median = statistics.median(ratios.values()) if ratios else 0.0
    return [pair for pair, ratio in ratios.items() if abs(ratio - median) <= math.log(MOST_LENGTH_RATIO)]


def read_help(package: Path) -> dict[Place, str]:
    """The paragraphs of a Debian package of help pages."""
    paragraphs: dict[Place, str] = {}
    for name, html in read_deb(package, ".html"):
        _, text_folder, page = name.partition("/text/")
        if text_folder:
            for identity, text in read_paragraphs(html):
                # a page that embeds a paragraph twice says the same both times
                paragraphs.setdefault((page, identity), text)
    return paragraphs


def read_paragraphs(html: str) -> list[tuple[str, str]]:
    """Identity and text of each paragraph and heading that has an identity, but for program code."""
    page = _Page()
    page.feed(html)
    page.close()
    return page.paragraphs


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[tuple[str, str]] = []
        self._open: tuple[str, str] | None = None
        self._text: list[str] = []
        # for each open division, whether it holds code; for each open span of a paragraph, whether it shows
        self._divisions: list[bool] = []
        self._spans: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        is_code = not CODE.isdisjoint((attributes.get("class") or "").split())
        identity = attributes.get("id") or ""
        if tag == "div":
            self._divisions.append(is_code)
        elif tag == "br":
            self._text.append(" ")
        elif tag == "span":
            # hidden are the wordings for one system or module, beside the one for all others
            self._spans.append("hidden" not in attributes or identity.startswith("default"))
        elif tag in PARAGRAPHS:
            self._open = (tag, identity) if identity and not is_code and not any(self._divisions) else None
            self._text, self._spans = [], []

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._divisions:
            self._divisions.pop()
        elif tag == "span" and self._spans:
            self._spans.pop()
        elif self._open and tag == self._open[0]:
            if text := " ".join("".join(self._text).split()):
                self.paragraphs.append((self._open[1], text))
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open and all(self._spans):
            self._text.append(data)
