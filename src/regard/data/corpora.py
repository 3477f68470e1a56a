"""Corpora by name, prepared once in the user's cache and checked every time they are used."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regard.config import suggest
from regard.data.bible import bible_en_fr
from regard.data.corpus import Corpus
from regard.data.download import cache_dir, file_sha256
from regard.data.numbers import numbers_en_fr
from regard.errors import RegardError
from regard.files import new_folder

__all__ = ["CORPORA", "Corpus", "cache_dir", "get_corpus"]

FACTS = "corpus.json"
SPLITS = ("train", "dev", "test")
DESCRIPTION = ("name", "source_language", "target_language", "licence", "attribution")

logger = logging.getLogger("regard")

# each writes its splits into a folder
CORPORA: dict[str, Callable[[Path], Corpus]] = {
    "numbers-en-fr": numbers_en_fr,
    "bible-en-fr": bible_en_fr,
}


def get_corpus(name: str) -> Corpus:
    """A corpus of CORPORA, made now or taken from the cache.

    Raises RegardError if there is none of that name, or if it cannot be downloaded or written.
    """
    if name not in CORPORA:
        raise RegardError(f"there is no corpus {name!r}{suggest(name, CORPORA)}")
    folder = cache_dir() / "corpora" / name
    if folder.exists():
        if (corpus := _cached(folder)) is not None:
            return corpus
        logger.warning("%s: not as it was made; making it anew", folder)
    logger.info("preparing corpus %s in %s", name, folder)
    with new_folder(folder) as temporary:
        made = CORPORA[name](temporary)
        (temporary / FACTS).write_text(json.dumps(_facts(made), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    corpus = _cached(folder)
    assert corpus is not None, folder
    return corpus


def _facts(corpus: Corpus) -> dict[str, Any]:
    files = {}
    for split in SPLITS:
        (path,) = map(Path, corpus.splits[split])
        pairs = sum(1 for _ in corpus.pairs(split))
        files[path.name] = {"pairs": pairs, "size": path.stat().st_size, "sha256": file_sha256(path)}
    return {field: getattr(corpus, field) for field in DESCRIPTION} | {"files": files}


def _cached(folder: Path) -> Corpus | None:
    """The corpus in a folder, or None where a file is not what `corpus.json` says."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        for split in SPLITS:
            path, recorded = folder / f"{split}.tsv", facts["files"][f"{split}.tsv"]
            if (path.stat().st_size, file_sha256(path)) != (recorded["size"], recorded["sha256"]):
                return None
        return Corpus(
            splits={split: (folder / f"{split}.tsv",) for split in SPLITS},
            **{field: facts[field] for field in DESCRIPTION},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
