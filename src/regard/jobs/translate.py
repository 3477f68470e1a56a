"""Lines in, translations out: each line once, in order, whatever it is translated beside."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from regard.config import suggest
from regard.data.formats import display_name
from regard.data.words import count_words
from regard.errors import RegardError
from regard.generation.decoding import Decoding
from regard.generation.result import Generation
from regard.jobs.lines import Line, chunks, inputs, pausing_stream
from regard.jobs.output import opened_output
from regard.jobs.parts import Part, fitting_parts, joined, sentence_parts, together
from regard.reading.replay import links
from regard.translator import Translator

TOO_LONG = ("stop", "split", "cut", "blank")
# samples of a line's parts are as far apart
PART_STEP = 1 << 40
MOST_TOLD = 10

logger = logging.getLogger("regard")


class Plan(NamedTuple):
    """A line, the parts of it that are translated, and whether that is not all of it."""

    line: Line
    parts: list[Part]
    has_lost: bool = False


class Translated(NamedTuple):
    """A line with its translations, best first, and, of each of its parts, those of that part alone."""

    plan: Plan
    generations: list[Generation]
    of_parts: list[list[Generation]]

    @property
    def line(self) -> Line:
        return self.plan.line

    @property
    def with_parts(self) -> list[tuple[Part, list[Generation]]]:
        return list(zip(self.plan.parts, self.of_parts, strict=True))


@final
class TranslateJob:
    """Translates lines with the same settings; counts what is to be said of them at the end.

    `too_long` says what happens to a line that the model cannot read at once: `stop` raises RegardError, `split`
    translates it in parts, `cut` leaves out its end, `blank` all of it. Each is told in the log by `name`.
    With `split_sentences` every line is translated sentence by sentence, and its translations are joined to one line.
    """

    def __init__(
        self,
        translator: Translator,
        decoding: Decoding | None = None,
        *,
        too_long: str = "stop",
        split_sentences: bool = False,
        replace_unknown: bool = False,
        batch_size: int = 64,
        name: Callable[[Line], str] = lambda line: f"line {line.place + 1}",
    ) -> None:
        if too_long not in TOO_LONG:
            raise RegardError(
                f"too_long must be one of {', '.join(TOO_LONG)}, not {too_long!r}{suggest(too_long, TOO_LONG)}"
            )
        self.translator = translator
        self.decoding = decoding or Decoding()
        if self.decoding.n_best > 1 and (split_sentences or too_long == "split"):
            raise RegardError("the n best translations are of one sentence, not of a line in parts; leave out n_best")
        if replace_unknown:
            translator.check_replace_unknown()
        self.too_long = too_long
        self.split_sentences = split_sentences
        self.replace_unknown = replace_unknown
        self.batch_size = batch_size
        self.name = name
        # lines whose translation lacks some of them; those with a sentence beyond any trained on; translations cut
        self.shortened = self.untrained = self.unfinished = 0
        self._longest = translator.longest_source

    def __call__(
        self, lines: Sequence[Line], *, progress: Callable[[float], None] = lambda lines: None
    ) -> Iterator[list[Translated]]:
        """The lines with their translations, in one list or several; `progress` is told how many, or shares.

        Where a line cannot be translated, those before it come first, and then the error.
        """
        plans, error = self._plans(lines)
        yield from self._translated(plans, progress)
        if error is not None:
            raise error

    def told(self) -> dict[str, Any]:
        """What translations follow from, beside the lines; what is too long may be treated otherwise later."""
        return {
            **self.translator.origin(),
            "replace_unknown": self.replace_unknown,
            # records of before there was this choice have none
            "split_sentences": self.split_sentences or None,
            "dtype": str(next(self.translator.module.parameters()).dtype).removeprefix("torch."),
            **vars(self.decoding),
        }

    def alignments(self, translated: Sequence[Translated], *, layer: int | None, head: int | None) -> Iterator[str]:
        """The word alignment of each best translation with its line, as pairs `source-target` (Pharaoh format)."""
        pairs = [(part.text, own[0]) for each in translated for part, own in each.with_parts]
        tables = self.translator.alignments(*zip(*pairs, strict=True), layer=layer, head=head)
        for each in translated:
            found, text = [], ""
            for part, (best, *_) in each.with_parts:
                # the words before those of this part, or the one that it goes on with
                first_source = count_words(each.line.text[: part.start + len(part.text)]) - count_words(part.text)
                text = together(text, best.text)
                first_target = count_words(text) - count_words(best.text)
                found += [f"{first_source + i}-{first_target + j}" for i, j in links(next(tables))]
            yield " ".join(found)

    def warn_of_untrained(self) -> None:
        """Tell the log of how many lines it has not been told yet."""
        if self.untrained > MOST_TOLD:
            logger.warning("… and %d more lines are longer", self.untrained - MOST_TOLD)

    def _translated(self, plans: list[Plan], progress: Callable[[float], None]) -> Iterator[list[Translated]]:
        if not plans:
            return
        try:
            found = self._translate(plans, progress)
        except RegardError:
            if len(plans) == 1:
                raise
            half = len(plans) // 2
            yield from self._translated(plans[:half], progress)
            yield from self._translated(plans[half:], progress)
        else:
            self.shortened += sum(each.plan.has_lost for each in found)
            self.unfinished += sum(not each.generations[0].finished for each in found)
            yield found

    def _translate(self, plans: list[Plan], progress: Callable[[float], None]) -> list[Translated]:
        rows = [(plan.line, index, part) for plan in plans for index, part in enumerate(plan.parts)]
        prefixes = [line.prefix if index == 0 else "" for line, index, _ in rows]
        found = iter(
            self.translator.translate_n_best(
                [part.text for _, _, part in rows],
                self.decoding,
                prefixes=prefixes if any(prefixes) else None,
                replace_unknown=self.replace_unknown,
                batch_size=self.batch_size,
                numbers=[line.place + index * PART_STEP for line, index, _ in rows],
                progress=lambda sentences: progress(sentences / len(rows) * len(plans)),
                name=lambda row: self.name(rows[row][0]),
            )
        )
        translated = []
        for plan in plans:
            own = [next(found) for _ in plan.parts]
            generations = own[0] if len(own) == 1 else [joined([each[0] for each in own])]
            translated.append(Translated(plan, generations, own))
        return translated

    def _plans(self, lines: Sequence[Line]) -> tuple[list[Plan], RegardError | None]:
        """What of each line is translated; where one is too long to go on, those before it, and the error."""
        parts = [sentence_parts(line.text) if self.split_sentences else [Part(0, line.text)] for line in lines]
        lengths = iter(self.translator.source_lengths([part.text for own in parts for part in own]))
        plans = []
        for line, own in zip(lines, parts, strict=True):
            longest = max(next(lengths) for _ in own)
            if longest <= self.translator.max_length:
                plans.append(Plan(line, own))
            elif self.too_long == "stop":
                return plans, RegardError(
                    f"{self._too_long(line, longest)}; split it, let --too-long do so (split, cut or blank), or train "
                    "with a larger model.max_length"
                )
            else:
                plans.append(self._shortened(line, own, longest))
            if self._longest is not None and self._longest < longest <= self.translator.max_length:
                self._warn_of(line, longest)
        return plans, None

    def _shortened(self, line: Line, parts: list[Part], longest: int) -> Plan:
        told = self._too_long(line, longest)
        if self.too_long == "blank":
            logger.warning("%s: left blank", told)
            return Plan(line, [Part(0, "")], has_lost=True)
        if self.too_long == "cut":
            logger.warning("%s: its end is not translated", told)
            return Plan(line, [self._cut(part) for part in parts], has_lost=True)
        # a sentence is a better part than half of two
        sentences = parts if self.split_sentences else sentence_parts(line.text)
        pieces = [piece for part in sentences for piece in fitting_parts(part, self._fits)]
        logger.warning("%s: translated in %d parts", told, len(pieces))
        return Plan(line, pieces)

    def _cut(self, part: Part) -> Part:
        text = part.text
        while not self._fits(text):
            tokens = self.translator.tokenizer.tokens(text)
            text = text[: min(tokens[min(self.translator.max_length - 1, len(tokens) - 1)].start, len(text) - 1)]
        # no word is left broken, if there are several
        if text != part.text and not part.text[len(text)].isspace() and (words := text.rsplit(None, 1))[1:]:
            text = words[0]
        return Part(part.start, text)

    def _fits(self, text: str) -> bool:
        return self.translator.source_lengths([text])[0] <= self.translator.max_length

    def _too_long(self, line: Line, length: int) -> str:
        return f"{self.name(line)} has {length} tokens, the model reads at most {self.translator.max_length}"

    def _warn_of(self, line: Line, length: int) -> None:
        self.untrained += 1
        if self.untrained <= MOST_TOLD:
            remedy = "" if self.split_sentences or self.untrained > 1 else "; --split-sentences may help"
            logger.warning(
                "%s has %d tokens, the longest source trained on %d%s", self.name(line), length, self._longest, remedy
            )


def translate_file(
    job: TranslateJob,
    file: str,
    *,
    prefix: str = "",
    prefixes: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
    alignments: Path | None = None,
    layer: int | None = None,
    head: int | None = None,
    format: str = "text",
    weigh: Callable[[Line], float] = lambda line: 1.0,
    progress: Callable[[float], None] = lambda weight: None,
) -> None:
    """Translate the lines of a file, or of standard input (`-`), to another, or to standard output, as they come.

    Each translation begins with `prefix`, or with its line of the file `prefixes`. With `resume` the job goes on behind
    the translations that `out` has, and the `alignments`, which one cross layer and head tell. `format` is one of
    FORMATS. `progress` is told what the lines weigh.
    Raises RegardError as `read_lines` and the job do, where `out` was begun by other work, and for a full disk.
    """
    decoding, work = job.decoding, {}
    if out is not None:
        work = {
            **job.told(),
            "input": file if file == "-" else os.path.realpath(file),
            "prefix": prefix,
            "prefixes": prefixes and os.path.realpath(prefixes),
            "format": format,
            "alignments": alignments and {"file": os.path.realpath(alignments), "layer": layer, "head": head},
        }
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(pausing_stream(file))
        lines = inputs(file, prefix, prefixes, stream=stream)
        output = stack.enter_context(
            opened_output(
                out,
                alignments,
                lines=lines,
                name=display_name(file),
                work=work,
                resume=resume,
                lines_each=1 if format == "json" else decoding.n_best,
                format=format,
                skipped=lambda line: progress(weigh(line)),
            )
        )
        for chunk in chunks(lines, pauses=stream.pauses if stream else lambda: False):
            each = sum(map(weigh, chunk)) / len(chunk)
            for found in job(chunk, progress=lambda lines, each=each: progress(each * lines)):
                text = (FORMATS[format](part.line, part.generations, decoding.n_best) for part in found)
                output.add([part.line for part in found], "".join(text))
                if alignments is not None:
                    pairs = job.alignments(found, layer=layer, head=head)
                    output.add_alignments("".join(f"{line}\n" for line in pairs))
                output.note()


def as_text(line: Line, generations: Sequence[Generation], count: int) -> str:
    """`count` translations, one a line, empty ones where there are fewer."""
    # one line in is one line out, whatever the model wrote
    texts = [generation.text.replace("\n", " ").replace("\r", " ") + "\n" for generation in generations]
    return "".join(texts) + "\n" * (count - len(generations))


def as_table(line: Line, generations: Sequence[Generation], count: int) -> str:
    """The same with score and log-probability before each."""
    rows = [
        f"{generation.score:.6f}\t{generation.log_probability:.6f}\t{as_text(line, [generation], 1)}"
        for generation in generations
    ]
    return "".join(rows) + "\t\t\n" * (count - len(generations))


def as_json(line: Line, generations: Sequence[Generation], count: int) -> str:
    """One JSON object for the line."""
    names = ("text", "score", "log_probability", "finished")
    translations = [{name: getattr(generation, name) for name in names} for generation in generations]
    return json.dumps({"source": line.text, "translations": translations}, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Line, Sequence[Generation], int], str]] = {
    "text": as_text,
    "scores": as_table,
    "json": as_json,
}
