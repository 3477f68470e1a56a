"""The counts of an atlas as a safetensors file, which is checked when it is read: files come from anywhere."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regard.errors import RegardError
from regard.files import new_file
from regard.reading.examples import EXAMPLES, from_json
from regard.reading.measures import MEASURES
from regard.reading.tally import TABLES, Tally

FORMAT = "regard-atlas-1"
# of a file's facts; of layers, and of heads in one
MOST_JSON, MOST_LAYERS, MOST_HEADS = 1 << 27, 4096, 4096
COUNTS = ("prompts", "tokens", "cut", "fingerprint")


def save_tally(path: Path, tally: Tally, facts: dict[str, Any]) -> None:
    """Write the counts, exactly, with `facts` of what they are: a JSON object."""
    own = {
        "layers": tally.layers,
        "heads": tally.heads,
        **{name: getattr(tally, name) for name in COUNTS},
        "measures": list(MEASURES),
        "refused": [[layer, why, count] for (layer, why), count in sorted(tally.refused.items())],
        "examples": [[*key, kept] for key, kept in sorted(tally.examples.items())],
        "effects": sorted(tally.effects),
    }
    tables = {f"{table}.{name}": getattr(tally, table)[name] for table in TABLES for name in MEASURES}
    tables |= {f"effects.{place}": table for place, table in tally.effects.items()}
    text = json.dumps({"format": FORMAT, **facts, **own}, ensure_ascii=False, allow_nan=False)
    with new_file(path) as partial:
        # several names would be written in any order, and the same atlas as other bytes
        save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, partial, {"atlas": text})


def read_tally(path: Path) -> tuple[dict[str, Any], Tally]:
    """The facts and counts of a file. Raises RegardError if it is no atlas or contradicts itself."""
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("atlas", "{}")
            facts = json.loads(text) if len(text) <= MOST_JSON else {}
            if facts.get("format") != FORMAT:
                raise RegardError(f"{path}: not an atlas; `regard atlas MODEL FILES… --out DIR` makes one")
            return facts, _tally(facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegardError(f"{path}: not a readable atlas: {error}") from None


def _tally(facts: Any, tensors: dict[str, np.ndarray]) -> Tally:
    layers, heads = facts["layers"], facts["heads"]
    _check(_are_counts(layers) and _are_counts(heads) and len(layers) == len(heads), "layers and heads")
    _check(len(layers) <= MOST_LAYERS and max(heads, default=0) <= MOST_HEADS, "the number of layers or heads")
    _check(_are_counts([facts[name] for name in COUNTS]), "prompts and tokens")
    _check(facts["measures"] == list(MEASURES), "its measures, which are those of another version")
    _check(isinstance(facts["model"], str) and isinstance(facts["kind"], str), "model and kind")
    _check(isinstance(facts["settings"], dict), "settings")
    tally = Tally(layers, heads, **{name: facts[name] for name in COUNTS})
    for table in TABLES:
        for name, empty in getattr(tally, table).items():
            found = tensors[f"{table}.{name}"]
            _check(found.shape == empty.shape and found.dtype == np.int64, f"{table} of {name}")
            _check(bool((found >= 0).all()), f"{table} of {name}")
            getattr(tally, table)[name] = found
    tally.refused = Counter({(int(layer), str(why)): int(count) for layer, why, count in facts["refused"]})
    for name, place, head, kept in facts["examples"]:
        fits = name in MEASURES and 0 <= place < len(layers) and 0 <= head < heads[place] and len(kept) <= EXAMPLES
        _check(fits, "an example")
        tally.examples[name, place, head] = [from_json(each) for each in kept]
    for place in facts["effects"]:
        table = tensors[f"effects.{place}"]
        _check(table.shape == (len(layers), max(heads, default=0)) and table.dtype == np.float64, "effects")
        tally.effects[int(place)] = table
    return tally


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is int and each >= 0 for each in values)


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"not valid: {what}")
