"""A test set as a system translated it: what any scorer needs, as files of one line a sentence."""

from dataclasses import dataclass
from pathlib import Path

from regard.data.corpus import Corpus
from regard.data.formats import Pair
from regard.data.lines import tell_once
from regard.data.links import Links
from regard.evaluation.quality import Quality
from regard.files import check_new_folder, new_folder

# a sentence pair with its gold links, none where the corpus has none
Marked = tuple[Pair, Links]
NO_LINKS = Links(sure=frozenset(), possible=frozenset())
# the names of the files, in the order in which most scorers ask for them
FILES = {"sources": "source.txt", "outputs": "output.txt", "references": "reference.txt"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sources, the system's outputs and references, each in the order of the test set, and their quality."""

    sources: list[str]
    outputs: list[str]
    references: list[str]
    quality: Quality

    def save(self, folder: Path | str) -> None:
        """Write source.txt, output.txt and reference.txt into a new folder, a line for each sentence.

        What an output breaks into lines is put on one. Raises RegardError where the folder is not empty.
        """
        check_new_folder(Path(folder))
        with new_folder(Path(folder)) as partial:
            for name, file in FILES.items():
                lines = (text.replace("\n", " ").replace("\r", " ") + "\n" for text in getattr(self, name))
                (partial / file).write_text("".join(lines), encoding="utf-8", newline="\n")


def marked_pairs(corpus: Corpus, split: str) -> list[Marked]:
    """The pairs of a split, each once however often it occurs: copies would make intervals narrower than they are."""
    marked = corpus.gold(split) if split in corpus.links else ((pair, NO_LINKS) for pair in corpus.pairs(split))
    all_marked, once = list(marked), dict[Pair, Links]()
    for pair, links in all_marked:
        once.setdefault(pair, links)
    if again := len(all_marked) - len(once):
        tell_once("%s of %s: pairs that repeat an earlier one count once: %d", split, corpus.name, again)
    return list(once.items())
