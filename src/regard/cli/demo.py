"""`regard demo`: an RNN loses the thread of long sentences, attention finds it again; then what an LLM looks at."""

import contextlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from regard.errors import RegardError
from regard.files import new_file

if TYPE_CHECKING:
    from regard.reading.reading import Reading

RUNGS = {
    "RNN": "numbers-rnn",
    "RNN + attention": "numbers-bahdanau",
    "Transformer": "numbers-transformer",
}
LANGUAGE_MODEL = "smollm2"
REPORT = """\
The harbour of Tarn, report for the year

Tarn is a small harbour on the north coast, with four hundred people and one long stone pier. In January a storm \
took away the last twenty metres of the pier, and for six weeks no ferry could land. The bread came over the hills \
by tractor, and the school had to close on two days because there was no coal.

Repairs began in March. The stone came from the old quarry at Lindholm, eleven kilometres away, because the quarry \
in the village had been full of water since the war. Forty-two people worked on the pier, most of them without pay. \
A retired engineer, Ingrid Solberg, drew the plans at her kitchen table and asked for nothing but coffee.

The ferry landed again on the ninth of May. On board were three new families, two goats and a piano for the school. \
The piano was a gift of the theatre in Bergvik, which had bought a new one. Nobody in Tarn could tune it, so the \
lighthouse keeper, Jonas Heim, learned it from a book in nine evenings. He says that the low notes still worry him.

The summer was dry. The well behind the church gave no water from July on, and every house had to carry its water \
from the stream. In August the council voted to dig a second well, which cost eighteen thousand crowns. Most of the \
money came from the sale of dried fish to the hotels in the south.

In autumn the weather station counted nineteen storms, more than in any year since 1954. The new end of the pier \
lost not one stone. The council thanked the engineer with a medal made of quarry slate, and she hung it in her \
kitchen, above the coffee.
"""
QUESTION = "Where did the piano come from?"
ANSWER_TOKENS = 19
PAGE = "demo.html"
# the page whose models run in the browser; a checkout has it
LIVE = Path(__file__).parents[3] / "docs" / "live" / "index.html"
LIVE_PAGE = "live.html"


def demo(*, out: Path | None = None, minutes: float = 1.0, seed: int = 1) -> None:
    """Train an RNN, an RNN with attention and a Transformer on number words, then ask a real language model a question.

    Parameters
    ----------
    out
        Keeps the runs, ladder.json, the reading, the pictures and demo.html, which shows all of it, in this folder,
        which must not exist yet. From a checkout, live.html is beside it: models that run in the browser. Pictures need
        the extra plot, and the language model needs the extra hf: what is missing is left out, and the demo says so.
    minutes
        Training time of each translator.
    seed
        Another seed trains other models.
    """
    from regard.training.recipe import load_recipe

    if out is not None and out.exists():
        raise RegardError(f"{out} exists already; choose another --out")
    # settings that cannot be are told before anything is made
    recipes = {
        name: load_recipe(recipe, {"train.minutes": minutes, "train.seed": seed}) for name, recipe in RUNGS.items()
    }
    console = Console()
    with _folder(out) as folder:
        _tell(
            console,
            "Three models learn number words, English to French",
            "Each trains from scratch for the same time on the same sentences. The RNN must carry the whole source in "
            "one hidden state; with attention it looks back at every source word; the Transformer is attention alone.",
        )
        translators = {name: _train(name, recipe, folder, console) for name, recipe in recipes.items()}
        models = [_measure(name, translator) for name, translator in translators.items()]
        source, reference = _show(console, models, translators)
        with new_file(folder / "ladder.json") as partial:
            partial.write_text(json.dumps({"models": models}, indent=2) + "\n", encoding="utf-8")
        readings = {name: translators[name].read(source) for name in list(RUNGS)[1:]}
        shown = {
            "source": source,
            "reference": reference,
            "translations": {name: translator.translate(source).text for name, translator in translators.items()},
        }
        if out is not None:
            if _installed(console, "the pictures", "plot", "matplotlib"):
                _draw(out, models, readings)
            # again below, with the language model; where there is none this much is kept
            _write_page(out, models, readings=readings, **shown)
        if not _installed(console, "the language model", "hf", "transformers", "gguf"):
            return
        answer = _ask(console, out)
        if out is not None:
            _write_page(out, models, readings=readings | {LANGUAGE_MODEL: answer}, **shown)
            _tell(
                console,
                "Go on",
                f"Open {out / PAGE} in a browser: all of the above, to be looked at token by token.\n"
                f"regard translate {out / 'numbers-bahdanau'} -\n"
                f"regard read {out / 'numbers-transformer'} --source 'two million and seven'\n"
                f"regard read {LANGUAGE_MODEL} --chat --prompt 'What is the capital of France?'\n"
                "regard train bible-transformer    # real sentences, ten minutes\n"
                f"Pictures and figures are in {out}",
            )


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="regard-demo-") as temporary:
            yield Path(temporary)
        return
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise RegardError(f"{out}: cannot be made: {error.strerror}; choose another --out") from None
    try:
        yield out
    finally:
        # a folder in which nothing was made would only be in the way of the next try
        with contextlib.suppress(OSError):
            out.rmdir()


def _installed(console: Console, part: str, extra: str, *packages: str) -> bool:
    """Whether the packages of an extra are there; where one is not, the console says that a part is left out."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        needs = f"Left out: {part}. Install {' and '.join(absent)}: python -m pip install 'regard[{extra}]'"
        console.print(needs, highlight=False, markup=False, soft_wrap=True)
    return not absent


def _train(name: str, recipe: Any, folder: Path, console: Console) -> Any:
    from regard.api import load_translator
    from regard.training.train import train_run
    from regard.view.progress import training_progress

    with training_progress(name) as reports:
        run = train_run(recipe, folder / recipe.name, **reports._asdict())
    if run.facts["status"] == "interrupted":
        raise KeyboardInterrupt
    facts = run.facts
    told = Text(f"{name:16}", "bold").append(
        f"{facts['parameters']:>9,} parameters   {facts['steps']:>5,} steps in {facts['seconds']:.0f} s   "
        f"{facts['tokens_per_second']:>7,.0f} tokens/s",
        "not bold",
    )
    console.print(told)
    return load_translator(run.path)


def _measure(name: str, translator: Any) -> dict[str, Any]:
    from regard.view.progress import counting

    with counting(f"{name} translates", None) as progress:
        quality = translator.evaluate("test", progress=progress).to_json()
    facts = translator.run.facts
    return {
        "name": name,
        "recipe": translator.run.recipe.name,
        "parameters": facts["parameters"],
        "target_tokens_per_second": facts["tokens_per_second"],
        "steps": facts["steps"],
        "seconds": facts["seconds"],
        **quality,
    }


def _show(console: Console, models: list[dict[str, Any]], translators: dict[str, Any]) -> tuple[str, str]:
    """Tell quality by length and one sentence in full; returns that sentence and its reference."""
    from regard.view.terminal import alignment_grid, quality_table

    _tell(
        console,
        "Why attention was needed",
        f"{models[0]['count']:,} sentences that no model saw, by the length of the source: one hidden state holds a "
        "short sentence and loses a long one.",
    )
    curves = {model["name"]: model["by_length"] for model in models}
    console.print(quality_table(curves, metrics=("exact",), width=console.width))

    source, reference = _lost(translators)
    _tell(console, "A long one that the RNN loses", source)
    told = Table.grid(padding=(0, 2, 0, 0))
    told.add_row(Text("reference", "dim"), reference)
    for name, translator in translators.items():
        told.add_row(Text(name, "bold"), _compared(translator.translate(source).text, reference))
    console.print(told)

    for name in list(RUNGS)[1:]:
        _tell(console, f"What the {name} looked at", "")
        reading = translators[name].read(source)
        sources, targets = reading.sequences["source"].words, reading.sequences["target"].words
        console.print(alignment_grid(reading.alignment(), sources, targets, width=console.width))
    return source, reference


def _lost(translators: dict[str, Any]) -> tuple[str, str]:
    """The longest test sentence that the RNN gets wrong, or the longest of all if it gets all of them right."""
    from regard.data.words import count_words

    rnn = next(iter(translators.values()))
    pairs = sorted(rnn.run.corpus().pairs("test"), key=lambda pair: -count_words(pair.source))
    written = rnn.translate([pair.source for pair in pairs])
    wrong = (pair for pair, generation in zip(pairs, written, strict=True) if generation.text != pair.target)
    return next(wrong, pairs[0])


def _compared(translation: str, reference: str) -> Text:
    """The translation, with a cross before the first word that is not the reference's."""
    wanted = reference.split()
    words = translation.split()
    if words == wanted:
        return Text(translation, "green")
    same = next((i for i, (word, want) in enumerate(zip(words, wanted, strict=False)) if word != want), len(wanted))
    told = Text(" ".join(words[:same]), "not bold")
    return told.append(" ✗ " if same else "✗ ", "red").append(" ".join(words[same:]), "red")


def _draw(out: Path, models: list[dict[str, Any]], readings: dict[str, "Reading"]) -> None:
    from regard.view.plots import plot_length_curve

    curves = {model["name"]: model["by_length"] for model in models}
    for suffix in (".png", ".svg"):
        title = "Number words, English to French"
        plot_length_curve(curves, out / f"ladder{suffix}", metric="exact", title=title)
    for name, reading in readings.items():
        reading.save(out / f"{RUNGS[name]}-alignment.png")


def _write_page(out: Path, models: list[dict[str, Any]], **shown: Any) -> None:
    from regard.view.html import demo_html

    live = None
    if LIVE.is_file():
        # beside the demo's page, so that the folder can be moved
        shutil.copyfile(LIVE, out / LIVE_PAGE)
        live = LIVE_PAGE
    with new_file(out / PAGE) as partial:
        partial.write_text(demo_html(models, live=live, **shown), encoding="utf-8")


def _ask(console: Console, out: Path | None) -> "Reading":
    """A real language model answers a question over a page of text, and shows what it looked at."""
    from regard.api import load
    from regard.language_model import LanguageModel
    from regard.view.answer import answer_view
    from regard.view.sources import with_sources

    _tell(
        console,
        "What a language model looks at",
        f"{LANGUAGE_MODEL}, 135 million parameters, trained by others, has read a page about a harbour and is asked: "
        f"{QUESTION} It answers, then runs once more over page and answer while its weights are read. Sentences of the "
        "page are removed, to see on which of them the answer rests.",
    )
    try:
        model = load(LANGUAGE_MODEL)
    except RegardError as error:
        kept = "" if out is None else f", all of it is in {out}"
        raise RegardError(f"the translators' part is done{kept}; the language model is missing: {error}") from None
    assert isinstance(model, LanguageModel)
    reading = model.read(f"{REPORT}\nQuestion: {QUESTION}\nAnswer:", max_new_tokens=ANSWER_TOKENS)
    reading, rests = with_sources(reading)
    answer, *view = answer_view(reading, segments="sentences")
    console.print(answer, *rests, *view, sep="\n")
    if out is not None:
        for suffix in (".safetensors", ".png") if importlib.util.find_spec("matplotlib") else (".safetensors",):
            reading.save(out / f"{LANGUAGE_MODEL}-answer{suffix}")
    return reading


def _tell(console: Console, title: str, text: str) -> None:
    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"))
    if text:
        console.print(text, highlight=False, markup=False, soft_wrap="\n" in text)
        console.print()
