"""The sources of an answer: whether their ranking is right, whether the verdict is, and what they cost."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import report, source_ranking, source_verdicts
from benchmarks.pages import MODEL, NEW_TOKENS, Page, facts, load
from benchmarks.source_ranking import CHINESE_MODEL, HALVES
from benchmarks.source_verdicts import CHOSEN_ON, CRITERIA, MEASURED_ON, best_threshold, outcomes, wilson
from regard.evaluation.bootstrap import intervals
from regard.models.pretrained.texts import Texts
from regard.reading.language import read_tokens
from regard.reading.options import ReadOptions
from regard.reading.sources import RESTS

# an answer that no sentence changes by so many nats rests on none, so that none is its first
STRONG = 1.0
RESAMPLES = 2000
# tokens of a prompt, and how often it is timed
ROUNDS = {300: 3, 3000: 1}
WAYS = {
    "sources": "`sources`",
    "gradient": "its gradient alone",
    "copying": "its copying heads alone",
    "heads": "mean of all heads",
    "contextcite": f"ContextCite, {HALVES} ablations",
    "removal": "removing each sentence",
}
METRICS = ("first", "share", "spearman", "lds")


def run() -> None:
    figures: dict[str, Any] = {name: json.loads(_own_process(name)) for name in PARTS}
    write_page(figures)


def _own_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.sources", *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables).stdout


# what it costs


def cost(way: str | None = None, length: str | None = None) -> Any:
    """Processor seconds and peak memory in MB of one way and length; of all, each in a process of its own."""
    if way is None or length is None:
        ways = [(way, str(length)) for length in ROUNDS for way in ("read", "sources")]
        return [{"way": way, "length": length, **json.loads(_own_process("cost", way, length))} for way, length in ways]
    model = load()
    texts = Texts(model.tokenizer, model.name)

    def once(page: Page) -> tuple[float, int]:
        given, answer = texts.given(page.prompt, chat=True), str(page.answer)
        written = texts.encode_answer(answer)
        started = time.process_time()
        if way == "sources":
            model.sources(page.prompt, chat=True, answer=answer)
        else:
            options = ReadOptions.of({}, rows="generated")
            about = {"ends": model.ends, "inputs": model.adapter.inputs, "name": model.name}
            read_tokens(model.module, model.tokenizer, given, written, options, **about)
        return time.process_time() - started, len(given.ids) + len(written)

    # finds the heads that copy, once for a model
    once(facts("cost", 8))
    page, number = facts("cost", 8), 0
    while len(texts.given(page.prompt, chat=True).ids) < int(length):
        number += 1
        page = Page("facts", (*page.sentences, *facts(f"cost {number}", 4).sentences), page.question, page.answer)
    times = [once(page) for _ in range(ROUNDS[int(length)])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"seconds": [seconds for seconds, _ in times], "tokens": times[0][1], "peak": peak}


PARTS: dict[str, Callable[..., Any]] = {
    "ranking": source_ranking.ranking,
    "verdicts": source_verdicts.verdicts,
    "cost": cost,
}


# the page


def write_page(figures: dict[str, Any]) -> None:
    prompts = figures["ranking"]
    strong = [each for each in prompts if each["strongest"] <= -STRONG]
    groups = {f"all {len(prompts)}": prompts}
    if len(strong) < len(prompts):
        groups[f"{len(strong)} with a strong one"] = strong
    rows = [[name, WAYS[way], *_means(chosen, way)] for name, chosen in groups.items() for way in WAYS]
    header = ["prompts", "ranked by", "truly strongest first", "share of the loss", "Spearman", "LDS", "passes"]
    note = "\n\n".join([_about_ranking(prompts), _by_style(prompts), _about_verdicts(figures), _about_cost(figures)])
    report.write("sources", "The passages that answers rest on", header, rows, figures, note)


def _means(prompts: Sequence[dict[str, Any]], way: str) -> list[str]:
    values = np.array([[each["ways"][way][metric] for metric in METRICS] for each in prompts])
    low, high = intervals(values, lambda sums: sums / len(values), num_resamples=RESAMPLES, seed=0)
    cells = [f"{mean:.2f} ({a:.2f}–{b:.2f})" for mean, a, b in zip(values.mean(0), low, high, strict=True)]
    return [*cells, f"{statistics.mean(each['ways'][way]['passes'] for each in prompts):.1f}"]


def _about_ranking(prompts: Sequence[dict[str, Any]]) -> str:
    sizes = [each["sentences"] for each in prompts]
    strong = sum(each["strongest"] <= -STRONG for each in prompts)
    text = (
        f"Means over prompts with 95 % bootstrap intervals. Pages of {min(sizes)} to {max(sizes)} sentences made by "
        f"chance, read by {MODEL}, Chinese ones by {CHINESE_MODEL}, in their chat templates. Answers are given and "
        f"true, or the model's own, of at most {NEW_TOKENS} tokens. The truth is the change of the answer's "
        f"log-probability when a sentence is removed; a strong one takes at least {STRONG:g} nat, which "
        f"{strong} of the prompts have. LDS is the rank "
        "correlation of the summed strengths of what is kept with the answer's log-probability, over "
        f"{HALVES} random halves of the page. ContextCite is rebuilt: its LASSO on the log-odds of the answer, on "
        "other halves. A pass is one run over prompt and answer, a backward pass two; what precedes a removed "
        "sentence is not run again."
    )
    if any(each["style"] == "Chinese" for each in prompts):
        return text
    return f"{text} Chinese prompts are added once `regard generate {CHINESE_MODEL}` has fetched the model for them."


def _by_style(prompts: Sequence[dict[str, Any]]) -> str:
    rows = []
    for style in dict.fromkeys(each["style"] for each in prompts):
        chosen = [each for each in prompts if each["style"] == style and each["strongest"] <= -STRONG]
        if chosen:
            ways = ("sources", "heads", "contextcite")
            firsts = [f"{statistics.mean(each['ways'][way]['first'] for each in chosen):.2f}" for way in ways]
            share = statistics.mean(each["ways"]["sources"]["share"] for each in chosen)
            rows.append([style, str(len(chosen)), firsts[0], f"{share:.2f}", *firsts[1:]])
    header = [
        "style",
        "with a strong one",
        "`sources` first",
        "its share of the loss",
        "heads first",
        "ContextCite first",
    ]
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _about_verdicts(figures: dict[str, Any]) -> str:
    sets = {name: [each for each in figures["verdicts"] if each["set"] == name] for name in (CHOSEN_ON, MEASURED_ON)}
    rows, others = [], []
    for name, answers in sets.items():
        follows, knows = ([each for each in answers if each["kind"] == kind] for kind in ("follows", "knows"))
        named = statistics.mean(len(each["named"]) for each in follows)
        right, none = [each["target"] in each["named"] for each in follows], [not each["named"] for each in knows]
        questions = len({each["question"] for each in knows})
        rows.append([name, _rate(right), f"{named:.1f}", _rate(none), str(questions)])
    for criterion in CRITERIA:
        threshold = best_threshold(sets[CHOSEN_ON], criterion)
        rates = [_rate(hits) for answers in sets.values() for hits in outcomes(answers, criterion, threshold)]
        others.append([criterion, f"{threshold:.2f}", *rates])
    sizes = f"{source_verdicts.SIZES[0]} to {source_verdicts.SIZES[-1]} sentences"
    about = (
        "The verdict is judged by editing pages, not by removal. An answer follows a sentence when it has the "
        "sentence's value, and has another value once the sentence says that one. An answer is known when it is right "
        "and the same under two pages that share no fact with it; its first sentence alone is judged, for the next may "
        f"quote the page. Pages of {sizes}, {MODEL}'s own answers; 95 % Wilson intervals. The threshold, {RESTS:g} nat "
        "for each sentence that is removed, alone or with the others that are confirmed, was chosen on the first set "
        "and measured on the second, whose pages and questions are others."
    )
    header = [
        "set",
        "names the sentence that the answer follows",
        "sentences named",
        "names none for what is known",
        "questions known",
    ]
    beside = "Other criteria for single removals, each with the threshold that makes fewest errors on the first set:"
    columns = [f"{what}, {name}" for name in sets for what in ("names the sentence", "names none")]
    return f"{about}\n\n{_table(header, rows)}\n\n{beside}\n\n{_table(['change of', 'threshold', *columns], others)}"


def _rate(hits: Sequence[bool]) -> str:
    low, high = wilson(sum(hits), len(hits))
    return f"{sum(hits)} of {len(hits)} ({low:.0%}–{high:.0%})"


def _about_cost(figures: dict[str, Any]) -> str:
    rows = []
    for length in map(str, ROUNDS):
        read, sources = (
            next(each for each in figures["cost"] if each["way"] == way and each["length"] == length)
            for way in ("read", "sources")
        )
        seconds = [report.spread(each["seconds"], "{:.1f}") for each in (read, sources)]
        ratio = statistics.median(sources["seconds"]) / statistics.median(read["seconds"])
        peaks = [f"{each['peak']:,.0f}" for each in (read, sources)]
        rows.append([f"{read['tokens']:,}", str(len(read["seconds"])), *seconds, f"{ratio:.1f}", *peaks])
    header = ["tokens", "rounds", "`read`, s", "`sources`, s", "ratio", "peak of `read`, MB", "peak of `sources`, MB"]
    about = (
        "What it costs on one thread, in seconds of processor time: `sources` of a given answer beside `read` of the "
        "rows that write the same answer, each in a process of its own; medians, range in brackets. "
        "Peaks are of the whole process, loading the model included."
    )
    return f"{about}\n\n{_table(header, rows)}"


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
