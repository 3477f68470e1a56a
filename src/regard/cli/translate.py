"""`regard translate`: line in, line out."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from regard.cli.bulk import NO_JOB, Files, Jobs, check_no_job, is_bulk, run
from regard.cli.options import GREEDY, NO_LANGUAGES, Count, DecodingOptions, Device, Dtype, Languages
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.jobs.translate import TranslateJob


def translate(
    model: str,
    files: Files = (),
    /,
    *,
    decoding: DecodingOptions = GREEDY,
    prefix: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    prefixes: Path | None = None,
    replace_unknown: bool = False,
    too_long: Literal["stop", "split", "cut", "blank"] = "stop",
    split_sentences: bool = False,
    batch_size: Count = 64,
    out: Path | None = None,
    resume: bool = False,
    alignments: Path | None = None,
    layer: int | None = None,
    head: int | None = None,
    scores: bool = False,
    json: bool = False,
    jobs: Jobs = NO_JOB,
    threads: Count | None = None,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Translate a text, line in, line out; an answer waits for no further line. An empty line stays an empty line.

    Parameters
    ----------
    model
        A run folder, or a pretrained translator: a Hugging Face folder or a name of its hub.
    files
        A text file, plain or packed (gzip, xz, bz2, zstd, zip); `-`, or nothing, is standard input. Several files, a
        pattern or a folder, of text, JSON or Parquet, are bulk work: their translations go into a folder, --out.
    prefix
        What each translation begins with, to the letter; it may end anywhere, also within a word.
    prefixes
        A text file with a prefix for each line.
    replace_unknown
        Models of words write, for a word they do not know, the source word that they looked at most: one that they do
        not know either, where there is one.
    too_long
        What happens to a line that the model cannot read at once, each told with its number: stop there; split it,
        translate its parts and join them; cut its end off, or leave it blank, go on and exit with 1.
    split_sentences
        Translates every line, which may be a paragraph, sentence by sentence, and joins these to one line again.
    batch_size
        Sentences translated at a time. In float32 it changes the last digits of scores alone; the coarser rounding of
        bfloat16 turns some translations into others.
    out
        Where the translations go in place of standard output, line by line; of bulk work a folder.
    resume
        Go on behind the translations that --out has, and the alignments.
    threads
        How many threads of a CPU compute in each worker of bulk work; by default 1.
    alignments
        Writes the word alignment of each best translation, a line of source-target pairs (Pharaoh format).
    layer
        The cross layer that --alignments reads; -1 is the last. The default is the head that training guided
        (train.guided_alignment), else the last layer. Where there are gold links, `regard evaluate` tells which layer
        and head align best.
    head
        The head that --alignments reads; by default the mean of all.
    scores
        Before each translation its score and its log-probability, with tabs between.
    json
        One JSON object a line: source, translations with score and log-probability, and whether each is finished.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_translator
    from regard.data.formats import display_name
    from regard.jobs.output import check_written
    from regard.jobs.translate import TranslateJob, translate_file

    if is_bulk(files, out, jobs):
        alone = {
            "--prefix": bool(prefix),
            "--prefixes": prefixes is not None,
            "--scores": scores,
            "--json": json,
            "--alignments": alignments is not None,
        }
        options = {
            "decoding": {name: value for name, value in vars(decoding).items() if value != getattr(GREEDY, name)},
            "too_long": too_long,
            "split_sentences": split_sentences,
            "replace_unknown": replace_unknown,
            "batch_size": batch_size,
        }
        loading = {"device": device, "dtype": dtype, **vars(languages)}
        run(
            "translate",
            model,
            files,
            out,
            jobs,
            resume=resume,
            loading=loading,
            options=options,
            threads=threads,
            alone=alone,
        )
        return
    check_no_job(jobs, threads=threads)
    (file,) = files or ("-",)
    in_parts = {"--split-sentences": split_sentences, "--too-long split": too_long == "split"}
    _check(prefix, prefixes, file=file, out=out, resume=resume, scores=scores, json=json)
    if decoding.n_best > 1 and (asked := [option for option, is_asked in in_parts.items() if is_asked]):
        raise RegardError(f"--n-best is of one sentence, not of a line in parts; leave it out, or {asked[0]}")
    check_written(
        {"--out": out, "--alignments": alignments}, {"FILE": Path(file), "--prefixes": prefixes}, resume=resume
    )
    translator, name = load_translator(model, device=device, dtype=dtype, **vars(languages)), display_name(file)
    # told before anything is translated
    if alignments is not None:
        translator.check_cross_attention(layer=layer, head=head)
    job = TranslateJob(
        translator,
        decoding,
        too_long=too_long,
        split_sentences=split_sentences,
        replace_unknown=replace_unknown,
        batch_size=batch_size,
        name=lambda line: f"{name}:{line.place + 1}",
    )
    # where a file says how much there is to translate, its bytes are counted
    size = _size(file)
    with _progress(translator.name, size, hidden=out is None and sys.stdout.isatty()) as advance:
        translate_file(
            job,
            file,
            prefix=prefix,
            prefixes=prefixes,
            out=out,
            resume=resume,
            alignments=alignments,
            layer=layer,
            head=head,
            format="json" if json else "scores" if scores else "text",
            weigh=lambda line: 1 if size is None else len(line.text.encode()) + 1,
            progress=advance,
        )
    _tell(job)


def _tell(job: "TranslateJob") -> None:
    """What is to be said of all lines. Raises RegardError where translations lack some of them."""
    job.warn_of_untrained()
    if job.unfinished:
        print(f"regard: {job.unfinished} translations were cut at the limit; see --max-new-tokens", file=sys.stderr)
    if job.shortened:
        told = "left blank" if job.too_long == "blank" else "cut"
        raise RegardError(f"lines too long for the model, and {told}: {job.shortened}, as told above")


def _check(
    prefix: str, prefixes: Path | None, *, file: str, out: Path | None, resume: bool, scores: bool, json: bool
) -> None:
    if prefix and prefixes is not None:
        raise RegardError("--prefix is for all lines, --prefixes has one for each; give one of the two")
    if str(prefixes) == file == "-":
        raise RegardError("the text and --prefixes cannot both be standard input; name a file of one of them")
    if scores and json:
        raise RegardError("--json has the scores already; leave out --scores")
    if resume and out is None:
        raise RegardError("--resume goes on behind what --out has; name that file")


def _size(file: str) -> int | None:
    from regard.data.formats import COMPRESSION_SUFFIXES

    path = Path(file)
    return path.stat().st_size if path.is_file() and path.suffix not in COMPRESSION_SUFFIXES else None


def _progress(name: str, size: int | None, *, hidden: bool) -> contextlib.AbstractContextManager[Callable]:
    from regard.view.progress import counting

    if hidden:
        return contextlib.nullcontext(lambda count: None)
    return counting(f"{name} translates {'lines' if size is None else 'bytes'}", size)
