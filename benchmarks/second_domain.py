"""A translator for a second domain: trained further from a run on another, beside that run and training from noise.

bible-en-fr, then libreoffice-en-fr, with as many steps of the same size for both ways, which so take the same time.
"""

from benchmarks import report
from benchmarks.runs import RUNS, trained
from regard.view.progress import counting

BASE_STEPS, STEPS = 1500, 500
NUM_BEAMS = 4
SIZES = {"model.model_dim": 128, "model.num_layers": 2, "model.feed_forward_dim": 512}
SHARED = SIZES | {"train.validate_every": 100, "train.average": 1, "train.threads": 2}
# each way has the one that does better on dev
RATES = (4e-3, 2e-3)


def run() -> None:
    base_folder = RUNS / "second-domain-base"
    base = trained("bible-transformer", base_folder, SHARED | {"train.steps": BASE_STEPS})
    new = SHARED | {"data.corpus": "libreoffice-en-fr", "train.steps": STEPS, "train.warmup_steps": 100}
    ways = {
        "from the run, its vocabulary": {"model.init": str(base_folder), "data.tokenizer": None},
        "from the run, a vocabulary of the domain": {"model.init": str(base_folder)},
        "from noise": {},
    }
    systems = {"the run itself, 0 steps": base}
    for way, changes in ways.items():
        found = [
            trained(
                "bible-transformer",
                RUNS / f"second-domain-{way.replace(' ', '-').replace(',', '')}-{rate}",
                new | changes | {"train.learning_rate": rate},
            )
            for rate in RATES
        ]
        systems[way] = min(found, key=lambda translator: translator.run.facts["dev_loss"])
    figures = {}
    for name, translator in systems.items():
        files = list(systems["from noise"].run.pair_corpus().parts("test")[0].on_disk)
        with counting(name, None) as progress:
            quality = translator.evaluate("test", files=files, num_beams=NUM_BEAMS, progress=progress).to_json()
        facts = translator.run.facts
        told = {key: facts.get(key) for key in ("init_dev_loss", "dev_loss", "seconds", "steps", "tokens_per_second")}
        figures[name] = {**quality, **told, "learning_rate": translator.run.recipe.train.learning_rate}
    rows = [
        [
            name,
            "" if name.startswith("the run") else f"{each['dev_loss']:.3f}",
            f"{each['chrf']:.1f} ({each['chrf_low']:.1f}–{each['chrf_high']:.1f})",
            f"{each['bleu']:.1f} ({each['bleu_low']:.1f}–{each['bleu_high']:.1f})",
            "" if name.startswith("the run") else f"{each['learning_rate']:g}",
        ]
        for name, each in figures.items()
    ]
    report.write(
        "second-domain",
        "A second domain: LibreOffice's help, English to French, by a translator of the Bible trained further",
        ["", "loss on dev", "chrF", "BLEU", "learning rate"],
        rows,
        figures,
        f"Test sentences of libreoffice-en-fr, beam {NUM_BEAMS}; in brackets bootstrap 95 % intervals. The run: "
        f"bible-transformer of 2 layers of 128, {BASE_STEPS:,} steps. Then {STEPS} steps of 2,048 tokens each way, of "
        f"learning rates {' and '.join(f'{rate:g}' for rate in RATES)} the one with the lower loss on dev. "
        "Losses of different vocabularies do not compare.",
    )
