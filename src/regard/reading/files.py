"""A reading as a file, safetensors or JSON, which is checked before a reading is made of it: files come from anywhere.

Here a reading is its `facts`, which JSON holds, and its tables by name, such as `weights.cross.2`,
`top.decoder.0.positions` and `statistic.decoder.0.entropy`.
"""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regard.errors import RegardError
from regard.files import new_file
from regard.reading.compute.statistics import STATISTICS
from regard.reading.media import area_of, medium_of
from regard.reading.record import Place

FORMAT = "regard-reading-1"
# a weight is at most 1, and what rounding adds
LARGEST = 1.01
# numbers and lists take more memory than the text that holds them
MOST_JSON, MOST_LISTS = 1 << 28, 1 << 23


class FileTables(NamedTuple):
    """The tables of a file, by kind and layer."""

    weights: dict[Place, np.ndarray]
    top: dict[Place, dict[str, np.ndarray]]
    statistics: dict[Place, dict[str, np.ndarray]]
    scores: dict[Place, np.ndarray]


def read(path: str | Path) -> tuple[dict[str, Any], FileTables]:
    """The facts and tables of a file. Raises RegardError if it is not a reading or contradicts itself."""
    path = Path(path)
    try:
        facts, tensors = (_from_json if path.suffix == ".json" else _from_safetensors)(path)
        check_facts(facts)
        tables = _by_place(tensors)
        check_tables(facts, tables)
        for check in facts["checks"].values():
            check.update({name: math.nan for name, figure in check.items() if figure is None})
        return facts, tables
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except KeyError as error:
        raise RegardError(f"{path}: not a readable reading: it has no {error}") from None
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RegardError(f"{path}: not a readable reading: {error}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise RegardError(f"{path}: not a readable reading: {type(error).__name__} {error}") from None


def save_safetensors(facts: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]], path: Path) -> None:
    """Write all of it, exactly."""
    metadata = {"format": FORMAT, "reading": json.dumps(_without_nan(facts), ensure_ascii=False)}
    with new_file(path) as partial:
        save_file({name: np.ascontiguousarray(table) for name, table in tensors}, partial, metadata)


def save_json(facts: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]], path: Path) -> None:
    """Write all of it, exactly, as one JSON document. Raises RegardError for an infinite number."""
    try:
        text = json.dumps(document(facts, tensors), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise RegardError(f"{path}: JSON cannot hold this reading ({error}); save it as .safetensors") from None
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


FORMATS: dict[str, Callable[[dict[str, Any], Iterable[tuple[str, np.ndarray]], Path], None]] = {
    ".safetensors": save_safetensors,
    ".json": save_json,
}


def document(facts: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """A reading as JSON holds it: tables as nested lists, with their shapes, which empty lists lack.

    null stands for NaN and, of scores, for -inf.
    """
    tables: dict[str, dict[str, Any]] = {"weights": {}, "top": {}, "statistic": {}, "scores": {}}
    shapes = {}
    for name, table in tensors:
        sort, place, part = _parts(name)
        shapes[name] = list(table.shape)
        values: Any = table.tolist()
        # the score of a hidden key is -inf, that of no key NaN
        missing = np.isneginf(table) if sort == "scores" else np.isnan(table)
        if missing.any():
            known = table.astype(object)
            known[missing] = None
            values = known.tolist()
        if part is None:
            tables[sort][place] = values
        else:
            tables[sort].setdefault(place, {})[part] = values
    own = {"weights": tables["weights"], "top": tables["top"], "statistics": tables["statistic"]}
    own |= {"scores": tables["scores"]} if tables["scores"] else {}
    return {"format": FORMAT, **_without_nan(facts), "shapes": shapes, **own}


def _without_nan(facts: dict[str, Any]) -> dict[str, Any]:
    """With null for errors that are not numbers, of which JSON has none."""
    checks = {
        place: {name: figure if math.isfinite(figure) else None for name, figure in check.items()}
        for place, check in facts["checks"].items()
    }
    return {**facts, "checks": checks}


def _from_safetensors(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        _check_format(path, metadata.get("format"))
        return _parsed(metadata["reading"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_format(path: Path, found: Any) -> None:
    if found != FORMAT:
        if str(found).startswith(FORMAT.rstrip("0123456789")):
            raise RegardError(f"{path}: its format is {found}, this version of Regard reads {FORMAT}; upgrade Regard")
        raise RegardError(f"{path}: not a reading; `regard read … --out {path}` makes one")


def _parsed(text: str | bytes) -> Any:
    # 0.1.0 wrote NaN, which is no JSON
    return json.loads(text, parse_constant=lambda _: None)


def _from_json(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    with open(path, "rb") as file:
        text = file.read(MOST_JSON + 1)
    if len(text) > MOST_JSON or text.count(b"[") + text.count(b"{") > MOST_LISTS:
        raise ValueError(
            f"as JSON it has more than {MOST_JSON >> 20} MiB or {MOST_LISTS:,} lists, too much to load; save the "
            "reading as .safetensors"
        )
    facts = _parsed(text)
    # files of 0.1.0 do not name their format
    is_reading = isinstance(facts, dict) and "sequences" in facts
    _check_format(path, facts.pop("format", FORMAT) if is_reading else None)
    shapes, tops, statistics = (facts.pop(key, {}) for key in ("shapes", "top", "statistics"))
    found = {
        f"{sort}.{place}": values for sort in ("weights", "scores") for place, values in facts.pop(sort, {}).items()
    }
    for sort, places in (("top", tops), ("statistic", statistics)):
        for place, parts in places.items():
            found |= {f"{sort}.{place}.{part}": values for part, values in parts.items()}
    return facts, {name: _array(name, values, shapes.get(name)) for name, values in found.items()}


def _array(name: str, values: Any, shape: list[int] | None) -> np.ndarray:
    table = np.array(values)
    is_position = name.startswith("top.") and name.endswith(".positions")
    if table.dtype == object:
        fits = not is_position and all(each is None or type(each) in (int, float) for each in table.flat)
    else:
        fits = not table.size or table.dtype.kind in ("iu" if is_position else "iuf")
    _check(fits and (shape is None or _all(shape, int)), f"the numbers of {name}")
    if shape is not None and not table.size:
        table = table.reshape(shape)
    _check(shape is None or list(table.shape) == shape, f"the shape of {name}")
    with np.errstate(over="ignore"):
        table = table.astype(np.int64 if is_position else np.float32)
    return np.where(np.isnan(table), np.float32(-np.inf), table) if name.startswith("scores.") else table


def _parts(name: str) -> tuple[str, str, str | None]:
    """Of a table's name: what it is, its kind and layer, and its own name where several have these."""
    sort, kind, layer, *part = name.split(".", 3)
    if sort not in ("weights", "scores", "top", "statistic") or bool(part) == (sort in ("weights", "scores")):
        raise ValueError(f"it has a table {name!r}")
    return sort, f"{kind}.{layer}", part[0] if part else None


def _by_place(tensors: dict[str, np.ndarray]) -> FileTables:
    tables = FileTables({}, {}, {}, {})
    for name, table in tensors.items():
        sort, place, part = _parts(name)
        if part is None:
            (tables.weights if sort == "weights" else tables.scores)[as_place(place)] = table
        else:
            (tables.top if sort == "top" else tables.statistics).setdefault(as_place(place), {})[part] = table
    return tables


def as_name(place: Place) -> str:
    """What a file calls a kind and layer: `cross.3`."""
    return f"{place[0]}.{place[1]}"


def as_place(name: str) -> Place:
    """The kind and layer that a file calls `cross.3`."""
    kind, layer = name.split(".")
    return kind, int(layer)


def check_facts(facts: Any) -> None:
    """Raises ValueError, TypeError or LookupError if the JSON of a reading has other types than it should, or NaN."""
    # neither NaN nor infinity, nor half a surrogate pair
    json.dumps(facts, allow_nan=False, ensure_ascii=False).encode("utf-8")
    _check(isinstance(facts["model"], str) and isinstance(facts["settings"], dict), "model and settings")
    _check(isinstance(facts["settings"].get("left_out", {}), dict), "left_out")
    prompt = facts["settings"].get("prompt_tokens", 0)
    _check(type(prompt) is int and prompt >= 0, "prompt_tokens")
    end = facts["settings"].get("end_tokens", 0)
    _check(end in (0, 1) and type(end) is int, "end_tokens")
    _check_turns(facts["settings"].get("turns", []), facts["sequences"])
    if "sources" in facts["settings"]:
        text, found = facts["sequences"]["text"], facts["settings"]["sources"]
        while True:
            check_sources(found, text["text"])
            _check_asked(found.get("asked"), len(text["tokens"]))
            # sources within a passage are kept with those that the passage is one of
            if (found := found.get("around")) is None:
                break
    _check(_all(facts.get("media", []), dict), "media")
    for medium in facts.get("media", []):
        medium_of(medium)
    removals = facts["settings"].get("removals", [])
    _check(_all(removals, dict), "removals")
    for place, removal in enumerate(removals):
        _check(_is_removal(removal, len(facts["sequences"]["text"]["tokens"])), f"removal {place}")
    for name, sequence in facts["sequences"].items():
        text, words, tokens = sequence["text"], sequence["words"], sequence["tokens"]
        _check(isinstance(text, str) and _all(words, str) and _all(tokens, dict), f"sequence {name!r}")
        for place, token in enumerate(tokens):
            _check(_is_token(token, len(text), len(words)), f"token {place} of sequence {name!r}")
            if token.get("area") is not None:
                area_of(token["area"])
    for name, check in facts["checks"].items():
        as_place(name)
        _check(check.keys() == {"row_sum_error", "context_error", "rows"}, f"the check of {name!r}")
        # an error that is not a number is null
        figures = [0 if figure is None else figure for figure in check.values()]
        _check(_all(figures, int | float) and type(check["rows"]) is int, f"the check of {name!r}")
    _check(_all(list(facts["refused"].values()), str) and all(map(as_place, facts["refused"])), "refused layers")
    _check(all(_all(rows, int) for rows in facts["rows"].values()), "rows")
    for kind, sides in facts["sides"].items():
        _check(_all(sides, str) and len(sides) == 2 and all(side in facts["sequences"] for side in sides), kind)


def _check_turns(turns: Any, sequences: dict[str, Any]) -> None:
    position = 0
    _check(_all(turns, dict), "turns")
    for turn in turns:
        _check(turn.keys() == {"role", "start", "end"} and isinstance(turn["role"], str), "turns")
        _check(_all([turn["start"], turn["end"]], int) and position <= turn["start"] < turn["end"], "turns")
        position = turn["end"]
    # where every layer was refused there may be no text
    _check("text" not in sequences or position <= len(sequences["text"]["text"]), "turns")


def check_sources(found: Any, text: str) -> None:
    """Raises ValueError, TypeError or LookupError if these are no `Sources.to_json()` of this text."""
    verdict, sources, question = found["verdict"], found["sources"], found["question"]
    _check(_all([found["answer"], found["method"], found["why"], verdict["text"]], str), "sources")
    _check(_all([found["log_probability"], found["passes"]], int | float), "sources")
    _check(_all(verdict["on"], int) and type(verdict["either"]) is bool and _all(sources, dict), "sources")
    parts: list[Any] = [*sources, *([] if question is None else [question])]
    for place, source in enumerate(parts):
        start, end = source["start"], source["end"]
        _check(_all([start, end], int) and 0 <= start < end <= len(text), f"source {place}")
        _check(text[start:end] == source["text"], f"the text of source {place}")
        tried = [] if source["effect"] is None else [source["effect"], *source["token_effects"]]
        _check(_all([source["estimate"], source["share"], *tried], int | float), f"source {place}")
    # a file of an earlier version has no verdicts of sentences
    for each in (verdict, *(_checked_sentence(part, found["answer"]) for part in found.get("sentences", ()))):
        for number in each["on"]:
            _check(0 <= number < len(sources) and sources[number]["effect"] is not None, "the verdict of sources")
    _check(_all([found["together"]], int | float) or (found["together"] is None and not verdict["either"]), "sources")


def _checked_sentence(sentence: Any, answer: str) -> Any:
    """The verdict of a sentence of an answer."""
    start, end, verdict = sentence["start"], sentence["end"], sentence["verdict"]
    _check(_all([start, end], int) and 0 <= start < end <= len(answer), "a sentence of the answer")
    _check(answer[start:end] == sentence["text"] and type(verdict["text"]) is str, "a sentence of the answer")
    _check(_all(verdict["on"], int) and type(verdict["either"]) is bool, "a sentence of the answer")
    return verdict


def _check_asked(asked: Any, count: int) -> None:
    """How sources were sought on the page: the grain, the positions judged, and those that they were sought within."""
    if asked is None:
        return
    # an earlier version sought them in the whole prompt alone
    asked = {"within": None, **asked}
    _check(asked.keys() == {"grain", "of", "within"}, "how sources were asked for")
    _check(isinstance(asked["grain"], str), "how sources were asked for")
    for place in (asked["of"], asked["within"]):
        fits = place is None or (_all(place, int) and len(place) == 2 and 0 <= place[0] < place[1] <= count)
        _check(fits, "the part of the text whose sources were asked for")


def _is_removal(removal: dict[str, Any], count: int) -> bool:
    start, end, first, effects = (removal[name] for name in ("start", "end", "first", "effects"))
    return (
        len(removal) == 4
        and _all([start, end, first], int)
        and 0 <= start < end <= first
        and _all(effects, int | float)
        and 0 < len(effects) <= count - first
    )


def _is_token(token: dict[str, Any], length: int, num_words: int) -> bool:
    start, end, own, sort = token["start"], token["end"], token["words"], token.get("sort", "token")
    return (
        token.keys() <= {"id", "text", "start", "end", "words", "sort", "area"}
        and _all([token["id"], start, end], int)
        and _all([token["text"], sort], str)
        and _all(own, int)
        and 0 <= start <= end <= length
        and all(0 <= word < num_words for word in own)
        and (sort == "token" or (token["id"] == -1 and bool(sort)))
    )


def check_tables(facts: dict[str, Any], tables: FileTables) -> None:
    """Raises ValueError if tables of weights, strongest keys and statistics do not fit the tokens or hold other
    numbers than their name says."""
    others = tables.top.keys() | tables.statistics.keys() | tables.scores.keys()
    _check(others <= tables.weights.keys(), "tables of layers without weights")
    for place, scores in tables.scores.items():
        fits = scores.shape == tables.weights[place].shape and scores.dtype.kind == "f"
        _check(fits and not np.isnan(scores).any() and not np.isposinf(scores).any(), f"the scores of {place}")
    for (kind, layer), weights in tables.weights.items():
        place = f"{kind} layer {layer}"
        asking, asked = (len(facts["sequences"][name]["tokens"]) for name in facts["sides"][kind])
        rows = facts["rows"].get(kind, range(weights.shape[1]) if weights.ndim == 3 else [])
        # the last token written is never looked at
        counts = (asked - 1, asked) if kind == "decoder" else (asked,)
        fits = weights.ndim == 3 and weights.shape[1] == len(rows) and weights.shape[2] in counts
        if not fits or any(not 0 <= row < asking for row in rows):
            raise ValueError(
                f"{place} has weights of shape {weights.shape}, but its tokens make {len(rows)} rows and {asked} keys; "
                "read the model again"
            )
        _check(None not in facts["checks"].get(f"{kind}.{layer}", {}).values(), f"the check of {place}")
        heads, _, keys = weights.shape
        _check(heads > 0 and keys > 0, f"the size of {place}")
        _check(_is_within(weights, 0, LARGEST), f"the weights of {place}")
        if (top := tables.top.get((kind, layer))) is not None:
            positions, strongest = top["positions"], top["weights"]
            fits = len(top) == 2 and positions.shape == strongest.shape and strongest.shape[:1] == (heads,)
            fits = fits and strongest.ndim == 3 and strongest.shape[1] in (asking - 1, asking)
            fits = fits and positions.dtype.kind == "i" and _is_within(strongest, 0, LARGEST)
            _check(fits and np.all((positions >= -1) & (positions < keys)), f"the strongest keys of {place}")
        sizes = {"head": (heads,), "row": (len(rows),), "key": (keys,), "query": (asking - 1, asking)}
        for name, table in tables.statistics.get((kind, layer), {}).items():
            axes = STATISTICS[name].axes if name in STATISTICS else ("segment",) * table.ndim
            fits = len(axes) == table.ndim and all(
                axis == "segment" or size in sizes[axis] for axis, size in zip(axes, table.shape, strict=True)
            )
            # of a query a statistic may be unknown, NaN; of a row and a key it is a norm or a share
            largest = float(np.finfo(np.float32).max)
            known = _is_within(table, 0, largest) if "row" in axes else not np.isinf(table).any()
            _check(fits and known and table.dtype.kind == "f", f"{name} of {place}")


def _check(fits: bool | np.bool_, what: str) -> None:
    if not fits:
        raise ValueError(f"not valid: {what}")


def _all(values: Any, kind: Any) -> bool:
    """Whether these are a list of that kind; a truth value is no number."""
    return isinstance(values, list) and all(isinstance(each, kind) and not isinstance(each, bool) for each in values)


def _is_within(table: np.ndarray, least: float, most: float) -> bool:
    # NaN is nowhere
    return table.dtype.kind == "f" and (not table.size or bool(least <= table.min() and table.max() <= most))
