"""A reading as one HTML file: it opens from disk, asks no network for anything, and runs no script but its own.

The page's tables lie in it as inert blocks, deflated and in base64, one for each layer, which the viewer unpacks as it
needs them. The content security policy names the hashes of the one script and the one style sheet, so that nothing in a
text can become code.
"""

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from regard.files import new_file
from regard.reading.reading import Reading
from regard.view import wire

LADDER = "regard-ladder-1"


def to_html(reading: Reading, lang: str | None = None) -> str:
    """The whole file. `lang` is `en` or `zh`; the reader's browser chooses where it is None."""
    return page(reading.model, wire.header(reading), {"reading": reading}, lang=lang)


def demo_html(
    models: Sequence[dict[str, Any]],
    *,
    source: str,
    reference: str,
    translations: Mapping[str, str],
    readings: Mapping[str, Reading],
    live: str | None = None,
    lang: str | None = None,
) -> str:
    """The ladder on one page: the models' quality by length, one sentence translated by each, and what was read.

    `models` are as `ladder.json` has them, `translations` and `readings` go by name; a model without a reading has no
    attention, and a reading without a model is a language model's. `live` is the address of the live page.
    """
    names = {model["name"] for model in models}
    placed = {f"reading{place}": reading for place, reading in enumerate(readings.values())}
    document = {
        "format": LADDER,
        "live": live,
        "source": source,
        "reference": reference,
        "models": [
            {
                **{key: model[key] for key in ("name", "count", "by_length")},
                "translation": translations[model["name"]],
                "reads": model["name"] in readings,
            }
            for model in models
        ],
        "readings": [
            {"name": name, "place": place, "translates": name in names, "header": wire.header(reading)}
            for (name, reading), place in zip(readings.items(), placed, strict=True)
        ],
    }
    return page("From one hidden state to attention", document, placed, lang=lang)


def save_html(reading: Reading, path: Path, **_: Any) -> None:
    """Write `to_html` to a file."""
    with new_file(path) as partial:
        partial.write_text(to_html(reading), encoding="utf-8")


def page(title: str, document: dict[str, Any], readings: dict[str, Reading], *, lang: str | None) -> str:
    """A page that shows `document`, with the tables of every reading that it names."""
    script, style = asset("viewer.bundle.js"), asset("viewer.css")
    policy = (
        f"default-src 'none'; script-src {digest_of(script)}; style-src {digest_of(style)}; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = [_block("document", json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))]
    blocks += [_block(name, table) for place, reading in readings.items() for name, table in _tables(place, reading)]
    return f"""<!doctype html>
<html lang="{html.escape(lang or "en")}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(_shown(title))} · Regard</title>
<style>{style}</style>
</head>
<body class="regard-page">
<div data-regard-file="document" data-lang="{html.escape(lang or "")}"></div>
<noscript>This page needs JavaScript, which it brings with it; nothing is fetched.</noscript>
{"".join(blocks)}<script type="module">{script}</script>
</body>
</html>
"""


@cache
def asset(name: str) -> str:
    """A file of the viewer's, as it lies in the package."""
    return resources.files("regard.view").joinpath("page", name).read_text(encoding="utf-8")


def _tables(place: str, reading: Reading) -> Iterator[tuple[str, bytes]]:
    for number, medium in enumerate(reading.media):
        yield f"{place}.medium.{number}", medium.data
    for kind in wire.header(reading)["kinds"]:
        name = kind["kind"]
        for measure in kind["measures"]:
            yield f"{place}.mean.{name}.{measure}", wire.mean(reading, name, measure)
        for layer in kind["layers"]:
            yield f"{place}.layer.{name}.{layer['layer']}", wire.layer(reading, name, layer["layer"])


def _block(name: str, content: bytes) -> str:
    packed = base64.b64encode(zlib.compress(content, 6)).decode("ascii")
    return f'<script type="application/octet-stream;base64" id="{html.escape(name)}">{packed}</script>\n'


def digest_of(text: str) -> str:
    """The text as a content security policy names it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _shown(text: str) -> str:
    from regard.view.words import printable

    return printable(text)
