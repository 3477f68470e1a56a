"""An atlas of SmolLM2-135M: what it costs beside bare passes, its memory, two workers, and whether its names are true.

Texts are windows of Jane Austen's novels. A bare pass is the model's forward in inference mode, logits and all.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import regard
from benchmarks import report
from regard.data.corpora import get_corpus
from regard.data.text import Text
from regard.language_model import LanguageModel
from regard.language_model.atlas import AtlasMaker
from regard.reading.atlas import NAMES
from regard.reading.interventions import Head

MODEL, CORPUS = "smollm2", "austen"
TOKENS = 128
TURNS = 15
# texts of the table of heads, of the workers', and of the memory's two runs
TEXTS, WORKED = 100, 200
MEMORY = (100, 10_000)
WORKERS = 2
# random tokens given twice, in how many texts, that no head was named by
HALF, ABLATED, SEED = 64, 16, 7
FIRST, DRAWS = 10, 10
REPLICATES = 2000


def run() -> None:
    torch.set_num_threads(1)
    model = regard.load(MODEL, dtype="float32")
    assert isinstance(model, LanguageModel)
    texts = _windows(model, max(TEXTS, WORKED))
    figures: dict[str, Any] = {"cost": _cost(model, texts)}
    atlas = regard.atlas(model, texts[:TEXTS], max_tokens=TOKENS)
    heads = atlas.heads("prefix_matching")
    figures["named"] = {name: len(atlas.heads(name)) for name in NAMES}
    figures["ablation"] = _ablation(model, heads[:FIRST])
    with tempfile.TemporaryDirectory() as name:
        figures["memory"] = _memory(Path(name))
        figures["workers"] = _workers(Path(name), texts[:WORKED])
    cost, cut, memory, workers = (figures[name] for name in ("cost", "ablation", "memory", "workers"))
    ratios = cost["ratio"]
    rows = [
        ["a text of 128 tokens, times a bare pass", f"{report.spread(ratios, '{:.2f}')}", "at most 1.5"],
        ["… of which the model's own pass without logits", f"{report.spread(cost['model'], '{:.2f}')}", ""],
        ["… measuring", f"{report.spread(cost['measuring'], '{:.2f}')}", ""],
        ["… adding up", f"{report.spread(cost['adding'], '{:.2f}')}", ""],
        [f"memory, {MEMORY[1]:,} texts beside {MEMORY[0]}", f"{memory['ratio']:.3f}", "at most 1.05"],
        [f"{WORKERS} workers of Ray, times one", f"{workers['ratio']:.2f}", "at least 1.8"],
        ["… behind the first shard", f"{workers['behind']:.2f}", ""],
        [
            f"without the first {FIRST} heads named induction, nats a token of the second half",
            _interval(cut["named"]),
            "",
        ],
        [f"without {FIRST} random heads of the same layers", _interval(cut["random"]), ""],
        ["the first, times the second", _interval(cut["ratio"]), "at least 5"],
    ]
    report.write(
        "atlas",
        "An atlas of SmolLM2-135M-Instruct",
        ["", "measured", "wanted"],
        rows,
        figures,
        f"One thread. Texts are windows of {TOKENS} tokens of Jane Austen's novels. Cost: medians of {TURNS} turns, in "
        "each of which a bare pass, logits and all, and the atlas's own parts are timed; ranges in brackets. Memory is "
        f"the most that the process of the whole command held, over texts of {memory['tokens']} tokens, of a model "
        f"with as many layers and heads whose passes are short: it held {memory['bytes'][0] / 1e6:,.0f} and "
        f"{memory['bytes'][1] / 1e6:,.0f} MB. Workers: the whole command on {WORKED} texts, from the start of Python "
        f"to the atlas, whose bytes are the same, at a load of {workers['load']:.1f}. Ablation: {ABLATED} texts of "
        f"{HALF} random tokens given twice, others than those that name heads; the random heads are drawn {DRAWS} "
        "times from the same layers, in the same numbers, without those named; intervals of 95 % by a bootstrap over "
        f"texts. {len(heads)} heads were named induction.",
    )


def _windows(model: LanguageModel, count: int) -> list[str]:
    corpus = get_corpus(CORPUS)
    assert isinstance(corpus, Text)
    found: list[str] = []
    for document in corpus.documents("train"):
        ids = model.encode(document)[0]
        # what is cut into tokens anew may have more of them
        starts = range(0, len(ids) - 2 * TOKENS, TOKENS)
        found += [model.decode(ids[start : start + TOKENS + 8]) for start in starts]
        if len(found) >= count:
            return found[:count]
    raise ValueError(f"{CORPUS} has less than {count} windows")


def _cost(model: LanguageModel, texts: Sequence[str]) -> dict[str, list[float]]:
    """Of each turn, in bare passes: all that an atlas does with a text, and its parts."""
    maker = AtlasMaker(model, max_tokens=TOKENS)
    # the first brings the probes
    tally = maker.add(None, maker.measured(texts[0], id="0", place=0))
    found: dict[str, list[float]] = {name: [] for name in ("ratio", "model", "measuring", "adding")}
    for turn in range(1, TURNS + 1):
        tokens = torch.tensor([model.encode(texts[turn])[0][:TOKENS]])
        with torch.inference_mode():
            bare = _seconds(lambda tokens=tokens: model.module(tokens))
            own = _seconds(lambda tokens=tokens: maker._run(tokens))
        kept: list[Any] = []
        whole = _seconds(
            lambda turn=turn, kept=kept: kept.append(maker.measured(texts[turn], id=str(turn), place=turn))
        )
        adding = _seconds(lambda kept=kept, tally=tally: maker.add(tally, kept[0]))
        parts = {"ratio": whole + adding, "model": own, "measuring": whole - own, "adding": adding}
        for name, seconds in parts.items():
            found[name].append(seconds / bare)
    return found


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ablation(model: LanguageModel, named: Sequence[Head]) -> dict[str, Any]:
    """Nats a token of the second half costs without the named heads, without random ones, and how many times."""
    rng, torch_rng = random.Random(SEED), torch.Generator().manual_seed(SEED)
    texts = [torch.randint(100, 49_000, (HALF,), generator=torch_rng).repeat(2)[None] for _ in range(ABLATED)]
    most = model.module.config.num_heads
    layers = [layer for layer, _ in named]

    def drawn() -> list[Head]:
        found: list[Head] = []
        for layer in layers:
            left = [(layer, head) for head in range(most) if (layer, head) not in (*named, *found)]
            found.append(rng.choice(left))
        return found

    plain = _second_half(model, texts)
    cost = plain - _without(model, named, texts)
    others = np.mean([plain - _without(model, drawn(), texts) for _ in range(DRAWS)], axis=0)
    generator = np.random.default_rng(SEED)
    picks = generator.integers(0, ABLATED, (REPLICATES, ABLATED))
    return {
        "heads": list(named),
        "named": _with_ends(cost.mean(), cost[picks].mean(1)),
        "random": _with_ends(others.mean(), others[picks].mean(1)),
        "ratio": _with_ends(cost.mean() / others.mean(), cost[picks].mean(1) / others[picks].mean(1)),
    }


def _without(model: LanguageModel, heads: Sequence[Head], texts: Sequence[torch.Tensor]) -> np.ndarray:
    with regard.ablating(model, heads):
        return _second_half(model, texts)


def _second_half(model: LanguageModel, texts: Sequence[torch.Tensor]) -> np.ndarray:
    """The mean log-probability of a token of each text's second half."""
    found = []
    for tokens in texts:
        with torch.inference_mode():
            scores = model.module(tokens).logits[0, HALF - 1 : -1].double().log_softmax(-1)
        found.append(float(scores.gather(1, tokens[0, HALF:, None]).mean()))
    return np.array(found)


def _with_ends(value: float, replicates: np.ndarray) -> list[float]:
    return [float(value), *map(float, np.quantile(replicates, [0.025, 0.975]))]


def _interval(found: Sequence[float]) -> str:
    return "{:.2f} ({:.2f}–{:.2f})".format(*found)


def _memory(folder: Path) -> dict[str, Any]:
    """The most bytes that the whole command held over few and over many texts."""
    small = folder / "small"
    _write_small(small)
    line = "one two three four five six seven"
    held = []
    for count in MEMORY:
        (folder / f"{count}.txt").write_text(f"{line}\n" * count)
        command = [sys.executable, "-m", "regard", "atlas", str(small), f"{count}.txt", "--out", f"of{count}"]
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"{' '.join(command)} ended with {status}"
        held.append(usage.ru_maxrss * 1024)
    tokens = len(regard.load(str(small)).encode(line)[0])
    return {"bytes": held, "ratio": held[1] / held[0], "tokens": tokens}


def _write_small(folder: Path) -> None:
    """A model with SmolLM2's layers and heads, and little else."""
    import transformers
    from transformers import AutoTokenizer

    from regard.models.pretrained.aliases import alias_folder

    tokenizer = AutoTokenizer.from_pretrained(alias_folder(MODEL))
    sizes = {"hidden_size": 36, "intermediate_size": 36, "num_hidden_layers": 30}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads, tie_word_embeddings=True)
    torch.manual_seed(SEED)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _workers(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Seconds of the whole command by one worker in process and by two of Ray."""
    lines = (json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts))
    (folder / "texts.jsonl").write_text("".join(lines))
    seconds, first = {}, {}
    for side, options in (("local", ()), ("ray", ("--engine", "ray", "--workers", str(WORKERS)))):
        command = [sys.executable, "-m", "regard", "atlas", MODEL, "texts.jsonl", "--max-tokens", str(TOKENS)]
        command += ["--out", side, "--shard-size", "10", *options]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not any((folder / side).glob("shard-*.safetensors")):
            time.sleep(0.05)
        first[side] = time.perf_counter() - started
        assert process.wait() == 0, " ".join(command)
        seconds[side] = time.perf_counter() - started
    assert len({(folder / side / "atlas.safetensors").read_bytes() for side in seconds}) == 1
    behind = (seconds["local"] - first["local"]) / (seconds["ray"] - first["ray"])
    ratio = seconds["local"] / seconds["ray"]
    return {"seconds": seconds, "first": first, "ratio": ratio, "behind": behind, "load": os.getloadavg()[1]}


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}
