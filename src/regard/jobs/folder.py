"""The folder of a job: its shards, a list of those that are done, which grows, and in the end a manifest."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from regard.data.growing import GrowingFile, check_record, check_same, growing_file, recorded
from regard.errors import RegardError
from regard.files import locked, new_file
from regard.jobs.records import Inputs
from regard.jobs.shards import Shard, Written, is_whole

# the shards that are done, until all are
DONE, MANIFEST = "shards.jsonl", "manifest.json"


@final
class JobFolder:
    """A folder that a job fills. `done` are the shards that are whole in it, by number."""

    def __init__(self, path: Path, work: Mapping[str, Any], done: dict[int, Written], growing: GrowingFile) -> None:
        self.path = path
        self.done = done
        self._work = work
        self._growing = growing

    def add(self, written: Written) -> None:
        """Note a shard that has been written. Raises RegardError where there is no room for that."""
        self._growing.write(json.dumps(written._asdict(), ensure_ascii=False) + "\n")
        self.done[written.number] = written

    def finish(self, shards: Sequence[Shard], inputs: Inputs) -> dict[str, Any]:
        """Write the manifest, once every record is in exactly one shard."""
        assert [(each.number, each.first, each.records) for each in self._in_order()] == list(map(tuple, shards))
        manifest = {
            **self._work,
            **summed(self._in_order()),
            # where a file is may differ between machines
            "files": [{name: fact for name, fact in file._asdict().items() if name != "path"} for file in inputs.files],
            "shards": [each._asdict() for each in self._in_order()],
        }
        with new_file(self.path / MANIFEST) as partial:
            partial.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return manifest

    def _in_order(self) -> list[Written]:
        return [self.done[number] for number in sorted(self.done)]


def summed(shards: Sequence[Written]) -> dict[str, Any]:
    """The counts of some shards, and one hash for all: of their records' hashes, in order, and of their files'."""
    digests = {}
    for name in ("sources", "sha256"):
        digest = hashlib.sha256("".join(getattr(each, name) for each in shards).encode())
        digests[name] = digest.hexdigest()
    counts = {name: sum(getattr(each, name) for each in shards) for name in ("records", "errors", "shortened")}
    return {**counts, **digests}


@contextlib.contextmanager
def opened_folder(path: Path, work: Mapping[str, Any], *, resume: bool) -> Iterator[JobFolder]:
    """The folder of a job, which `work` describes; with `resume` the shards that are whole in it are kept.

    Raises RegardError where the folder holds something else, or another job's shards, and where another process fills
    it at this time.
    """
    work = json.loads(json.dumps(work))
    _check(path, work, resume=resume)
    growing_path = path / DONE
    begun = resume and growing_path.exists()
    if begun and check_record(growing_path, work) is None and growing_path.stat().st_size:
        raise RegardError(f"{path}: nothing tells which job's shards these are; choose another --out")
    is_new = not path.exists()
    with contextlib.ExitStack() as stack:
        growing = stack.enter_context(growing_file(growing_path, resume=begun))
        if stack.enter_context(locked(growing_path)) is False:
            raise RegardError(f"{path}: another process is filling it; wait for it, or choose another --out")
        stack.callback(_clear, path, is_new=is_new)
        _clear_partial(path)
        stack.enter_context(recorded(growing_path, work))
        yield JobFolder(path, work, _done(path, growing) if begun else {}, growing)


def finished(path: Path, work: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a folder whose job is done; None where there is none.

    Raises RegardError where it is another job's, or shards are no longer what it says.
    """
    manifest = path / MANIFEST
    if not manifest.exists():
        return None
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        shards = [Written(**each) for each in found["shards"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise RegardError(f"{manifest}: not the manifest of a job; choose another --out") from None
    check_same(path, found, json.loads(json.dumps(work)))
    # where the process was ended behind the manifest
    for left in (path / DONE, path / f"{DONE}.resume"):
        left.unlink(missing_ok=True)
    for each in shards:
        if not is_whole(each, path):
            raise RegardError(
                f"{path / each.file}: not what the manifest says; delete {MANIFEST} and begin anew in another folder"
            )
    return found


def _check(path: Path, work: Mapping[str, Any], *, resume: bool) -> None:
    if path.exists() and not path.is_dir():
        raise RegardError(f"{path}: no folder; a job of several files writes shards into one")
    if not path.is_dir() or not any(path.iterdir()):
        return
    is_ours = (path / DONE).exists() or (path / MANIFEST).exists()
    if not is_ours:
        raise RegardError(f"{path} holds other files; choose a new folder for --out")
    if not resume:
        raise RegardError(f"{path} holds the shards of a job; --resume goes on with it, or choose another --out")


def _done(path: Path, growing: GrowingFile) -> dict[int, Written]:
    """The shards on the list whose files are what it says."""
    growing.keep(growing.lines)
    with (path / DONE).open(encoding="utf-8") as file:
        try:
            listed = [Written(**json.loads(line)) for line in file]
        except (ValueError, TypeError, RecursionError):
            raise RegardError(f"{path / DONE}: damaged; delete it and begin anew in another folder") from None
    return {each.number: each for each in listed if is_whole(each, path)}


def _clear(path: Path, *, is_new: bool) -> None:
    """Remove the list of shards where there is none to go on behind, or all are in the manifest."""
    listed = path / DONE
    if (path / MANIFEST).exists() or not listed.stat().st_size:
        listed.unlink()
        if is_new and not any(path.iterdir()):
            path.rmdir()


def _clear_partial(path: Path) -> None:
    """Remove what processes that were killed were writing."""
    for name in ("shard-*", f"{DONE}.resume", MANIFEST):
        for partial in path.glob(f".*-{name}"):
            partial.unlink(missing_ok=True)
