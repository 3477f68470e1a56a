"""What `import regard` offers: train a model, load it, run it, read it."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regard.data.batch import EOS
from regard.data.prepare import TokenizedCorpus
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.evaluation.quality import Quality
from regard.evaluation.text import TextQuality, evaluate_text
from regard.generation.result import Generation
from regard.language_model import LanguageModel
from regard.language_model.adapters import ends_of
from regard.language_model.atlas import atlas_of
from regard.models import read_config
from regard.models.pretrained.find import find_model
from regard.models.pretrained.folder import CONFIG
from regard.models.pretrained.lora import ADAPTER_CONFIG
from regard.models.pretrained.own_tokenizer import as_transformers
from regard.models.pretrained.translators import Languages, translates
from regard.reading.ablation import ablating
from regard.reading.atlas import Atlas
from regard.reading.atlas_difference import AtlasDifference
from regard.reading.head_effects import HeadEffects, effects_of_heads
from regard.reading.media_sources import MediaSources
from regard.reading.patching import patching
from regard.reading.qk_attribution import QKAttribution
from regard.reading.reading import Reading
from regard.reading.served.assemble import reading_of
from regard.reading.served.request import ServedLayer, ServedRequest
from regard.reading.source_record import Sources
from regard.reading.watch import watching
from regard.training.folder import RECIPE
from regard.training.init import WINDOW, Start
from regard.training.loop import Progress
from regard.training.recipe import load_recipe
from regard.training.run import Run
from regard.training.train import find_device, train_run
from regard.translator import Translator
from regard.translator.opening import pretrained_translator, translator_of_run
from regard.view import renderers

__all__ = [
    "Atlas",
    "AtlasDifference",
    "Generation",
    "HeadEffects",
    "QKAttribution",
    "ServedLayer",
    "ServedRequest",
    "Translator",
    "ablating",
    "atlas",
    "effects_of_heads",
    "evaluate",
    "load",
    "load_translator",
    "patching",
    "read",
    "reading_of",
    "sources",
    "train",
    "watching",
]

LIBRARIES = ("regard", "transformers")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
# weights alone
QUANTISED = ("int8", "int4")
renderers.register()


def train(
    recipe: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    init: str | os.PathLike[str] | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Translator | LanguageModel:
    """Train a model by a recipe, a file or the name of a shipped one, into the folder `out`.

    It begins from the weights of `init`, a run, a Hugging Face folder or hub name, a GGUF file or an alias, if one is
    named; the settings under [model] and the tokenizer are then those of `init`.
    `changes` are settings such as {"train.minutes": 1, "data.train": "my.tsv"}; `report` hears of every step. What was
    seen in the data before it began is in `run.facts["look"]`, and what is likely a mistake in the log.
    Raises RegardError for what cannot be used: recipe, data, folder.
    """
    changes = {**(changes or {}), **({} if init is None else {"model.init": os.fspath(init)})}
    run = train_run(load_recipe(recipe, changes), Path(out), resume=resume, report=report)
    return load(run.path)


def load(
    model: str | os.PathLike[str],
    *,
    library: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    adapter: str | os.PathLike[str] | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    source_prefix: str | None = None,
) -> Translator | LanguageModel:
    """The model of a run folder, a Hugging Face folder, a GGUF file, an alias, or a name of the Hugging Face hub.

    The folder of a LoRA adapter that peft saved is its base with it merged; with `adapter`, such a folder, its base is
    `model`.
    `library` asks for it in "regard" or in "transformers"; by default it is the one that can. `dtype` is float32,
    bfloat16 or float64, or, of a language model's weights, int8 or int4.
    A pretrained translator of several languages is told from which to which, by the tags of its tokenizer, such as
    eng_Latn and fra_Latn, or en and fr; one of several tasks by what stands before each source, `source_prefix`.
    Raises RegardError if there is no such model, its weights do not fit, or that library cannot run it.
    """
    if library not in (None, *LIBRARIES):
        raise RegardError(f"library must be {' or '.join(LIBRARIES)}, not {library!r}")
    path, languages = Path(model), Languages(source_language, target_language, source_prefix)
    # what began from a pretrained model is a folder of one
    is_own = (path / RECIPE).is_file() and not (path / CONFIG).is_file()
    if is_own:
        if adapter is not None:
            raise RegardError(f"{path}: a run takes no adapter; give the Hugging Face folder of its base")
        if library == "transformers":
            raise RegardError(f"{path}: a run, which transformers cannot load; leave out library")
        _refuse(languages, f"{path} is a run of Regard's own format, which knows no languages")
        if (run := Run.open(path)).recipe.translates:
            return translator_of_run(run, device=find_device(device), dtype=_dtype(dtype))
    elif path.is_dir() and not any((path / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        raise RegardError(
            f"{path}: neither a run nor a Hugging Face folder, it holds no {RECIPE} and no {CONFIG}; name a folder "
            "that `regard train` made, or the whole folder of a model"
        )
    torch_device, torch_dtype = find_device(device), torch.float32 if dtype in QUANTISED else _dtype(dtype)
    if is_own:
        run = Run.open(path)
        tokenizer = run.tokenizer()
        assert isinstance(tokenizer, Tokenizer)
        module, tokenizer = run.module().to(torch_dtype), as_transformers(tokenizer)
        loaded = LanguageModel(module, tokenizer, name=path.name, device=torch_device, ends=frozenset({EOS}))
    else:
        loaded = LanguageModel.load(model, library=library, device=torch_device, dtype=torch_dtype, adapter=adapter)
        if translates(loaded.module, loaded.tokenizer):
            return pretrained_translator(
                loaded.module,
                loaded.tokenizer,
                name=loaded.name,
                device=torch_device,
                dtype=_dtype(dtype),
                languages=languages,
                folder=find_model(model)[1],
                run=Run.open(path) if (path / RECIPE).is_file() else None,
            )
        _refuse(languages, f"{loaded.name} translates nothing")
    if dtype in QUANTISED:
        loaded.quantise(dtype)
    return loaded


def load_translator(model: str | os.PathLike[str], **settings: Any) -> Translator:
    """`load` of what must be a translator. Raises RegardError if it is none."""
    loaded = load(model, **settings)
    if isinstance(loaded, LanguageModel):
        raise RegardError(
            f"{model}: a language model, which translates nothing; `regard generate {model}` writes with it"
        )
    return loaded


def _refuse(languages: Languages, why: str) -> None:
    if given := [name for name, value in languages._asdict().items() if value is not None]:
        raise RegardError(f"{why}; leave out {', '.join(given)}")


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise RegardError(f"dtype must be {', '.join(DTYPES)} or, of a language model, int8 or int4, not {name!r}")
    return DTYPES[name]


def read(
    model: str | os.PathLike[str] | Translator | LanguageModel | nn.Module,
    prompt: str | None = None,
    *,
    source: str | None = None,
    tokenizer: Any = None,
    **settings: Any,
) -> Reading:
    """Which tokens every written token looked at: `Translator.read` or `LanguageModel.read`, of a model or its name.

    A translator takes a `source` and perhaps a `target`, a language model a `prompt`, `messages` or a `text`. A module
    of transformers comes with its `tokenizer`.
    """
    opened = _opened(model, tokenizer)
    if isinstance(opened, LanguageModel):
        if source is not None:
            raise RegardError(f"{opened.name} takes a prompt or a text, not a source")
        return opened.read(prompt, **settings)
    if prompt is not None or not settings.keys().isdisjoint(("text", "messages")):
        raise RegardError(f"{opened.name} is a translator: it takes a source, and perhaps a target")
    if source is None:
        raise RegardError("give the source that is to be translated")
    return opened.read(source, **settings)


def _opened(
    model: str | os.PathLike[str] | Translator | LanguageModel | nn.Module, tokenizer: Any
) -> Translator | LanguageModel:
    if not isinstance(model, nn.Module):
        return load(model) if isinstance(model, str | os.PathLike) else model
    if tokenizer is None:
        raise RegardError("a module has no tokenizer of its own: give the model's tokenizer=")
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    if translates(model, tokenizer):
        weight = next(model.parameters())
        return pretrained_translator(model, tokenizer, name=name, device=weight.device, dtype=weight.dtype)
    return LanguageModel(model, tokenizer, name=name, device=next(model.parameters()).device, ends=ends_of(model))


def sources(
    model: str | os.PathLike[str] | LanguageModel | Translator | nn.Module,
    prompt: str | None = None,
    *,
    tokenizer: Any = None,
    **settings: Any,
) -> Sources | MediaSources:
    """Which passages of a prompt, or of a `source=`, an answer rests on, or which regions of its `images=`.

    It is `LanguageModel.sources` or `Translator.sources`, of a model or its name.
    """
    opened = _opened(model, tokenizer)
    if isinstance(opened, LanguageModel):
        if "source" in settings:
            raise RegardError(f"{opened.name} takes a prompt or messages, not a source")
        return opened.sources(prompt, **settings)
    if prompt is not None or "source" not in settings:
        raise RegardError(f"{opened.name} is a translator: it takes a source, and perhaps a target")
    return opened.sources(**settings)


def atlas(
    model: str | os.PathLike[str] | LanguageModel | nn.Module,
    texts: Sequence[str],
    *,
    tokenizer: Any = None,
    progress: Callable[[int], None] = lambda texts: None,
    **options: Any,
) -> Atlas:
    """What every head of a language model does, over many texts: see `Atlas`. `regard atlas` takes them from files.

    `max_tokens` is how many tokens of a longer text are taken, by default all; `segments` what counts as the part of
    the text that a token is in; of the first `effects` texts every head is ablated in turn, a pass for each head.
    `progress` is called with 1 after each text.
    Raises RegardError for a text of less than two tokens, and for a model that is no language model.
    """
    opened = _opened(model, tokenizer)
    if not isinstance(opened, LanguageModel):
        raise RegardError(f"{opened.name} is a translator; an atlas is of a language model")
    return atlas_of(opened, texts, progress=progress, **options)


def evaluate(
    model: str | os.PathLike[str] | Translator,
    split: str = "test",
    *,
    files: Sequence[str | Path] | None = None,
    data_of: str | os.PathLike[str] | None = None,
    device: str = "auto",
    **settings: Any,
) -> Quality | TextQuality:
    """How good a model is: `Translator.evaluate`, or, of a language model, what a split's text costs it in bits.

    `files` of one's own take the place of the split. A pretrained language model, without data, is measured on `files`
    or on those of the run `data_of`, in windows of the same length. `device` is for a model that is not loaded yet.
    Raises RegardError.
    """
    if isinstance(model, Translator):
        return model.evaluate(split, files=files, **settings)
    torch_device = find_device(device)
    if not (Path(model) / RECIPE).is_file() and (files is not None or data_of is not None):
        start = Start.find(model)
        if not start.is_language_model:
            return load_translator(model, device=device).evaluate(split, files=files, **settings)
        return _evaluate_pretrained(start, split, files, None if data_of is None else Run.open(data_of), torch_device)
    run = Run.open(model)
    if run.recipe.translates:
        return load_translator(model, device=device).evaluate(split, files=files, **settings)
    if settings:
        raise RegardError(f"a language model is measured without translating; leave out {', '.join(settings)}")
    module = run.module().to(torch_device)
    if files is None:
        return evaluate_text(module, run.text(split), device=torch_device)
    with run.text_of(files) as text:
        return evaluate_text(module, text, device=torch_device)


def _evaluate_pretrained(
    start: Start, split: str, files: Sequence[str | Path] | None, like: Run | None, device: torch.device
) -> TextQuality:
    """The quality of a language model that is no run, on the text and in the windows of a run that is `like` it."""
    config = read_config(start.settings(), where=str(start.folder))
    window, form = (WINDOW, "NFC") if like is None else (like.recipe.max_length, like.recipe.data.form)
    documents = like is not None and like.recipe.data.documents
    tokens = start.tokens(min(window, config.max_length), documents=documents)
    module = start.module(config, start.tokenizer()).eval().to(device)
    if files is not None:
        with tokens.of_files(files, form) as text:
            return evaluate_text(module, text, device=device)
    assert like is not None
    text = tokens.split(like.corpus(), split)
    assert not isinstance(text, TokenizedCorpus)
    return evaluate_text(module, text, device=device)
