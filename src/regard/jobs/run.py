"""Run a job: the records of files in shards, each written whole by one worker, and in the end a manifest."""

import contextlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from regard.config import suggest
from regard.errors import RegardError
from regard.files import real_path
from regard.jobs.folder import finished, opened_folder
from regard.jobs.records import Inputs, find_files, measured, repeated_id
from regard.jobs.shards import ON_ERROR, Shard, ShardWriter, Written, shards_of
from regard.jobs.work import Job


@final
@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the work is done: `local`, by one worker in this process, or `ray`, by workers of Ray Data.

    For Ray, `address` is that of a running cluster, "auto" that of this machine; None starts one for this job.
    `workers` is how many there are, by default one for each processor, or GPU, that the cluster has.
    """

    name: str = "local"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 0.0


class Progress(NamedTuple):
    """How many records are done, by this process and by those before it, and how many there are."""

    done: int
    resumed: int
    records: int


def run_job(
    job: Job,
    files: Sequence[str],
    out: Path,
    *,
    engine: Engine | None = None,
    column: str | None = None,
    shard_size: int | None = None,
    format: str | None = None,
    on_error: str = "stop",
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Mapping[str, Any]:
    """Work on the records of files, folders and patterns, into the folder `out`; returns its manifest.

    `column` is the name of the text in the files, `shard_size` how many records a shard has, `format` what a shard is
    written as, by default the verb's usual one. A bad record ends the job or, with `on_error` "skip", has an `error` in
    its row. With `resume` the whole shards that `out` has are kept; the engine and `on_error` may then be others than
    before.
    Raises RegardError for what cannot be read, worked on or written, and where `out` holds another job's shards.
    """
    engine = engine or Engine()
    for name, value, known in (("engine", engine.name, ENGINES), ("on_error", on_error, ON_ERROR)):
        _check_known(name, value, known)
    format = format or job.work.formats[0]
    _check_known("format", format, job.work.formats)
    found = find_files(files)
    _check_apart(out, found)
    size = _checked_size(job, shard_size)
    inputs = Inputs(tuple(map(measured, found)), job.names(column))
    if not inputs.records:
        raise RegardError(f"{', '.join(files)}: there is no record in it; name files with text")
    if on_error == "stop" and (empty := [file.name for file in inputs.files if not file.records]):
        raise RegardError(f"{', '.join(empty)}: empty; leave it out, or --on-error skip goes on without it")
    if job.work.needs_unique_ids and (twice := repeated_id(inputs)) is not None:
        raise RegardError(f"two records have the id {twice!r}, by which they are told apart; give each its own")
    work = {**job.told(), "inputs": inputs.told(), "shard_size": size, "format": format}
    if resume and (manifest := finished(out, work)) is not None:
        return manifest
    shards = shards_of(inputs.records, size)
    writer = ShardWriter(job, inputs, out.absolute(), format=format, on_error=on_error)
    with opened_folder(out, work, resume=resume) as folder:
        done = resumed = sum(written.records for written in folder.done.values())
        report(Progress(done, resumed, inputs.records))
        left = [each for each in shards if each.number not in folder.done]
        # an engine ends what it started, however this ends
        with contextlib.closing(ENGINES[engine.name](writer, left, engine)) as found:
            for written in found:
                folder.add(written)
                done += written.records
                report(Progress(done, resumed, inputs.records))
        return folder.finish(shards, inputs)


def _check_known(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise RegardError(f"{name} must be {' or '.join(known)}, not {value!r}{suggest(value, known)}")


def _local(writer: ShardWriter, shards: Sequence[Shard], engine: Engine) -> Generator[Written]:
    """One shard after the other, in this process."""
    yield from map(writer, shards)


def _ray(writer: ShardWriter, shards: Sequence[Shard], engine: Engine) -> Generator[Written]:
    from regard.jobs.ray_data import write_all

    return write_all(
        writer, shards, address=engine.address, workers=engine.workers, gpus_per_worker=engine.gpus_per_worker
    )


ENGINES: dict[str, Callable[[ShardWriter, Sequence[Shard], Engine], Generator[Written]]] = {
    "local": _local,
    "ray": _ray,
}


def _checked_size(job: Job, size: int | None) -> int:
    together = job.work.together
    if size is None:
        return job.work.shard_size
    if size < 1 or size % together:
        raise RegardError(
            f"a shard of {size} records: it must be a multiple of {together}, the records that share batches, so that "
            f"results do not depend on shards; take {max(1, round(size / together)) * together}"
        )
    return size


def _check_apart(out: Path, files: Sequence[str]) -> None:
    folder = real_path(out)
    for file in files:
        if folder in real_path(file).parents:
            raise RegardError(f"{file}: in the folder that --out names; choose another --out")
