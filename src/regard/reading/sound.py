"""Whether what stands in a file can be a reading: files come from anywhere, and whatever shows a reading trusts it."""

import json
from typing import Any

import numpy as np

# a weight is at most 1, and what rounding adds
LARGEST = 1.01
# of a layer with so many heads, kept rows, queries and keys; None is any number
SHAPES = {
    "value_norm": ("heads", "rows", "keys"),
    "output_norm": ("heads", "rows", "keys"),
    "rollout": ("rows", "keys"),
    "sink_share": ("heads", "rows"),
    "received": ("heads", "keys"),
    "received_by_segment": ("heads", None, "keys"),
    "segments": ("heads", "queries", None),
    **dict.fromkeys(
        ("entropy", "distance", "first_token", "previous_token", "induction", "duplicate_token"), ("heads", "queries")
    ),
}


def check_facts(facts: Any) -> None:
    """Raises ValueError or TypeError if the JSON of a reading has other than its types, or numbers that are none."""
    # neither NaN nor infinity, nor half a surrogate pair
    json.dumps(facts, allow_nan=False, ensure_ascii=False).encode("utf-8")
    _check(isinstance(facts["model"], str) and isinstance(facts["settings"], dict), "model and settings")
    prompt = facts["settings"].get("prompt_tokens", 0)
    _check(type(prompt) is int and prompt >= 0, "prompt_tokens")
    for name, sequence in facts["sequences"].items():
        text, words, tokens = sequence["text"], sequence["words"], sequence["tokens"]
        _check(isinstance(text, str) and _all(words, str) and _all(tokens, dict), f"sequence {name!r}")
        for place, token in enumerate(tokens):
            start, end, own = token["start"], token["end"], token["words"]
            fits = _all([token["id"], start, end], int) and isinstance(token["text"], str) and _all(own, int)
            fits = fits and 0 <= start <= end <= len(text) and all(0 <= word < len(words) for word in own)
            _check(fits, f"token {place} of sequence {name!r}")
    for name, check in facts["checks"].items():
        _check(isinstance(check, dict) and _all(list(check.values()), int | float), f"the check of {name!r}")
    _check(_all(list(facts["refused"].values()), str), "refused layers")
    _check(all(_all(rows, int) for rows in facts["rows"].values()), "rows")


def check_tables(reading: Any) -> None:
    """Raises ValueError if tables of weights, strongest keys and statistics are not what they are called.

    That they have as many rows and keys as there are tokens is known by now.
    """
    for (kind, layer), weights in reading.maps.items():
        place = f"{kind} layer {layer}"
        heads, rows, keys = weights.shape
        _check(heads > 0 and keys > 0, f"the size of {place}")
        _check(_lies(weights, 0, LARGEST), f"the weights of {place}")
        queries = len(reading.sequences[reading.sides[kind][0]].tokens)
        if (top := reading.tops.get((kind, layer))) is not None:
            fits = top.positions.shape == top.weights.shape and top.weights.shape[:1] == (heads,)
            fits = fits and top.weights.ndim == 3 and top.weights.shape[1] in (queries - 1, queries)
            fits = fits and top.positions.dtype.kind == "i" and _lies(top.weights, 0, LARGEST)
            _check(fits and np.all((top.positions >= -1) & (top.positions < keys)), f"the strongest keys of {place}")
        sizes = {"heads": (heads,), "rows": (rows,), "keys": (keys,), "queries": (queries - 1, queries)}
        for name, table in reading.statistics.get((kind, layer), {}).items():
            shape = SHAPES.get(name, (None,) * table.ndim)
            fits = len(shape) == table.ndim and all(
                wanted is None or size in sizes[wanted] for wanted, size in zip(shape, table.shape, strict=True)
            )
            # of a query a statistic may be unknown, NaN; of a row and a key it is a norm or a share
            known = _lies(table, 0, float(np.finfo(np.float32).max)) if "rows" in shape else not np.isinf(table).any()
            _check(fits and known and table.dtype.kind == "f", f"{name} of {place}")


def _check(fits: bool | np.bool_, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} cannot be so")


def _all(values: Any, kind: Any) -> bool:
    """Whether these are a list of that kind; a truth value is no number."""
    return isinstance(values, list) and all(isinstance(each, kind) and not isinstance(each, bool) for each in values)


def _lies(table: np.ndarray, least: float, most: float) -> bool:
    # NaN lies nowhere
    return table.dtype.kind == "f" and (not table.size or bool(least <= table.min() and table.max() <= most))
