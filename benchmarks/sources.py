"""The sources of an answer: whether their ranking is right, whether the verdict is, and what they cost."""

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, source_nesting, source_ranking, source_verdicts
from benchmarks.kept import Kept, default_folder
from benchmarks.pages import MODEL, NEW_TOKENS, Page, facts, load
from benchmarks.source_ranking import CHINESE_MODEL, HALVES, LEARNED
from benchmarks.source_verdicts import CHOSEN_ON, CRITERIA, MEASURED_ON, best_threshold, outcomes, wilson
from regard.evaluation.bootstrap import intervals
from regard.models.pretrained.texts import Texts
from regard.reading.language import read_tokens
from regard.reading.options import ReadOptions
from regard.reading.sources import RESTS

# an answer that no passage changes by so many nats rests on none, so that none is its first
STRONG = 1.0
RESAMPLES = 2000
# tokens of a prompt, and how often it is timed
ROUNDS = {300: 3, 3000: 1}
WAYS = {
    "sources": "`sources`",
    "estimates": "its estimates, none confirmed",
    "gradient": "its gradient alone",
    "copying": "its copying heads alone",
    "heads": "mean of all heads",
    "rollout": "rollout",
    "attnlrp": "AttnLRP",
    "at2": "AT2-like weights of heads, learned on all other prompts",
    "at2 other styles": "the same, on prompts of other styles",
    "contextcite 32": "ContextCite, 32 ablations",
    "contextcite 64": "ContextCite, 64 ablations",
    "removal": "removing each passage",
}
METRICS = ("first", "share", "spearman", "lds")


def run() -> None:
    for part in PARTS:
        update(part, default_folder())


def update(part: str, cache: Path) -> None:
    """Measure one part in a process of its own, and write the page with it and the others as they were."""
    write_page({**written(), part: made(json.loads(_own_process("--cache", str(cache), "--figures", part)))})


def made(figures: Any) -> dict[str, Any]:
    about = {"date": datetime.date.today().isoformat(), "commit": report.commit(), "machine": report.machine()}
    return {**about, "figures": figures}


def written() -> dict[str, Any]:
    """The parts of the page as it is."""
    path = report.RESULTS / "sources.json"
    return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.exists() else {}


def _own_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.sources", *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables).stdout


# what it costs


def cost(way: str | None = None, length: str | None = None) -> Any:
    """Processor seconds and peak memory in MB of one way and length; of all, each in a process of its own."""
    if way is None or length is None:
        ways = [(way, str(length)) for length in ROUNDS for way in ("read", "sources")]
        return [
            {"way": way, "length": length, **json.loads(_own_process("--figures", "cost", way, length))}
            for way, length in ways
        ]
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
    "nesting": source_nesting.nesting,
    "verdicts": source_verdicts.verdicts,
    "cost": cost,
}


# the page


def write_page(parts: dict[str, Any]) -> None:
    prompts = parts["ranking"]["figures"]
    strong = [each for each in prompts if _is_strong(each)]
    groups = {f"all {len(prompts)}": prompts}
    if len(strong) < len(prompts):
        groups[f"{len(strong)} with a strong one"] = strong
    every = [each for each in prompts if WAYS.keys() <= each["ways"].keys()]
    if 0 < len(every) < len(prompts):
        groups[f"{len(every)} measured in every way"] = every
    for model, language in ((MODEL, "English"), (CHINESE_MODEL, "Chinese")):
        chosen = [each for each in prompts if each["model"] == model]
        groups[f"{language}, {len(chosen)}"] = chosen
    rows = [
        [name, WAYS[way], *_means(chosen, way)]
        for name, chosen in groups.items()
        for way in WAYS
        if all(way in each["ways"] for each in chosen)
    ]
    header = ["prompts", "ranked by", "truly strongest first", "share of the loss", "Spearman", "LDS", "passes"]
    sections = {"ranking": _about_ranking, "nesting": _about_nesting, "verdicts": _about_verdicts, "cost": _about_cost}
    notes = [
        f"{about(parts[part]['figures'])}\n\nMeasured {_made(parts[part])}."
        for part, about in sections.items()
        if part in parts
    ]
    report.write("sources", "The passages that answers rest on", header, rows, parts, "\n\n".join(notes))


def _made(part: dict[str, Any]) -> str:
    return f"on {part['date']}, commit {part['commit']}, {part['machine']}"


def _is_strong(prompt: dict[str, Any]) -> bool:
    return prompt["strongest"] <= -STRONG


def _means(prompts: Sequence[dict[str, Any]], way: str) -> list[str]:
    values = np.array([[each["ways"][way][metric] for metric in METRICS] for each in prompts])
    low, high = intervals(values, lambda sums: sums / len(values), num_resamples=RESAMPLES, seed=0)
    cells = [f"{mean:.2f} ({a:.2f}–{b:.2f})" for mean, a, b in zip(values.mean(0), low, high, strict=True)]
    return [*cells, f"{statistics.mean(each['ways'][way]['passes'] for each in prompts):.1f}"]


def _about_ranking(prompts: Sequence[dict[str, Any]]) -> str:
    sizes, tokens = [each["passages"] for each in prompts], [each["tokens"] for each in prompts]
    text = (
        f"Means over prompts with 95 % bootstrap intervals. Prompts of {min(tokens)} to {max(tokens):,} tokens, median "
        f"{statistics.median(tokens):.0f}, in {min(sizes)} to {max(sizes)} passages: sentences, of the long ones "
        f"paragraphs. They are made by chance, or are verses of the Bible, novels by Jane Austen and help pages with a "
        f"question about them. They are read by {MODEL}, Chinese ones by {CHINESE_MODEL}, as chats. Answers are given "
        f"and true, or the model's own, of at most {NEW_TOKENS} tokens. The truth is the change of the answer's "
        f"log-probability when a passage is removed; a strong one takes at least {STRONG:g} nat, which "
        f"{sum(map(_is_strong, prompts))} of the prompts have. LDS is the rank correlation of the summed strengths of "
        f"what is kept with the answer's log-probability, over {HALVES} random halves of the page. The other ways are "
        f"rebuilt: ContextCite with its LASSO on the log-odds of the answer, AT2 by ridge regression, both on up to "
        f"{LEARNED} other halves, AttnLRP as gradients of transformers' own modules under its rules. A pass is one run "
        "over prompt and answer, a backward pass two; what precedes a removed passage is not run again. Passes that "
        "weights of heads are learned with are not counted. Ways are left out where some prompts lack them."
    )
    by_style = []
    for style in dict.fromkeys(each["style"] for each in prompts):
        chosen = [each for each in prompts if each["style"] == style]
        others = [_first(chosen, way) for way in OTHERS]
        strong = sum(map(_is_strong, chosen))
        by_style.append([style, str(len(chosen)), str(strong), *_means(chosen, "sources"), *others])
    header = ["style", "prompts", "with a strong one", "`sources` first", "its share of the loss", "Spearman", "LDS"]
    header += ["passes", *(f"{WAYS[way]} first" for way in OTHERS)]
    if any(each["model"] == CHINESE_MODEL for each in prompts):
        return f"{text}\n\n{_table(header, by_style)}"
    more = f"Chinese prompts are added once `regard generate {CHINESE_MODEL}` has fetched the model for them."
    return f"{text} {more}\n\n{_table(header, by_style)}"


def _first(prompts: Sequence[dict[str, Any]], way: str) -> str:
    if any(way not in each["ways"] for each in prompts):
        return "–"
    return f"{statistics.mean(each['ways'][way]['first'] for each in prompts):.2f}"


# ways beside which the first of `sources` is shown by style
OTHERS = ("heads", "attnlrp", "contextcite 32")


def _about_nesting(prompts: Sequence[dict[str, Any]]) -> str:
    rows = []
    for style in [*dict.fromkeys(each["style"] for each in prompts), "all"]:
        chosen = [each for each in prompts if style in (each["style"], "all")]
        coarse, fine = ([each["passes"][step] for each in chosen] for step in range(2))
        nearest = [each["strongest"] for each in chosen]
        rows.append(
            [
                style,
                _rate([each["paragraph"] == 1 for each in chosen]),
                report.spread([first for first, _ in nearest], "{:.1f}"),
                report.spread([second for _, second in nearest], "{:.1f}"),
                _rate([each["paragraph"] == each["sentence"] == 1 for each in chosen]),
                f"{statistics.mean(coarse):.1f} + {statistics.mean(fine):.1f}",
            ]
        )
    header = ["style", "true paragraph first", "its effect, nats", "the next one's", "true sentence first", "passes"]
    tokens, counts = ([each[name] for each in prompts] for name in ("tokens", "paragraphs"))
    about = (
        f"In two steps, on prompts of {min(tokens):,} to {max(tokens):,} tokens in {min(counts)} to {max(counts)} "
        "paragraphs of real text: `sources` by paragraph, then by the sentences of the strongest paragraph. The "
        "truth is known from how the prompt was made: one sentence gives the answer. 95 % Wilson intervals; medians, "
        "range in brackets."
    )
    return f"{about}\n\n{_table(header, rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _about_verdicts(judged: Sequence[dict[str, Any]]) -> str:
    sets = {name: [each for each in judged if each["set"] == name] for name in (CHOSEN_ON, MEASURED_ON)}
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


def _about_cost(costs: Sequence[dict[str, Any]]) -> str:
    rows = []
    for length in map(str, ROUNDS):
        read, sources = (
            next(each for each in costs if each["way"] == way and each["length"] == length)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sources", description="Measure a part, or write the page."
    )
    parser.add_argument("part", choices=[*PARTS, "page"], help="page: from what has been measured so far")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, default=default_folder(), help="folder of what has been measured")
    parser.add_argument("--figures", action="store_true", help="print the figures as JSON instead")
    given = parser.parse_args()
    if given.figures:
        about = [] if given.part == "cost" else [Kept(given.cache)]
        print(json.dumps(PARTS[given.part](*about, *given.arguments)))
    elif given.part == "page":
        kept = Kept(given.cache)
        found = {name: PARTS[name](kept, measures=False) for name in ("ranking", "nesting", "verdicts")}
        write_page({**written(), **{name: made(figures) for name, figures in found.items() if figures}})
    else:
        update(given.part, given.cache)


if __name__ == "__main__":
    main()
