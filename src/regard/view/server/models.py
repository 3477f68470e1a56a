"""What the page may ask of each model: to go on from a prompt, to answer a message, to read a text, to translate."""

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from types import NoneType
from typing import Any, final

from regard.config import suggest, texts
from regard.data.messages import Message
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.writing import Writing
from regard.reading.options import ReadOptions, Rows
from regard.reading.reading import Reading
from regard.view.server.jobs import Job
from regard.view.server.limits import LIMITS, Limits

# a translation is searched for on the page, not sampled
DECODING = ("num_beams", "length_penalty", "max_new_tokens")
# where the page's defaults are others than the library's; what it writes it also reads, which takes one context
DEFAULTS = {"max_new_tokens": 64, "past_context": "end"}
# read beside the weights
READING = {"statistics": ("value_norm",)}
FLOAT_BYTES = 4


@final
@dataclass(frozen=True)
class Setting:
    """A number that the user may choose; None where there is no such limit."""

    name: str
    text: str
    default: int | float | None
    is_whole: bool
    may_be_none: bool
    least: int | float | None
    most: int | float | None


# a text or, for a chat, messages
Given = str | Sequence[Message]
# what is given and settings in; told of on the way, a reading out, or None where nobody waits for it any more
Answer = Callable[[Any, dict[str, Any], Job], Reading | None]


@final
@dataclass(frozen=True)
class Mode:
    """One thing to ask of a model; one that `reads` also takes `reading` among its settings: `ReadOptions`."""

    settings: Sequence[Setting]
    answer: Answer
    reads: bool = False


@final
@dataclass(frozen=True)
class ServedModel:
    """A model by name, and by their names what it can be asked: `prompt`, `chat`, `text` and `source`."""

    name: str
    modes: Mapping[str, Mode]

    def ask(self, mode: str, given: Given, settings: dict[str, Any], job: Job) -> Reading | None:
        """Raises RegardError for what makes no sense."""
        return self.modes[mode].answer(given, settings, job)

    def check(self, mode: str, settings: dict[str, Any]) -> None:
        """Raises RegardError for a mode that it has not, and for settings that are not offered or out of range."""
        if mode not in self.modes:
            raise RegardError(f"{self.name} cannot be asked for {mode!r}; it takes {', '.join(self.modes)}")
        known = {setting.name: setting for setting in self.modes[mode].settings}
        for name, value in settings.items():
            if name == "reading" and self.modes[mode].reads:
                _options(settings)
                continue
            if name not in known:
                raise RegardError(f"{self.name} has no setting {name!r} here{suggest(name, known)}")
            _check_number(known[name], value)


def told_apart(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    """The models by their names; of several with one name the later ones have a number behind it."""
    found: dict[str, ServedModel] = {}
    for model in models:
        count = sum(model.name == each.name for each in found.values())
        found[f"{model.name} ({count + 1})" if count else model.name] = model
    return found


def serve_language_model(model: Any, limits: Limits = LIMITS) -> ServedModel:
    """A `LanguageModel`, of Regard or of transformers."""
    text = Mode((), partial(_read, model, limits), reads=True)
    if not model.writes:
        return ServedModel(model.name, {"text": text})
    settings = _settings(Writing, [field.name for field in fields(Writing)], limits)
    # the first is what the page begins with
    names = ("chat", "prompt") if getattr(model.tokenizer, "chat_template", None) else ("prompt", "chat")
    modes = {name: Mode(settings, partial(_write, model, limits, name == "chat"), reads=True) for name in names}
    return ServedModel(model.name, {**modes, "text": text})


def serve_translator(model: Any, limits: Limits = LIMITS) -> ServedModel:
    """A `Translator`."""

    def answer(text: str, settings: dict[str, Any], job: Job) -> Reading | None:
        if job.has_left:
            return None
        if model.is_pretrained:
            read = _options(settings, "all")
            new = settings.get("max_new_tokens") or DEFAULTS["max_new_tokens"]
            # there are three maps: within the source, within the target, and between them
            count = len(model.tokenizer.encode(text)) + new
            _check_size(model, limits, read, rows=count, keys=count)
            settings = {**settings, "max_new_tokens": new, **vars(read)}
            settings.pop("reading", None)
        reading = model.read(text, **settings)
        job.tell("text", text=reading.sequences["target"].text)
        return reading

    # a run of Regard's own is read whole
    settings = _settings(Decoding, DECODING, limits, defaults={})
    return ServedModel(model.name, {"source": Mode(settings, answer, reads=model.is_pretrained)})


def _options(settings: Mapping[str, Any], rows: Rows | None = None) -> ReadOptions:
    """What the page reads, and what it was asked to read besides. Raises RegardError."""
    asked = settings.get("reading", {})
    if not isinstance(asked, dict):
        raise RegardError(f"reading must be options by name, not {asked!r}")
    return ReadOptions.of(READING | asked, rows=rows)


def _write(model: Any, limits: Limits, chat: bool, given: Given, settings: dict[str, Any], job: Job) -> Reading | None:
    count = len(model.encode_chat(given)[0] if chat else model.encode(given)[0])
    if count > limits.prompt_tokens:
        raise RegardError(f"the prompt has {count:,} tokens; this page takes at most {limits.prompt_tokens:,}")
    read = _options(settings, "generated")
    chosen = {name: value for name, value in settings.items() if name != "reading"}
    prompt, as_chat = (given, {"chat": chat}) if isinstance(given, str) else (None, {"messages": given})
    written = model.generate(
        prompt, **as_chat, stream=lambda text: job.tell("text", text=text), going_on=job.goes_on, **DEFAULTS | chosen
    )
    if job.has_left:
        return None
    job.tell("written", tokens=len(written.tokens), finished=written.finished, late=job.is_late)
    _check_size(model, limits, read, rows=len(written.tokens), keys=count + len(written.tokens))
    return model.read_written(prompt, written, **as_chat, **vars(read))


def _read(model: Any, limits: Limits, text: str, settings: dict[str, Any], job: Job) -> Reading | None:
    if job.has_left:
        return None
    read = _options(settings, "all")
    count = len(model.encode(text)[0])
    _check_size(model, limits, read, rows=count, keys=count)
    return model.read(text=text, **vars(read))


def _check_size(model: Any, limits: Limits, read: ReadOptions, *, rows: int, keys: int) -> None:
    config = model.module.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(config, "num_heads", None) or getattr(config, "num_attention_heads", 1)
    layers = getattr(config, "num_layers", None) or getattr(config, "num_hidden_layers", 1)
    if read != _options({}, "generated"):
        # more may be read of every query
        rows = keys
    values = rows * keys * (1 + len(read.statistics)) + 2 * keys * min(keys, read.top_k or 0)
    size = heads * layers * values * FLOAT_BYTES
    if size > limits.reading:
        raise RegardError(
            f"the weights of {rows:,} tokens over {keys:,} in {layers} layers of {heads} heads are {size >> 20:,} MiB, "
            f"more than the {limits.reading >> 20:,} MiB that this page reads; `regard read` has no such limit"
        )


def _settings(
    kind: type, names: Sequence[str], limits: Limits, defaults: Mapping[str, Any] = DEFAULTS
) -> list[Setting]:
    """Those of the named fields that are numbers."""
    hints, told = typing.get_type_hints(kind), texts(kind)
    known = {field.name: field for field in fields(kind)}
    most = {"max_new_tokens": limits.new_tokens, "num_beams": limits.num_beams}
    found = []
    for name in names:
        field = known[name]
        kinds = typing.get_args(hints[name]) or (hints[name],)
        if not {int, float} & set(kinds):
            continue
        found.append(
            Setting(
                name=name,
                text=told[name],
                default=defaults.get(name, field.default),
                is_whole=int in kinds,
                may_be_none=NoneType in kinds,
                least=field.metadata["least"],
                most=most.get(name, field.metadata["most"]),
            )
        )
    return found


def _check_number(setting: Setting, value: Any) -> None:
    """The page's own limits; what lies within them the model checks further."""
    kinds = int if setting.is_whole else int | float
    if value is None and setting.may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise RegardError(f"{setting.name} must be a {'whole ' * setting.is_whole}number, not {value!r}")
    if setting.least is not None and value < setting.least:
        raise RegardError(f"{setting.name} must be at least {setting.least}, not {value}")
    if setting.most is not None and value > setting.most:
        raise RegardError(f"{setting.name} must be at most {setting.most} on this page, not {value}")
