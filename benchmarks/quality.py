"""Quality after equal epochs: JoeyNMT and Regard train models of equal size on the same tokens.

The sizes are small, so that the slower side trains a model in about half an hour on one thread. Models that stand
under runs/quality, and translations of JoeyNMT's, are taken as they are.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

import regard
from benchmarks import joeynmt, report, runs
from benchmarks.peers import Contender
from regard.data.prepare import TokenizedCorpus
from regard.data.tokenizer import Tokenizer
from regard.evaluation.bootstrap import intervals
from regard.evaluation.counts import bleu, bleu_counts, chrf, chrf_counts, tokenizer_for
from regard.evaluation.quality import Quality, evaluate_translations
from regard.generation.decoding import Decoding
from regard.training.recipe import Recipe, load_recipe

RUNS = runs.RUNS / "quality"
CORPORA = ("bible-en-fr", "libreoffice-en-de")
# of the test split; how to batch was chosen by the first 400, so that these tell
SENTENCES = range(400, 800)
NUM_BEAMS = 5
MAX_NEW_TOKENS = 60
RESAMPLES = 1000
TRAIN = {
    "train.epochs": 3,
    "train.threads": 1,
    "train.batch_tokens": 1024,
    "train.learning_rate": 1e-3,
    **joeynmt.COMMON,
}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("bible-bahdanau", {"model.embedding_dim": 128, "model.hidden_dim": 128}),
    "transformer": (
        "bible-transformer",
        {"model.model_dim": 128, "model.feed_forward_dim": 512, "model.num_layers": 2},
    ),
}

# JoeyNMT's batches, of sentences of any length, are a third to more than half padding; with so many tokens an update
# Regard makes as many of them. Its RNN is far ahead with fewer. Sentences of one length alone make a poor gradient: on
# the Bible an update is of three lengths.
BATCHES = {
    ("bible-en-fr", "transformer"): {"train.batch_tokens": 237, "train.accumulate": 3},
    ("libreoffice-en-de", "transformer"): {"train.batch_tokens": 450},
}
# The two have an optimiser in common, AdamW. Regard's recipes learn by another, with batches of the usual size.
MUON = {"train.optimizer": "muon", "train.learning_rate": 2e-3}
SIDES: dict[str, list[str]] = {"rnn": ["Regard"], "transformer": ["Regard", "Regard, Muon"]}


def run() -> None:
    figures = [_measure(corpus, model) for corpus in CORPORA for model in RECIPES]
    rows = [
        [
            figure["corpus"],
            figure["model"],
            side,
            *(f"{figure[side][count]:,}" for count in ("parameters", "updates")),
            *(_told(figure[side], metric) for metric in ("bleu", "chrf")),
            *(_told(figure[side]["ahead"], metric) if side != "JoeyNMT" else "" for metric in ("bleu", "chrf")),
        ]
        for figure in figures
        for side in ("JoeyNMT", *SIDES[figure["model"]])
    ]
    off = max(figure["off_sacrebleu"] for figure in figures)
    report.write(
        "quality",
        f"Quality after {TRAIN['train.epochs']} epochs",
        ["corpus", "model", "", "parameters", "updates", "BLEU", "chrF", "BLEU ahead", "chrF ahead"],
        rows,
        figures,
        f"JoeyNMT {joeynmt.VERSION} and Regard on the same pairs, tokens, vocabulary and sizes, by AdamW with the same "
        "learning rates but where Muon, the optimiser of Regard's own recipes, is named; the last weights of each. "
        f"Batches hold {TRAIN['train.batch_tokens']:,} tokens with padding; those of Regard's Transformer by AdamW, "
        "which have less padding, so many fewer that both make about as many updates, on the Bible each of three "
        f"batches of other lengths. Beam {NUM_BEAMS}, of the sentences of the test split that have at most 60 tokens "
        f"on either side the {SENTENCES.start + 1}st to {SENTENCES.stop}th, by which no setting was chosen; how "
        "Regard's Transformer batches was chosen by the 400 before them, JoeyNMT batches as it does. One seed each: "
        "the intervals tell of the sentences alone, not of other trainings. JoeyNMT's RNN feeds what it found into "
        "its next step, as Regard's does, and begins as its own recipes have it. In brackets bootstrap 95 % "
        "intervals; ahead is the difference on the same resamples. Scores are Regard's; "
        f"sacrebleu's differ by at most {off:.0e}.",
    )


def recipe(corpus: str, model: str) -> Recipe:
    name, sizes = RECIPES[model]
    return load_recipe(name, {**TRAIN, **sizes, "data.corpus": corpus})


def train_peer(corpus: str, model: str) -> Path:
    """The folder of JoeyNMT's model, trained now if it is not there."""
    folder = (RUNS / corpus).resolve()
    joeynmt.write_data(recipe(corpus, model), folder / "data")
    joeynmt.train(recipe(corpus, model), folder / "data", folder / f"joeynmt-{model}", threads=1)
    return folder / f"joeynmt-{model}"


def train_ours(corpus: str, model: str, side: str) -> regard.Translator:
    """Regard's model, trained now if it is not there."""
    data, (name, sizes) = RUNS / corpus / "data", RECIPES[model]
    joeynmt.write_data(recipe(corpus, model), data)
    own = MUON if side.endswith("Muon") else BATCHES.get((corpus, model), {})
    folder = RUNS / corpus / f"{side.lower().replace(', ', '-')}-{model}"
    return runs.trained(name, folder, {**TRAIN, **sizes, **own, **joeynmt.files(data)})


def peer_translations(corpus: str, model: str) -> list[list[str]]:
    """JoeyNMT's translations of these test sentences, as strings of tokens, made now if they are not there."""
    folder = train_peer(corpus, model)
    kept = folder / f"translations-{NUM_BEAMS}-{SENTENCES.start}-{SENTENCES.stop}.json"
    if not kept.exists():
        with (folder.parent / "data" / "test.source").open(encoding="utf-8") as lines:
            sentences = folder / "sentences.txt"
            sentences.write_text("".join(itertools.islice(lines, SENTENCES.start, SENTENCES.stop)), encoding="utf-8")
        settings = folder.with_suffix(".yaml")
        peer = Contender(joeynmt.interpreter(), "in_joeynmt", "translate", str(settings), str(sentences), threads=1)
        request = {"every": 1, "batch_size": 16, "num_beams": NUM_BEAMS, "max_new_tokens": MAX_NEW_TOKENS}
        outputs = peer.turn(**request)["outputs"]
        peer.last()
        kept.write_text(json.dumps(outputs), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def _measure(corpus: str, model: str) -> dict[str, Any]:
    data = RUNS / corpus / "data"
    translators = {side: train_ours(corpus, model, side) for side in SIDES[model]}
    tokenizer = Tokenizer.load(data / "tokenizer.json")
    test = TokenizedCorpus.open(data / "test-ids")
    sources, references = zip(*(map(tokenizer.decode, test[row]) for row in SENTENCES), strict=True)
    ids = {string: id for id, string in enumerate(joeynmt.token_strings(data / "tokenizer.json"))}
    theirs = [tokenizer.decode(ids[string] for string in output) for output in peer_translations(corpus, model)]
    quality = evaluate_translations(sources, theirs, references, num_resamples=RESAMPLES)
    peer = data.parent / f"joeynmt-{model}"
    sizes = {"parameters": joeynmt.parameters(peer), "updates": joeynmt.updates(peer)}
    figures: dict[str, Any] = {"corpus": corpus, "model": model, "JoeyNMT": sizes | quality.to_json()}
    off = [_off_sacrebleu(quality, theirs, references)]
    # JoeyNMT's measure of length
    decoding = Decoding(num_beams=NUM_BEAMS, length_normalization="gnmt", max_new_tokens=MAX_NEW_TOKENS)
    for side, translator in translators.items():
        # all have learned from the very same tokens
        assert (translator.run.path / "tokenizer.json").read_bytes() == (data / "tokenizer.json").read_bytes()
        ours = [written.text for written in translator.translate(list(sources), decoding)]
        quality = evaluate_translations(sources, ours, references, num_resamples=RESAMPLES)
        facts = translator.run.facts
        figures[side] = {
            "parameters": facts["parameters"],
            "updates": facts["steps"],
            **quality.to_json(),
            "ahead": _difference(ours, theirs, references),
            "same": sum(one == other for one, other in zip(ours, theirs, strict=True)),
        }
        off.append(_off_sacrebleu(quality, ours, references))
    return {**figures, "off_sacrebleu": max(off)}


def _difference(ours: Sequence[str], theirs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """How far we are ahead, with the ends of the interval when both are scored on the same resamples."""
    tokenizer = tokenizer_for(references)
    columns = [
        count
        for texts in (ours, theirs)
        for count in (bleu_counts(texts, references, tokenizer=tokenizer), chrf_counts(texts, references))
    ]
    ends = np.cumsum([count.shape[1] for count in columns])

    def ahead(sums: np.ndarray) -> np.ndarray:
        our_bleu, our_chrf, their_bleu, their_chrf, _ = np.split(sums, ends, axis=1)
        return np.column_stack([bleu(our_bleu) - bleu(their_bleu), chrf(our_chrf) - chrf(their_chrf)])

    counts = np.column_stack(columns)
    (values,) = ahead(counts.sum(axis=0, keepdims=True))
    low, high = intervals(counts, ahead, num_resamples=RESAMPLES, seed=0)
    return {
        f"{metric}{end}": float(figures[index])
        for index, metric in enumerate(("bleu", "chrf"))
        for end, figures in (("", values), ("_low", low), ("_high", high))
    }


def _off_sacrebleu(quality: Quality, texts: Sequence[str], references: Sequence[str]) -> float:
    """The larger of the two differences from sacrebleu's own scores."""
    theirs = BLEU(tokenize=tokenizer_for(references)).corpus_score(texts, [references]).score
    return max(abs(quality.bleu - theirs), abs(quality.chrf - CHRF().corpus_score(texts, [references]).score))


def _told(scores: dict[str, Any], metric: str) -> str:
    return f"{scores[metric]:.1f} ({scores[f'{metric}_low']:.1f} to {scores[f'{metric}_high']:.1f})"
