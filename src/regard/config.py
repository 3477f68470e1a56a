"""Settings are frozen dataclasses; TOML is how they are written down.

A setting states its own bounds, so that one reader checks every section of every recipe.
"""

import dataclasses
import difflib
import inspect
import math
import re
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from regard.errors import RegardError

T = TypeVar("T")
# no recipe is as long
LARGEST_TOML = 1 << 20
# whole numbers beyond these are in no counter of torch's or numpy's
LARGEST_NUMBER = 2**63 - 1
LONGEST_SHOWN = 200
PARAMETERS = "Parameters\n----------\n"


def setting(
    default: Any = dataclasses.MISSING,
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that knows which values it takes.

    `least` and `most` are inclusive, `above` and `below` exclusive.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata=bounds)


def from_dict(kind: type[T], values: object, *, where: str) -> T:
    """Build the dataclass `kind` from plain values, checking names, types and bounds.

    `where` names the place in errors, for instance `recipes/x.toml: [train]`.
    Raises RegardError for an unknown or missing setting, a wrong type, or a value out of bounds.
    """
    if not isinstance(values, dict):
        raise RegardError(f"{where} must be a table of settings, not {shown(values)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in fields:
            raise RegardError(f"{where} has no setting {name!r}{suggest(name, fields)}")
    hints = typing.get_type_hints(kind)
    checked = {}
    for name, field in fields.items():
        if name in values:
            place = f"{where} {name}"
            nested = dataclasses.is_dataclass(hints[name])
            checked[name] = (
                from_dict(hints[name], values[name], where=place)
                if nested
                else _checked(values[name], hints[name], field, where=place)
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RegardError(f"{where} lacks the setting {name!r}; add it")
    try:
        return kind(**checked)
    except RegardError as error:
        # a check across several settings knows what is wrong; only here is it known where
        raise RegardError(f"{where} {error}") from None


def texts(kind: type) -> dict[str, str]:
    """What each setting of a dataclass means: the `Parameters` in its docstring and in those of its bases."""
    sections = (inspect.cleandoc(base.__doc__ or "").partition(PARAMETERS)[2] for base in reversed(kind.__mro__))
    found = [pair for section in sections for pair in re.findall(r"^(\w+)\n((?:    .*\n?)+)", section, re.MULTILINE)]
    return {name: " ".join(text.split()) for name, text in found}


def shows(kind: type, **defaults: Any) -> Callable[[T], T]:
    """Decorates a function whose last parameter is `**settings`: its help shows the fields of `kind` instead.

    `defaults` are those of this function, where it has its own.
    """

    def decorate(function: T) -> T:
        target: Any = function
        signature = inspect.signature(target)
        *named, _ = signature.parameters.values()
        for name, field in inspect.signature(kind).parameters.items():
            named.append(field.replace(default=defaults.get(name, field.default)))
        target.__signature__ = signature.replace(parameters=named)
        told = "".join(f"\n{name}\n    {text}" for name, text in texts(kind).items())
        target.__doc__ = inspect.cleandoc(target.__doc__ or "") + f"\n\n{PARAMETERS.strip()}{told}"
        return function

    return decorate


def shown(value: object) -> str:
    """A value as an error repeats it, if it is not too long for that."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"one of type {type(value).__name__} too long to be shown"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def suggest(name: str, known: Iterable[str]) -> str:
    """The ending of an error about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    # of a long text the search takes minutes
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= LONGEST_SHOWN else []
    return f"; did you mean {near[0]!r}?" if near else f"; choose from {', '.join(known)}"


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises RegardError if it is missing or not TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_TOML + 1)
        if len(data) > LARGEST_TOML:
            raise RegardError(f"{path}: more than {LARGEST_TOML:,} bytes, which no recipe has; check the path")
        return tomllib.loads(data.decode("utf-8").replace("\r\n", "\n"))
    except FileNotFoundError:
        raise RegardError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise RegardError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    # also a number of thousands of digits, and thousands of nested brackets
    except (ValueError, RecursionError) as error:
        raise RegardError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror}") from None


def to_toml(sections: dict[str, Any]) -> str:
    """Top-level values, then one table for each dataclass; settings that are None are left out."""
    lines = [f"{name} = {_literal(value)}" for name, value in sections.items() if not dataclasses.is_dataclass(value)]
    for name, section in sections.items():
        if dataclasses.is_dataclass(section):
            given = {key: value for key, value in dataclasses.asdict(section).items() if value is not None}  # pyright: ignore[reportArgumentType]
            lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in given.items())]
    return "\n".join(lines) + "\n"


def parse_value(text: str) -> Any:
    """The value of `--set key=value`: TOML where it is TOML, else the text itself."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # a second line would be a second setting
    return tables["value"] if len(tables) == 1 else text


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        inner = (f"{name} = {_literal(part)}" for name, part in value.items() if part is not None)
        return f"{{ {', '.join(inner)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    escaped = "".join(
        f"\\u{ord(letter):04x}" if letter in '"\\\x7f' or ord(letter) < 32 else letter for letter in str(value)
    )
    return f'"{escaped}"'


def _checked(value: Any, hint: Any, field: dataclasses.Field, *, where: str) -> Any:
    hints = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(each) or each for each in hints)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool):
        # a whole number beyond every float is refused below, as infinite
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    is_bool_for_int = isinstance(value, bool) and bool not in accepted
    if is_bool_for_int or not isinstance(value, accepted):
        names = " or ".join(kind.__name__ for kind in accepted if kind is not types.NoneType)
        raise RegardError(f"{where} must be of type {names}, not {shown(value)}")
    bounds = field.metadata
    if isinstance(value, float) and not math.isfinite(value):
        raise RegardError(f"{where} must be a finite number, not {value}")
    if bounds.get("choices") and value is not None and value not in bounds["choices"]:
        raise RegardError(f"{where} must be one of {', '.join(bounds['choices'])}, not {shown(value)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(value, bounds, where)
    return value


def _check_bounds(value: int | float, bounds: Mapping[str, Any], where: str) -> None:
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        most = bounds.get("most")
        limit = f"at most {LARGEST_NUMBER if most is None else most:,}" if value > 0 else "no number so far below 0"
        raise RegardError(f"{where} must be {limit}, not {shown(value)}")
    if (least := bounds.get("least")) is not None and value < least:
        raise RegardError(f"{where} must be at least {least}, not {value}")
    if (above := bounds.get("above")) is not None and value <= above:
        raise RegardError(f"{where} must be above {above}, not {value}")
    if (most := bounds.get("most")) is not None and value > most:
        raise RegardError(f"{where} must be at most {most}, not {value}")
    if (below := bounds.get("below")) is not None and value >= below:
        raise RegardError(f"{where} must be below {below}, not {value}")
