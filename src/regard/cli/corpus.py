"""`regard corpus`: real text by name."""

import cyclopts
from rich.console import Console
from rich.table import Table

corpus = cyclopts.App(name="corpus", help="Corpora by name, prepared once in your cache.")


@corpus.command(name="list")
def list_() -> None:
    """The corpora there are."""
    from regard.data.corpora import CORPORA

    table = Table(box=None, pad_edge=False)
    table.add_column("name")
    table.add_column("what")
    for name, make in CORPORA.items():
        table.add_row(name, (make.__doc__ or "").partition("\n")[0])
    Console().print(table)


@corpus.command
def get(name: str, /) -> None:
    """Download or generate a corpus, check it, and tell where it lies.

    Parameters
    ----------
    name
        A name that `regard corpus list` shows.
    """
    from regard.data.corpora import get_corpus

    found = get_corpus(name)
    for split, (path,) in found.splits.items():
        print(f"{split}\t{sum(1 for _ in found.pairs(split))}\t{path}")
    for told in (found.licence, found.attribution):
        if told:
            Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
