"""The listening game: in which half second of a spoken sentence was each word heard?

espeak-ng speaks a sentence and says itself where each word begins; Whisper writes it down. Of each word that it heard
`sources` should put a span first that the word was spoken in. Of a word that is not in the sound it should name none.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

import regard
from benchmarks import report
from benchmarks.espeak import speak
from benchmarks.source_verdicts import wilson
from regard.reading.reading import Reading

MODEL = "whisper-tiny"
# of words that are asked for
LETTERS = 4
TEXTS = (
    "Please call me back tomorrow morning, before the train leaves the station.",
    "The old bridge across the river was closed for repairs in September.",
    "We planted twenty tall trees behind the little wooden house.",
    "Nobody could remember where the captain had buried his golden watch.",
    "After dinner the children played chess beside the open window.",
    "A sudden storm scattered the fishing boats along the coast.",
)


# what is found out, whether it is right, and the cost in passes
Try = tuple[str, float, float]


def run() -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for what, is_right, passes in _tries():
        found.setdefault(what, []).append((is_right, passes))
    rows = []
    for what, tries in found.items():
        hits = round(sum(is_right for is_right, _ in tries))
        low, high = wilson(hits, len(tries))
        passes = np.mean([passes for _, passes in tries])
        rows.append([what, f"{hits} of {len(tries)} ({low:.0%}–{high:.0%})", f"{passes:.1f}"])
    report.write(
        "listening",
        "The listening game: half seconds of a spoken sentence, and the word that was heard in them",
        ["", "right", "passes"],
        rows,
        {what: {"right": sum(each for each, _ in tries), "of": len(tries)} for what, tries in found.items()},
        f"{len(TEXTS)} English sentences, each spoken by espeak-ng and written down by {MODEL}. A span is right for a "
        f"word of {LETTERS} letters or more that was heard as it was spoken, if the two overlap. Other words are of "
        "the next sentence, given as the answer to this sound; right is a verdict that names no span. A pass is one "
        "run over prompt and answer, a backward pass two; `sources` hides one span at least. 95 % Wilson intervals.",
    )


def _tries() -> Iterator[Try]:
    model = regard.load(MODEL)
    assert not isinstance(model, regard.Translator)
    for text, other in pairwise([*TEXTS, TEXTS[0]]):
        spoken = speak(text)
        sound = spoken.samples, spoken.rate
        reading = model.read(audio=sound)
        ends = [*(begin for _, begin in spoken.words[1:]), len(spoken.samples) / spoken.rate]
        for (word, begin), end in zip(spoken.words, ends, strict=True):
            if (heard := _in(reading.sequences["target"].text, word)) is not None:
                yield from _of_word(reading, heard, begin, end)
        for word in other.split():
            if (said := _in(other, word)) is not None and _in(text, word) is None:
                found = model.sources(audio=sound, answer=other, of=said, confirm=1)
                yield "`sources`: a word that was not spoken rests on no span", not found.verdict.on, found.passes


def _in(text: str, word: str) -> str | None:
    """A word as a text has it, once; None for a short one."""
    word = re.sub(r"[^a-z]", "", word.lower())
    found = re.findall(rf"\b{word}\b", text, re.IGNORECASE)
    return found[0] if len(word) >= LETTERS and len(found) == 1 else None


def _of_word(reading: Reading, word: str, begin: float, end: float) -> Iterator[Try]:
    sources: Any = reading.sources(of=word, confirm=1)
    areas = [each.area for each in sources]
    is_right = [area.start < end and area.end > begin for area in areas]
    yield "`sources`: a word was heard where it was spoken", is_right[0], sources.passes
    strongest = min(range(len(areas)), key=lambda place: sources[place].bound)
    yield "its bounds alone", is_right[strongest], 3.0
    tokens = reading.sequences["target"].tokens
    at = reading.sequences["target"].text.index(word)
    wrote = [place - 1 for place, each in enumerate(tokens) if each.start < at + len(word) and at < each.end]
    rows = [reading.rows("cross").index(row) for row in wrote]
    # [layer, head, key]
    weights = reading.weights("cross")[:, :, rows].sum(2)
    aligned = np.mean([weights[layer, head] for layer, head in reading.settings["alignment_heads"]], axis=0)
    for way, row in (("mean of the alignment heads", aligned), ("mean of all heads", weights.mean((0, 1)))):
        given = [row[list(each.positions)].sum() for each in sources]
        yield way, is_right[int(np.argmax(given))], 1.0
    yield "a span by chance", float(np.mean(is_right)), 0.0


if __name__ == "__main__":
    run()
