"""Bulk work: what each verb makes of a batch of records, the same in this process and in any other."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

from regard.data.download import file_sha256
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.result import Generation
from regard.jobs.lines import Line
from regard.jobs.records import Names, Record
from regard.jobs.translate import TranslateJob
from regard.kernels.threads import threads
from regard.language_model import LanguageModel
from regard.language_model.atlas import AtlasMaker
from regard.models.pretrained.find import find_model
from regard.reading.views import view
from regard.translator import Translator

Model = Translator | LanguageModel
Row = dict[str, Any]
# a row, or why there is none
Found = Row | RegardError
# records that share batches, whatever their shards: where each begins is a multiple of this
TOGETHER = 256
# how an answer is written, of which a translator knows nothing
ANSWERING = ("chat", "max_new_tokens")
# what rows are written as
ROWS: tuple[str, ...] = ("jsonl", "parquet")
SCORES = ("text", "score", "log_probability", "finished")
WRITTEN = ("text", "log_probability", "finished", "tokens")


class Work(Protocol):
    """What is done with records that follow one another: a row for each, or the error in its place."""

    # records whose batch counts; a shard holds a multiple of it
    together: int
    # records of a shard where no other number is asked for
    shard_size: int
    # what a shard may be written as, the usual first
    formats: tuple[str, ...]
    # whether no two records may have one id
    needs_unique_ids: bool

    def __init__(self, model: Any, options: Mapping[str, Any]) -> None: ...

    def __call__(self, records: Sequence[Record]) -> list[Found]: ...


@final
class Job:
    """One verb with its model and options, which may be sent to another process: the model is opened when it is used.

    `load` opens the model called `name`, as `regard.load` does; `threads` is how many threads compute, and so a part of
    what results follow from.
    """

    def __init__(
        self,
        verb: str,
        name: str,
        load: Callable[[str], Model],
        options: Mapping[str, Any] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        self.verb = verb
        self.name = name
        self.load = load
        self.options = dict(options or {})
        self.threads = threads

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("model", "work")}

    def close(self) -> None:
        """Let the model go; it is opened again where it is needed."""
        self.__dict__ = self.__getstate__()

    @functools.cached_property
    def model(self) -> Model:
        """The model. Raises RegardError where it cannot be opened or is of the wrong sort."""
        model, wanted = self.load(self.name), TAKES.get(self.verb)
        if wanted is not None and not isinstance(model, wanted):
            other = "generate" if isinstance(model, LanguageModel) else "translate"
            raise RegardError(f"{model.name}: `regard {other}` is the verb of this model, not {self.verb}")
        return model

    @functools.cached_property
    def work(self) -> Work:
        """The verb with its model. Raises RegardError for options that make no sense."""
        return VERBS[self.verb](self.model, self.options)

    def names(self, column: str | None = None) -> Names:
        """Under which names a file has what the verb takes."""
        if isinstance(self.model, Translator):
            return Names("source", ("source",), OTHERS[self.verb][0], column)
        if self.verb == "atlas":
            return Names("text", ("text", "prompt"), (), column)
        if self.verb == "read":
            main = "prompt" if self.model.writes else "text"
            return Names(main, ("prompt", "messages", "text"), OTHERS[self.verb][1], column)
        return Names("prompt", ("prompt", "messages"), OTHERS[self.verb][1], column)

    def told(self) -> dict[str, Any]:
        """What rows follow from beside the records, as JSON holds it."""
        model = origin(self.model, self.name)
        return {"verb": self.verb, "model": model, "options": self.options, "threads": self.threads}

    def __call__(self, batch: Sequence[Record]) -> list[Row]:
        """A row for each record, in their order, with its id: one that cannot be worked on has an `error` instead."""
        rows: list[Found] = [RegardError(record.error) for record in batch]
        with threads(self.threads):
            for run in _runs(batch):
                rows[run.start : run.stop] = self.work(batch[run.start : run.stop])
        return [
            {"id": record.id, **({"error": _error(record, row)} if isinstance(row, RegardError) else row)}
            for record, row in zip(batch, rows, strict=True)
        ]


def origin(model: Model, name: str) -> dict[str, Any]:
    """Where a model is from, with a hash of its weights."""
    if isinstance(model, Translator):
        return model.origin()
    folder = find_model(name)[1]
    weights = [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
    return {"run": os.path.realpath(folder), "weights": weights}


@final
class Translating:
    """Translations of each `source`, each beginning with its `prefix`."""

    together, shard_size, needs_unique_ids = TOGETHER, 1024, False
    formats: tuple[str, ...] = ROWS

    def __init__(self, model: Translator, options: Mapping[str, Any]) -> None:
        self._names: dict[int, str] = {}
        settings = dict(options)
        decoding = Decoding.of(None, settings.pop("decoding", {}))
        self._job = TranslateJob(model, decoding, **settings, name=lambda line: self._names[line.place])

    def __call__(self, records: Sequence[Record]) -> list[Found]:
        self._names = {record.place: str(record.id) for record in records}
        rest = [Line(each.place, each.texts["source"], each.texts.get("prefix", "")) for each in records]
        rows: list[Found] = []
        while len(rows) < len(records):
            try:
                for found in self._job(rest[len(rows) :]):
                    rows += [self._row(each.line, each.generations, each.plan.has_lost) for each in found]
            except RegardError as error:
                # those before it have come
                rows.append(error)
        return rows

    def _row(self, line: Line, generations: Sequence[Generation], has_lost: bool) -> Row:
        best = [{name: getattr(each, name) for name in SCORES} for each in generations]
        several = {"translations": best} if self._job.decoding.n_best > 1 else {}
        lost = {"shortened": True} if has_lost else {}
        return {"source": line.text, **({"prefix": line.prefix} if line.prefix else {}), **best[0], **lost, **several}


@final
class Generating:
    """What a language model writes after each `prompt`, or answers to each `messages`."""

    together, shard_size, needs_unique_ids = TOGETHER, 1024, False
    formats: tuple[str, ...] = ROWS

    def __init__(self, model: LanguageModel, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = dict(options)
        self._system = self._options.pop("system", None)
        if self._options.pop("compile", False):
            model.compile()

    def __call__(self, records: Sequence[Record]) -> list[Found]:
        chats = [self._messages(record) for record in records]
        if not any(chats):
            return _halved(self._written, records)
        of = dict(zip((record.place for record in records), chats, strict=True))
        return _each(lambda record: self._written([record], of[record.place])[0], records)

    def _messages(self, record: Record) -> list[Any] | None:
        if self._system is None or "prompt" not in record.texts:
            return record.texts.get("messages")
        return [{"role": "system", "content": self._system}, {"role": "user", "content": record.texts["prompt"]}]

    def _written(self, records: Sequence[Record], messages: list[Any] | None = None) -> list[Any]:
        prompts = None if messages else [record.texts["prompt"] for record in records]
        found = self._model.generate(prompts, messages=messages, first=records[0].place, **self._options)
        found = [found] if messages else found
        return [self._row(record, each) for record, each in zip(records, found, strict=True)]

    def _row(self, record: Record, written: Generation | list[Generation]) -> Row:
        samples = written if isinstance(written, list) else [written]
        plain = [{name: getattr(each, name) for name in WRITTEN} for each in samples]
        several = {"samples": plain} if len(samples) > 1 else {}
        return {**record.texts, **plain[0], **several}


@final
class ReadingAll:
    """What each answer, translation or text looked at: its strongest parts, and word by word."""

    together, shard_size, needs_unique_ids = 1, 128, False
    formats: tuple[str, ...] = ROWS

    def __init__(self, model: Model, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = dict(options)
        segments = self._options.get("segments", "sentences")
        self._shown = {"layer": self._options.pop("layer", None), "head": self._options.pop("head", None)}
        self._shown["segments"] = segments
        self._whole = self._options.pop("whole", False)

    def __call__(self, records: Sequence[Record]) -> list[Found]:
        return _each(self._row, records)

    def _row(self, record: Record) -> Row:
        reading = self._model.read(**record.texts, **self._options)  # pyright: ignore[reportArgumentType]
        whole = {"reading": reading.to_json()} if self._whole else {}
        return {**record.texts, **view("summary")(reading, **self._shown), **whole}


@final
class Sourcing:
    """Which passages each answer rests on, confirmed."""

    together, shard_size, needs_unique_ids = 1, 128, False
    formats: tuple[str, ...] = ROWS

    def __init__(self, model: Model, options: Mapping[str, Any]) -> None:
        self._model = model
        own = isinstance(model, LanguageModel)
        self._options = {name: value for name, value in options.items() if own or name not in ANSWERING}

    def __call__(self, records: Sequence[Record]) -> list[Found]:
        return _each(self._row, records)

    def _row(self, record: Record) -> Row:
        options = self._options
        if "messages" in record.texts:
            options = {**options, "chat": False}
        found = self._model.sources(**{**options, **record.texts})  # pyright: ignore[reportArgumentType]
        return {**record.texts, **found.to_json()}


@final
class Measuring:
    """What each head does on each `text`: for an atlas."""

    together, shard_size, needs_unique_ids = 1, 1024, True
    formats: tuple[str, ...] = ("safetensors",)

    def __init__(self, model: LanguageModel, options: Mapping[str, Any]) -> None:
        self._atlas = AtlasMaker(model, **options)

    def __call__(self, records: Sequence[Record]) -> list[Found]:
        return _each(self._row, records)

    def _row(self, record: Record) -> Row:
        text = next(record.texts[name] for name in ("text", "prompt") if name in record.texts)
        return {"measured": self._atlas.measured(text, id=str(record.id), place=record.place), "of": self._atlas}


VERBS: dict[str, type[Work]] = {
    "translate": Translating,
    "generate": Generating,
    "read": ReadingAll,
    "sources": Sourcing,
    "atlas": Measuring,
}
TAKES: dict[str, type] = {"translate": Translator, "generate": LanguageModel, "atlas": LanguageModel}
# what else a record may have, of a translator and of a language model
OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "translate": (("prefix",), ()),
    "generate": ((), ()),
    "read": (("target",), ()),
    "sources": (("target", "contrast", "within", "of"), ("answer", "contrast", "question", "within", "of")),
}


def _runs(batch: Sequence[Record]) -> list[range]:
    """The records without an error, as places in the batch, in runs that follow one another."""
    runs: list[range] = []
    for number, record in enumerate(batch):
        if record.error:
            continue
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _error(record: Record, error: RegardError) -> str:
    return str(error).removeprefix(f"{record.id}: ")


def _each(row: Callable[[Record], Row], records: Sequence[Record]) -> list[Found]:
    """The rows of records that are worked on one by one."""
    found: list[Found] = []
    for record in records:
        try:
            found.append(row(record))
        except RegardError as error:
            found.append(error)
    return found


def _halved(work: Callable[[Sequence[Record]], list[Found]], records: Sequence[Record]) -> list[Found]:
    """The rows of all records at once or, where one of them fails, of each half, down to the one that fails."""
    try:
        return work(records)
    except RegardError as error:
        if len(records) == 1:
            return [error]
    half = len(records) // 2
    return _halved(work, records[:half]) + _halved(work, records[half:])
