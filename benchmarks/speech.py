"""When words were spoken, by Whisper: against transformers' own times, and against those of the voice itself."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import regard
from benchmarks import report
from benchmarks.espeak import Spoken, speak
from regard.data.sound import open_sound

MODELS = ("whisper-tiny", "whisper-base")
RATES = (130, 170)
NEAR = 0.1
TEXTS = (
    "The quick brown fox jumps over the lazy dog. She sells sea shells by the sea shore.",
    "Please call me back tomorrow morning, before the train leaves the station.",
    "In the year two thousand and five, the old bridge across the river was closed for repairs.",
    "My brother bought seven apples, three oranges and a large bag of rice at the market.",
    "When the rain stopped, the children ran into the garden and played until the evening.",
    "A good teacher explains difficult things with simple words.",
    "Nobody knows where the captain hid the letters that he brought from the island.",
    "The museum opens at nine, but the ticket office is closed on Mondays.",
)


def run() -> None:
    figures: dict[str, dict[str, list[float]]] = {}
    for name in MODELS:
        figures[name] = {}
        for pair, difference in _differences(name):
            figures[name].setdefault(pair, []).append(difference)
    report.write(
        "speech",
        "When words were spoken",
        ["", "whisper-tiny", "whisper-base"],
        list(_rows(figures)),
        {name: {pair: _facts(each) for pair, each in found.items()} for name, found in figures.items()},
        f"{len(TEXTS)} English texts, each spoken by espeak-ng at {' and '.join(map(str, RATES))} words a minute, "
        "written down by each model greedily, its mishearings included. Differences are seconds between the beginnings "
        "of words (of the last also its end). The times of transformers are those of its "
        "`generate(return_token_timestamps=True)`: it keeps no row of the first token, so that its first two tokens "
        "begin at 0 whatever was heard; those are not counted in the first four lines. “Same rows” is transformers' "
        "`_extract_token_timestamps` on one forward pass that has that row, as openai-whisper reads it. Against "
        "espeak-ng, which says itself where it begins a word, the "
        "words are counted that the model heard as they were spoken.",
    )


def _rows(figures: dict[str, dict[str, list[float]]]) -> Iterator[list[str]]:
    labels = {
        "generate": "Regard against transformers' `generate`",
        "rows": "Regard against transformers, same rows",
        "espeak": "Regard against espeak-ng",
        "theirs": "transformers' `generate` against espeak-ng",
    }
    for pair, label in labels.items():
        found = [np.abs(figures[name][pair]) for name in MODELS]
        yield [f"{label}: boundaries", *(str(len(each)) for each in found)]
        yield ["… median of the distance, s", *(f"{np.median(each):.3f}" for each in found)]
        yield [f"… within {NEAR} s", *(f"{(each <= NEAR).mean():.1%}" for each in found)]
        yield ["… largest, s", *(f"{each.max():.2f}" for each in found)]
    biases = (np.mean(figures[name]["espeak"]) for name in MODELS)
    yield ["Regard later than espeak-ng by, s (mean)", *(f"{bias:+.3f}" for bias in biases)]


def _facts(differences: list[float]) -> dict[str, float]:
    values = np.abs(differences)
    return {
        "boundaries": len(values),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "within": float((values <= NEAR).mean()),
        "largest": float(values.max()),
        "bias": float(np.mean(differences)),
    }


def _differences(name: str) -> Iterator[tuple[str, float]]:
    """What is compared, and by how much Regard, or in the last of them transformers, is later."""
    model = regard.load(name)
    assert not isinstance(model, regard.Translator)
    language = "en" if model.listening.facts.get("is_multilingual") else None
    for text in TEXTS:
        for rate in RATES:
            spoken = speak(text, words_per_minute=rate)
            sound = open_sound((spoken.samples, spoken.rate), rate=model.listening.rate)
            reading = model.read(audio=sound, language=language)
            tokens = reading.sequences["target"].tokens[reading.settings["prompt_tokens"] :]
            ours = reading.word_times()
            firsts = [next(n for n, token in enumerate(tokens) if word in token.words) for word in range(len(ours))]
            ids = [token.id for token in reading.sequences["target"].tokens]
            generated = _generated(model, sound, language, [token.id for token in tokens])
            same = _same_rows(model, sound, ids, reading)
            for first, each in zip(firsts, ours, strict=True):
                yield "rows", each.start - same[first]
                if first >= 2 and generated is not None:
                    yield "generate", each.start - generated[first - 1]
            if generated is not None:
                yield "generate", ours[-1].end - generated[len(tokens) - 2]
            begins = [0.0 if generated is None or first == 0 else generated[first - 1] for first in firsts]
            for word, second in _heard(spoken, [each.text for each in ours]):
                yield "espeak", ours[word].start - second
                if generated is not None:
                    yield "theirs", begins[word] - second


def _generated(model: Any, sound: Any, language: str | None, tokens: list[int]) -> list[float] | None:
    """transformers' own time of each token; None where it wrote others."""
    features = model.listening.features([sound])
    frames = torch.arange(3000)[None] < int(np.ceil(sound.seconds * 100))
    told = {} if language is None else {"language": language, "task": "transcribe"}
    with torch.inference_mode():
        found = model.module.generate(
            **features, attention_mask=frames.long(), return_token_timestamps=True, do_sample=False, num_beams=1, **told
        )
    written, times = found["sequences"][0].tolist(), found["token_timestamps"][0].tolist()
    own = tokens[:-1]
    for start in range(len(written) - len(own) + 1):
        if written[start : start + len(own)] == own:
            return times[start : start + len(own)]
    return None


def _same_rows(model: Any, sound: Any, ids: list[int], reading: Any) -> list[float]:
    """The times of transformers' own function, from the row that wrote the first token."""
    module = model.module
    module.set_attn_implementation("eager")
    with torch.inference_mode():
        out = module(
            **model.listening.features([sound]), decoder_input_ids=torch.tensor([ids[:-1]]), output_attentions=True
        )
    module.set_attn_implementation("sdpa")
    outputs = type("Outputs", (dict,), {"cross_attentions": [out.cross_attentions], "sequences": torch.tensor([ids])})()
    first = reading.settings["prompt_tokens"] - 1
    times = module._extract_token_timestamps(
        outputs,
        reading.settings["alignment_heads"],
        num_frames=int(np.ceil(sound.seconds * 100)),
        num_input_ids=first,
    )
    return times[0, first:].tolist()


def _heard(spoken: Spoken, words: list[str]) -> Iterator[tuple[int, float]]:
    """The written words that are those that were spoken, with the second in which each was."""
    ours, theirs = (
        [re.sub(r"[^a-z0-9']", "", word.lower()) for word in each] for each in (words, [w for w, _ in spoken.words])
    )
    for block in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            yield block.a + step, spoken.words[block.b + step][1]
