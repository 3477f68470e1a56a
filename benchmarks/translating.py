"""Translating speed: one trained Transformer in JoeyNMT, CTranslate2 and Regard, in turn, on one thread.

All three hold the same weights, so that they do the same work and write the same translations, but for the ways in
which their beams end.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import regard
from benchmarks import joeynmt, report
from benchmarks.peers import Contender
from benchmarks.runs import trained
from regard.generation.decoding import Decoding

RECIPE = "bible-transformer"
NUM_BEAMS = 5
MAX_NEW_TOKENS = 100
# of the test split; every EVERYth of them is timed
SENTENCES = 1000
EVERY = 8
TURNS = 3
BATCH_SIZES = (16, 32, 64)
THREADS = (1,)
# of Regard alone, to show that the batch changes no translation
WITNESS_BATCH_SIZES = (1, 7, 64)


def run() -> None:
    translator = trained(RECIPE)
    pairs = translator.pairs("test")[:SENTENCES]
    ids = translator.tokenizer.encode_batch([pair.source for pair in pairs])
    # by length, since JoeyNMT takes its batches as they come
    order = sorted(range(len(pairs)), key=lambda index: len(ids[index]))
    texts = [pairs[index].source for index in order]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        translator.export("ctranslate2", folder / "ctranslate2")
        translator.tokenizer.save(folder / "tokenizer.json")
        strings = joeynmt.write_vocabulary(folder)
        joeynmt.write_settings(translator.run.recipe, folder, folder / "joeynmt")
        joeynmt.write_weights(translator.module, folder / "joeynmt")
        _write(folder / "text.txt", texts)
        _write(folder / "tokens.txt", (" ".join(strings[id] for id in ids[index]) for index in order))
        figures = {threads: _measure(translator, folder, threads) for threads in THREADS}
    differing = _differing(translator, texts)
    and_so_on = " and ".join(f"{count} become others with batches of {size}" for size, count in differing.items())
    rows = [
        [
            str(threads),
            side,
            str(figure["batch_size"]),
            report.spread(figure["sentences_per_second"], "{:,.1f}"),
            report.spread(figure["to_joeynmt"], "{:.1f}"),
            report.spread(figure["to_ctranslate2"], "{:.2f}"),
            f"{figure['same_greedy']:.1%}",
            f"{figure['same_beam']:.1%}",
        ]
        for threads, sides in figures.items()
        for side, figure in sides.items()
    ]
    report.write(
        "translating",
        f"Translating with beam {NUM_BEAMS}",
        [
            *("threads", "", "batch", "sentences/s", "ratio to JoeyNMT", "ratio to CTranslate2"),
            *("greedy as Regard", "beam as Regard"),
        ],
        rows,
        {"sides": figures, "differing_by_batch_size": differing},
        f"{translator.name}, the same weights in all. {len(texts[::EVERY])} sentences of the test split in order of "
        f"their length, to at most {MAX_NEW_TOKENS} tokens, each side with the batch size that served it best of "
        f"{', '.join(map(str, BATCH_SIZES))} sentences. Medians of {TURNS} turns, and of the turns' ratios, "
        "their range in brackets; tokenizing and detokenizing count, except JoeyNMT's. The last columns are the share "
        "of translations that are Regard's float32 ones to the letter; JoeyNMT never ends a translation before its "
        f"second token, and measures length otherwise. Of Regard's own {len(texts)} translations with batches of "
        f"{WITNESS_BATCH_SIZES[0]}, {and_so_on}.",
    )


def _measure(translator: regard.Translator, folder: Path, threads: int) -> dict[str, Any]:
    text, tokens, settings = (str(folder / name) for name in ("text.txt", "tokens.txt", "joeynmt.yaml"))
    run, exported = str(translator.run.path), str(folder / "ctranslate2")
    ours = (sys.executable, "in_regard", "translate", run, text)
    peer = (sys.executable, "in_ctranslate2", exported, text)
    contenders = {
        "JoeyNMT": Contender(joeynmt.interpreter(), "in_joeynmt", "translate", settings, tokens, threads=threads),
        # batches side by side, and one batch by all threads
        "CTranslate2": Contender(*peer, threads, 1, threads=1),
        **({"CTranslate2, batches in turn": Contender(*peer, 1, threads, threads=threads)} if threads > 1 else {}),
        "Regard": Contender(*ours, "float32", threads=threads),
        "Regard, bfloat16": Contender(*ours, "bfloat16", threads=threads),
    }
    greedy = {side: _turn(contender, num_beams=1)["outputs"] for side, contender in contenders.items()}
    best = {side: _best_batch_size(contender) for side, contender in contenders.items()}
    heard: dict[str, list[dict[str, Any]]] = {side: [] for side in contenders}
    for _ in range(TURNS):
        for side, contender in contenders.items():
            heard[side].append(_turn(contender, batch_size=best[side]))
    for contender in contenders.values():
        contender.last()
    speeds = {side: [len(turn["outputs"]) / turn["seconds"] for turn in turns] for side, turns in heard.items()}
    # where there are several, whichever is fastest in a turn
    bars = [
        max(turn) for turn in zip(*(speeds[side] for side in speeds if side.startswith("CTranslate2")), strict=True)
    ]
    text_of = _decoder(translator)
    beam = {side: turns[0]["outputs"] for side, turns in heard.items()}
    for outputs in (greedy, beam):
        outputs["JoeyNMT"] = list(map(text_of, outputs["JoeyNMT"]))
    return {
        side: {
            "batch_size": best[side],
            "sentences_per_second": speeds[side],
            "to_joeynmt": _ratios(speeds[side], speeds["JoeyNMT"]),
            "to_ctranslate2": _ratios(speeds[side], bars),
            "same_greedy": _same(greedy[side], greedy["Regard"]),
            "same_beam": _same(beam[side], beam["Regard"]),
        }
        for side in contenders
    }


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def _turn(contender: Contender, **changes: Any) -> dict[str, Any]:
    request = {"every": EVERY, "num_beams": NUM_BEAMS, "batch_size": 16, "max_new_tokens": MAX_NEW_TOKENS}
    return contender.turn(**request | changes)


def _best_batch_size(contender: Contender) -> int:
    """The one that is fastest on a part of the sentences."""
    seconds = {size: _turn(contender, batch_size=size, every=4 * EVERY)["seconds"] for size in BATCH_SIZES}
    return min(seconds, key=seconds.__getitem__)


def _decoder(translator: regard.Translator) -> Callable[[Sequence[str]], str]:
    ids = {string: id for id, string in enumerate(joeynmt.token_strings(translator.run.path / "tokenizer.json"))}
    return lambda strings: translator.tokenizer.decode(ids[string] for string in strings)


def _same(texts: Sequence[str], ours: Sequence[str]) -> float:
    return statistics.mean(text == our for text, our in zip(texts, ours, strict=True))


def _differing(translator: regard.Translator, texts: list[str]) -> dict[int, int]:
    """By batch size, how many translations are not those of the smallest batches."""
    first, *others = WITNESS_BATCH_SIZES
    decoding = Decoding(num_beams=NUM_BEAMS, max_new_tokens=MAX_NEW_TOKENS)
    alone = [written.text for written in translator.translate(texts, decoding, batch_size=first)]
    return {
        size: sum(
            written.text != text
            for written, text in zip(translator.translate(texts, decoding, batch_size=size), alone, strict=True)
        )
        for size in others
    }


def _write(file: Path, lines: Iterable[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
