"""What the verbs that do bulk work share: several files in, a folder of shards out."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from regard.cli.options import Count
from regard.errors import RegardError

JOB = Group("Bulk work", help="Several FILES, a pattern or a folder, and --out DIR: docs/scale.md.", sort_key=9)


def _not_options(_: object, files: Sequence[str] | str | None) -> None:
    for text in (files,) if isinstance(files, str) else files or ():
        # `-` has to be let through, and with it comes every misspelled option
        if text != "-" and text.startswith("-") and len(text.split()) == 1:
            raise ValueError(
                f"there is no option {text}; a text that starts with a hyphen can come from standard input"
            )


Files = Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True, show_default=False, validator=_not_options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFlags:
    """How a job is done.

    Parameters
    ----------
    engine
        local, one worker in this process, or ray, workers of Ray Data (needs the extra [ray]); results are the same.
    address
        The Ray cluster: auto for the one on this machine, HOST:PORT or ray://HOST:PORT. By default one is started here,
        for this job alone.
    workers
        Workers of Ray, each with the model; by default one for each processor, or GPU, of the cluster.
    gpus_per_worker
        GPUs of each worker of Ray; less than 1 lets workers share one.
    shard_size
        Records of a shard; by default 1024, of readings and sources 128.
    format
        The shards are JSON lines, which is usual, or Parquet.
    on_error
        What happens at a record that cannot be worked on: stop there, or skip it, say why in its row and exit with 1.
    column
        The key or column that has the text; by default source, prompt or text.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: Count | None = None
    gpus_per_worker: Annotated[float, Parameter(validator=Number(gte=0))] = 0.0
    shard_size: Count | None = None
    format: Literal["jsonl", "parquet"] | None = None
    on_error: Literal["stop", "skip"] = "stop"
    column: str | None = None

    def changed(self) -> list[str]:
        """The options that were given, as they are spelt."""
        return [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]


Jobs = Annotated[JobFlags, Parameter(name="*", group=JOB)]
NO_JOB = JobFlags()


def is_bulk(files: Sequence[str], out: Path | None, flags: JobFlags) -> bool:
    """Whether it is bulk work: by what is read, by where it goes, or by how."""
    from regard.jobs.records import is_many

    return (len(files) > 0 and is_many(files)) or (out is not None and out.is_dir()) or bool(flags.changed())


def check_no_job(flags: JobFlags, *, resume: bool = False, threads: int | None = None) -> None:
    """Raises RegardError where options of a job are given without one."""
    if given := flags.changed() + ["--resume"] * resume + ["--threads"] * (threads is not None):
        raise RegardError(f"{', '.join(given)}: bulk work has FILES and --out DIR; give these, or leave it out")


def run(
    verb: str,
    model: str,
    files: Sequence[str],
    out: Path | None,
    flags: JobFlags,
    *,
    resume: bool,
    loading: Mapping[str, Any],
    options: Mapping[str, Any],
    threads: int | None = None,
    alone: Mapping[str, bool] | None = None,
    then: Callable[[Mapping[str, Any]], None] = lambda manifest: None,
) -> None:
    """Run a verb on files, and `then` what is done with the manifest of its shards.

    `loading` are the settings of `regard.load`; `alone` are options of single texts.

    Raises RegardError for these, and where records had to be skipped.
    """
    if useless := [name for name, is_given in (alone or {}).items() if is_given]:
        raise RegardError(f"{', '.join(useless)}: of a single text, not of bulk work; leave it out")
    if out is None:
        raise RegardError("several FILES are bulk work, whose shards go into a folder: add --out DIR")
    if flags.engine != "ray":
        elsewhere = [name for name in flags.changed() if name in ("--address", "--workers", "--gpus-per-worker")]
        if elsewhere:
            raise RegardError(f"{', '.join(elsewhere)}: for Ray alone; add --engine ray")
    if not files:
        raise RegardError("--out DIR is for bulk work; name the FILES whose lines are worked on")
    if "-" in files:
        raise RegardError("standard input is no file of bulk work, whose files are read by each worker; save it as one")
    from regard.api import load
    from regard.jobs.run import Engine, run_job
    from regard.jobs.work import Job
    from regard.kernels.threads import check_threads
    from regard.view.progress import counting_lines

    if threads is not None:
        check_threads(threads)
    # workers may run in other folders
    name = os.path.abspath(model) if os.path.exists(model) else model
    given = {key: value for key, value in options.items() if value is not None}
    job = Job(verb, name, functools.partial(load, **loading), given, threads=threads or 1)
    with counting_lines(f"{Path(name).name}: {verb}", "records") as told:
        manifest = run_job(
            job,
            files,
            out,
            engine=Engine(
                name=flags.engine,
                address=flags.address,
                workers=flags.workers,
                gpus_per_worker=flags.gpus_per_worker,
            ),
            column=flags.column,
            shard_size=flags.shard_size,
            format=flags.format,
            on_error=flags.on_error,
            resume=resume,
            report=lambda progress: told(*progress),
        )
    count, shards = manifest["records"], manifest["shards"]
    what = f"{count:,} record{'s' * (count != 1)} in {len(shards):,} shard{'s' * (len(shards) != 1)}"
    print(f"regard: {out}: {what}, listed in manifest.json", file=sys.stderr)
    then(manifest)
    if errors := manifest["errors"]:
        first = next(shard["first_error"] for shard in manifest["shards"] if shard["errors"])
        raise RegardError(f"{errors:,} of them have an error in their row, the first {first}")
    if shortened := manifest["shortened"]:
        raise RegardError(f"{shortened:,} of them were too long for the model, and cut or left blank")
