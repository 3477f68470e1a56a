"""A corpus of your own by name: one entry in CORPORA, and recipes, `regard corpus` and model cards know it."""

import itertools
from pathlib import Path

import regard
from regard.data.corpora import CORPORA, NamedCorpus, get_corpus
from regard.data.formats import Pair, write_tsv

COLOURS = {"red": "rouge", "yellow": "jaune", "pale": "pâle"}
THINGS = {"chair": "chaise", "table": "table", "lamp": "lampe", "house": "maison"}


def write_colours(folder: Path) -> None:
    """Write train.tsv, dev.tsv and test.tsv; a download belongs here too, checked by size and SHA-256."""
    phrases = itertools.product(COLOURS, THINGS)
    pairs = [Pair(f"the {colour} {thing}", f"la {THINGS[thing]} {COLOURS[colour]}") for colour, thing in phrases]
    for split, start in (("dev", 0), ("test", 1), ("train", 2)):
        write_tsv(folder / f"{split}.tsv", pairs[start::3] if split != "train" else pairs[2:])


CORPORA["colours-en-fr"] = NamedCorpus(
    about="A noun with a colour, English to French, generated.",
    source_language="en",
    target_language="fr",
    licence="none needed: generated",
    attribution="",
    write=write_colours,
)

print(get_corpus("colours-en-fr"))
changes = {"data.corpus": "colours-en-fr", "data.vocab_size": 300, "train.steps": 30}
translator = regard.train("numbers-bahdanau", out="runs/colours", changes=changes)
assert isinstance(translator, regard.Translator)
print(translator.translate("the red lamp").text)
