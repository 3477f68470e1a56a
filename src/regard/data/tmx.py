"""Translation memories: TMX 1.4, read unit by unit, without entities and without anything from outside of the file.

LISA OSCAR 2005, "TMX 1.4b specification"; inline elements, section 4.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final
from xml.parsers import expat

from regard.data.columns import Columns
from regard.data.languages import same_language
from regard.data.lines import LONGEST_DOCUMENT, LONGEST_LINE, tell_once
from regard.data.packing import display_name, open_bytes
from regard.errors import RegardError

PIECE = 1 << 16
DEEPEST = 64
# a unit with more variants than there are languages is no translation
MOST_VARIANTS = 1000
# these hold codes of the program that the text came from, not text
CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))
# the document type that every TMX may name; it is never fetched
TYPE = re.compile(r"(.*/)?tmx[\d.-]*\.dtd")
Unit = list[tuple[str, str]]


def read_tmx(path: Path | str, columns: Columns) -> Iterator[tuple[str, ...]]:
    """The wanted languages of each unit; a unit that lacks one of them has a blank text for it.

    Where no languages are named, the source is the file's own source language, and the target its only other one.
    Raises RegardError, with file and line, for what is no TMX, for entities and references to other files, and where
    it stays open which languages are meant.
    """
    name = display_name(path)
    parser = _Parser(name, LONGEST_LINE if columns.task == "pairs" else LONGEST_DOCUMENT)
    found, seen = False, set()
    with open_bytes(path, columns.task) as stream:
        more = True
        while more:
            data = stream.read(PIECE)
            more = bool(data)
            for line, unit in parser.fed(data, is_last=not more):
                texts = _wanted(unit, parser.source_language, columns, f"{name}:{line}")
                found = found or all(map(str.strip, texts))
                seen.update(language for language, _ in unit[:4])
                yield texts
    if not found:
        wanted = " and ".join(map(str, columns.keys)) if any(columns.keys) else f"{len(columns.names)} languages"
        listed = ", ".join(sorted(seen)[:12]) or "none"
        raise RegardError(f"{name}: no unit has texts in {wanted}; its languages are {listed}")


def _wanted(unit: Unit, source_language: str, columns: Columns, where: str) -> tuple[str, ...]:
    languages = [language for language, _ in unit]
    keys = columns.keys
    if not any(keys) and columns.task == "pairs":
        others = {language for language in languages if not same_language(language, source_language)}
        if not source_language or len(others) > 1:
            listed = ", ".join(dict.fromkeys(languages))
            why = "several translations" if source_language else "no source language in its header (srclang)"
            raise RegardError(f"{where}: {why}, and a unit in {listed}; say which to read: {columns.settings()}")
        keys = (source_language, next(iter(others), None))
        if keys[1] is not None:
            tell_once("%s: source is %s, its source language, target is %s", where.rpartition(":")[0], *keys)
    return tuple(_text(unit, None if key is None else str(key), columns, where) for key in keys)


def _text(unit: Unit, key: str | None, columns: Columns, where: str) -> str:
    languages = list(dict.fromkeys(language for language, _ in unit))
    if key is None and columns.task == "documents" and len(languages) == 1:
        key = languages[0]
    if key is None:
        if columns.task == "pairs" and not any(columns.keys):
            return ""
        raise RegardError(f"{where}: has {', '.join(languages)}; say which to read: {columns.settings()}")
    exact = [text for language, text in unit if language.lower() == key.lower()]
    found = exact or [text for language, text in unit if same_language(language, key)]
    if len(found) > 1:
        raise RegardError(f"{where}: {len(found)} texts of one unit are in {key}; name the variant, such as {key}-…")
    return found[0] if found else ""


@final
class _Parser:
    """Takes units out of XML as it comes, and refuses all that leads out of the file or grows in memory."""

    def __init__(self, name: str, longest: int) -> None:
        self.source_language = ""
        self._name = name
        self._longest = longest
        self._path: list[str] = []
        self._unit: Unit = []
        self._line = 1
        self._language = ""
        self._text: list[str] = []
        self._size = 0
        self._units: list[tuple[int, Unit]] = []
        parser = expat.ParserCreate()
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._type
        parser.EntityDeclHandler = self._entity
        parser.SkippedEntityHandler = self._skipped
        parser.ExternalEntityRefHandler = self._reference
        self._parser: Any = parser

    def fed(self, data: bytes, *, is_last: bool) -> list[tuple[int, Unit]]:
        """The units that end in these bytes, each with the line on which it begins."""
        self._units = []
        try:
            self._parser.Parse(data, is_last)
        except expat.ExpatError as error:
            what = expat.errors.messages.get(error.code, str(error))
            raise RegardError(f"{self._name}:{error.lineno}: not whole XML ({what}); export or copy it again") from None
        except LookupError as error:
            raise RegardError(f"{self._name}: {error}; save it as UTF-8") from None
        return self._units

    def _refuse(self, what: str) -> RegardError:
        return RegardError(f"{self._name}:{self._parser.CurrentLineNumber}: {what}")

    def _type(self, name: str, system: str | None, public: str | None, has_subset: int) -> None:
        if name != "tmx" or (system is not None and not TYPE.fullmatch(system)):
            raise self._refuse(f"the document type {name!r} of {system!r} is no TMX's; delete the line with <!DOCTYPE")

    def _entity(self, name: str, *_: object) -> None:
        raise self._refuse(f"declares the entity {name!r}, which could stand for anything; export it without entities")

    def _skipped(self, name: str, is_parameter: int) -> None:
        raise self._refuse(f"the entity &{name}; is not declared; write its text")

    def _reference(self, *_: object) -> int:
        raise self._refuse("refers to another file, which is not read; export it as one file")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        local = tag.rpartition(":")[2]
        if not self._path and tag != "tmx":
            raise self._refuse(f"<{tag}> begins no translation memory (TMX); export it as TMX")
        if local == "include":
            raise self._refuse("includes another file, which is not read; export it as one file")
        self._path.append(tag)
        if len(self._path) > DEEPEST:
            raise self._refuse(f"elements are nested {DEEPEST} deep, as in no TMX; export it again")
        if tag == "header":
            language = attributes.get("srclang", "")
            self.source_language = "" if language == "*all*" else language
        elif tag == "tu":
            self._unit, self._line, self._size = [], self._parser.CurrentLineNumber, 0
        elif tag == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
            if not self._language:
                raise self._refuse("<tuv> without xml:lang: nothing says which language this is")
            if len(self._unit) >= MOST_VARIANTS:
                raise self._refuse(f"more than {MOST_VARIANTS} variants in one unit; export it again")
        elif tag == "seg":
            self._text = []

    def _end(self, tag: str) -> None:
        self._path.pop()
        if tag == "seg" and "tuv" in self._path:
            self._unit.append((self._language, "".join(self._text)))
        elif tag == "tu":
            self._units.append((self._line, self._unit))

    def _characters(self, text: str) -> None:
        if "seg" not in self._path or CODES.intersection(self._path):
            return
        self._size += len(text)
        if self._size > self._longest:
            raise self._refuse(f"the texts of one unit have more than {self._longest} characters; split them")
        self._text.append(text)
