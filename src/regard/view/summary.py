"""A reading in a few lines of data: the strongest parts of its prompt, and what each written word looked at."""

from typing import Any

from regard.reading.reading import Reading
from regard.view.shares import shares, text_kind, written_tokens

# parts of a prompt, and words that a written word looked at
MOST_PARTS, MOST_WORDS = 5, 3


def summary(
    reading: Reading, *, layer: int | None = None, head: int | None = None, segments: str = "sentences"
) -> dict[str, Any]:
    """What an answer, a text or a translation looked at, as plain data, with what the checks of the reading found.

    The mean of all layers and heads, of a translation of the last layer, or the one `layer` and `head`. An answer has
    its `parts`, the strongest first, each with its share of all weight; `words` are what was written, each with the
    words that it `looked_at` most, for an answer those it looked at more than its other words did.
    Raises RegardError if there is no such layer or head, or nothing was read.
    """
    checks = [check for place, check in reading.checks.items() if place in reading.maps]
    errors = (max(check.row_sum_error, check.context_error) for check in checks)
    proof = {
        "rows": sum(check.rows for check in checks),
        "largest_error": max(errors, default=0.0),
        "refused": len(reading.refused),
    }
    if "cross" in reading.kinds:
        return {**_translation(reading, layer, head), "checks": proof}
    return {**_text(reading, layer, head, segments), "checks": proof}


def _text(reading: Reading, layer: int | None, head: int | None, segments: str) -> dict[str, Any]:
    found = shares(reading, layer=layer, head=head, segments=segments)
    written = written_tokens(reading)
    text = reading.sequences[reading.sides[text_kind(reading)][0]].text
    answer = {"answer": text[written[0].start : written[-1].end]} if written else {}
    return {
        **answer,
        "parts": [
            {"text": found.parts[number].text, "share": found.parts[number].share}
            for number in found.strongest[:MOST_PARTS]
        ],
        "words": [
            _word(word.text, [(each.text, each.share) for each in word.words[:MOST_WORDS]]) for word in found.by_word
        ],
    }


def _translation(reading: Reading, layer: int | None, head: int | None) -> dict[str, Any]:
    table = reading.alignment(layer=-1 if layer is None else layer, head=head)
    sources, target = reading.sequences["source"].words, reading.sequences["target"]
    strongest = (-table).argsort(axis=1, kind="stable")[:, :MOST_WORDS]
    return {
        "target": target.text,
        "words": [
            _word(word, [(sources[key], float(row[key])) for key in keys])
            for word, row, keys in zip(target.words, table, strongest.tolist(), strict=True)
        ],
    }


def _word(text: str, looked_at: list[tuple[str, float]]) -> dict[str, Any]:
    return {"text": text, "looked_at": [{"text": word, "weight": weight} for word, weight in looked_at]}
