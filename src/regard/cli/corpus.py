"""`regard corpus`: real text by name."""

import json as json_module
from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cyclopts
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from regard.cli.options import Count, Split

if TYPE_CHECKING:
    from regard.data.corpus import Corpus
    from regard.data.formats import Pair
    from regard.data.links import Links
    from regard.data.text import Text

# characters of a document that are shown
BEGINNING = 300

corpus = cyclopts.App(name="corpus", help="Corpora by name, prepared once in your cache.")


@corpus.command(name="list")
def list_(*, json: bool = False) -> None:
    """The corpora there are, with their licences, and how many pairs, or documents, those in your cache have.

    Parameters
    ----------
    json
        One JSON document.
    """
    from regard.data.corpora import CORPORA, cached_sizes

    sizes = {name: cached_sizes(name) for name in CORPORA}
    if json:
        listed = [
            {"name": name, "about": named.about, "licence": named.licence, "pairs": sizes[name]}
            for name, named in CORPORA.items()
        ]
        print(json_module.dumps(listed, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what")
    table.add_column("pairs", justify="right", no_wrap=True)
    table.add_column("licence")
    for name, named in CORPORA.items():
        found = sizes[name]
        pairs = "not here yet" if found is None else f"{sum(found.values()):,}"
        table.add_row(name, named.about, pairs, named.licence)
    Console().print(table)


@corpus.command
def get(name: str, /, *, to: Path | None = None) -> None:
    """Download or generate a corpus, check it, and tell where it lies.

    Each split is a file of its own with source, tab, target on each line, or, of plain text, a document as JSON. Gold
    links, where there are any, are in a file beside it: on each line those of one pair, `i-j` from source word i to
    target word j, both from 0.

    Parameters
    ----------
    name
        A name that `regard corpus list` shows.
    to
        A new folder for a copy, with a note of the licence, for use with other tools.
    """
    from regard.data.corpora import copy_corpus, get_corpus
    from regard.data.parts import paths_in

    found = get_corpus(name)
    if to is not None:
        copy_corpus(found, to)
    for split, data in found.splits.items():
        for file in filter(None, (*paths_in(data), found.links.get(split))):
            place = to / Path(file).name if to else file
            print(f"{split}\t{sum(1 for _ in _units(found, split))}\t{place}")
    for told in (found.licence, found.attribution):
        Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)


@corpus.command
def show(name: str, /, *, split: Split = "test", count: Count = 10, json: bool = False) -> None:
    """Print some pairs of a corpus, with their gold links, or beginnings of documents; sizes, lengths and licence.

    Parameters
    ----------
    name
        A name that `regard corpus list` shows.
    split
        train, dev or test.
    count
        How many pairs or documents, spread evenly over the split, with their line numbers.
    json
        One JSON document.
    """
    from regard.data.corpora import CORPORA, get_corpus
    from regard.data.corpus import Corpus
    from regard.data.links import format_links

    found = get_corpus(name)
    about = CORPORA[name].about
    if not isinstance(found, Corpus):
        _show_text(found, about, split, count, json=json)
        return
    lengths = {each: _lengths(list(found.pairs(each))) for each in found.splits}
    total = lengths[split]["pairs"]
    indices = _spread(count, total)
    examples = _examples(found, split, indices)
    if json:
        document = {
            "name": name,
            "about": about,
            "licence": found.licence,
            "attribution": found.attribution,
            "splits": lengths,
            "split": split,
            "examples": [
                {"line": index + 1, "source": pair.source, "target": pair.target}
                | ({"links": format_links(links)} if links else {})
                for index, (pair, links) in zip(indices, examples, strict=True)
            ],
        }
        print(json_module.dumps(document, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False)
    console.print(about, _length_table(lengths), "", sep="\n")
    width = len(str(total))
    for index, (pair, links) in zip(indices, examples, strict=True):
        _print_pair(console, f"{index + 1:{width}}", pair, links)
    console.print(f"\nLicence: {found.licence}. {found.attribution or ''}")


def _spread(count: int, total: int) -> list[int]:
    """The places of `count` of `total`, or of all where they are fewer."""
    count = min(count, total)
    return [number * total // count for number in range(count)]


def _units(corpus: "Corpus | Text", split: str) -> "Iterator[Pair | str]":
    from regard.data.text import Text

    return corpus.documents(split) if isinstance(corpus, Text) else corpus.pairs(split)


def _show_text(text: "Text", about: str, split: str, count: int, *, json: bool) -> None:
    from regard.view.words import printable

    documents = {each: list(text.documents(each)) for each in text.splits}
    sizes = {each: {"documents": len(found), "characters": sum(map(len, found))} for each, found in documents.items()}
    total = len(documents[split])
    indices = _spread(count, total)
    examples = [{"line": index + 1, "text": documents[split][index]} for index in indices]
    if json:
        facts = {"name": text.name, "about": about, "licence": text.licence, "attribution": text.attribution}
        document = {**facts, "splits": sizes, "split": split, "examples": examples}
        print(json_module.dumps(document, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False)
    console.print(about)
    for each, size in sizes.items():
        console.print(f"{each}: {size['documents']:,} documents, {size['characters']:,} characters")
    for example in examples:
        console.print(f"\n{example['line']}", style="dim")
        console.print(printable(example["text"][:BEGINNING]))
    console.print(f"\nLicence: {text.licence}. {text.attribution or ''}")


def _examples(corpus: "Corpus", split: str, indices: Sequence[int]) -> "list[tuple[Pair, Links | None]]":
    gold = corpus.gold(split) if split in corpus.links else ((pair, None) for pair in corpus.pairs(split))
    wanted = set(indices)
    return [example for index, example in enumerate(gold) if index in wanted]


def _lengths(pairs: "Sequence[Pair]") -> dict[str, Any]:
    """How many pairs, and for each side its unit of length, median and maximum."""
    import numpy as np

    from regard.data.words import counts_characters, length

    facts: dict[str, Any] = {"pairs": len(pairs)}
    for side, texts in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
        characters = counts_characters(texts)
        counts = [length(text, characters) for text in texts]
        unit = "characters" if characters else "words"
        facts[side] = {"unit": unit, "median": float(np.median(counts)), "longest": max(counts)}
    return facts


def _length_table(lengths: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("split")
    table.add_column("pairs", justify="right")
    for side in ("source", "target"):
        table.add_column(f"{side}: median", justify="right")
        table.add_column("longest", justify="right")
        table.add_column("")
    for split, facts in lengths.items():
        cells = [
            cell
            for side in (facts["source"], facts["target"])
            for cell in (f"{side['median']:g}", f"{side['longest']:,}", side["unit"])
        ]
        table.add_row(split, f"{facts['pairs']:,}", *cells)
    return table


def _print_pair(console: Console, number: str, pair: "Pair", links: "Links | None") -> None:
    from regard.view.words import printable

    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(width=len(number), justify="right", style="dim")
    for _ in pair:
        # a text without spaces goes on in the next line, too
        grid.add_column(ratio=1, overflow="fold")
    grid.add_row(number, *map(printable, pair))
    console.print(grid)
    if links:
        told = printable(_linked_words(pair, links))
        console.print(Padding(told, (0, 0, 1, len(number) + 2)), style="dim")


def _linked_words(pair: "Pair", links: "Links") -> str:
    """Each source word with the target words that it is linked to."""
    from regard.data.words import split_words

    sources, targets = map(split_words, pair)
    linked = [
        (source, " ".join(compress(targets, [(i, j) in links.sure for j in range(len(targets))])))
        for i, source in enumerate(sources)
    ]
    return " · ".join(f"{source} = {words or '–'}" for source, words in linked)
