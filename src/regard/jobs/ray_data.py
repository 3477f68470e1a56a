"""Shards by the workers of Ray Data: each is an actor that holds the model and writes whole shards.

What goes through Ray is which shard to write, and what was written: a few numbers, so that memory is bounded and the
input is read where it is worked on. A worker that dies is started again by Ray, and its shard with it.
"""

import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from regard.errors import RegardError
from regard.jobs.shards import Shard, ShardWriter, Written

OLDEST = (2, 55)
# of a cluster that this process starts: what goes through it is small
OBJECT_STORE_BYTES = 100 << 20
# seconds in which a cluster must answer
ANSWERS_WITHIN = 10
FOLDER = "regard-ray-"
LOGGERS = ("ray", "ray.data", "ray.serve", "ray.rllib", "ray.tune", "ray.train")
QUIET = {
    "RAY_usage_stats_enabled": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # its own log keeps the rest
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# where Ray keeps the secret by which those who connect to a cluster are known
TOKEN = Path("~/.ray/auth_token")


@final
class _Worker:
    """An actor: it opens the model once, and writes the shards that it is given."""

    def __init__(self, writer: ShardWriter) -> None:
        self._writer = writer

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        shard = Shard(*(int(batch[name][0]) for name in Shard._fields))
        try:
            return {"written": [json.dumps(self._writer(shard)._asdict())], "error": [""]}
        except RegardError as error:
            # it is of the work, and no fault that a second try would mend
            return {"written": [""], "error": [str(error)]}


def write_all(
    writer: ShardWriter, shards: Sequence[Shard], *, address: str | None, workers: int | None, gpus_per_worker: float
) -> Generator[Written]:
    """The shards as they are written, in whatever order.

    Raises RegardError where Ray is missing or too old, no cluster answers, it has too few processors or GPUs, and as
    the writer does.
    """
    ray = _imported(has_cluster=address is not None)
    threads = writer.job.threads
    if not shards:
        return
    # each worker has its own
    writer.job.close()
    with _connected(ray, address, cpus=(workers or os.cpu_count() or 1) * threads):
        count = _workers(ray.cluster_resources(), workers, threads, gpus_per_worker)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        items = [shard._asdict() for shard in shards]
        found = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(writer,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(count, len(items)), max_tasks_in_flight_per_actor=1),
            num_cpus=threads,
            num_gpus=gpus_per_worker or None,
        )
        try:
            for batch in found.iter_batches(batch_size=None, prefetch_batches=0):
                for written, error in zip(batch["written"], batch["error"], strict=True):
                    if error:
                        raise RegardError(str(error))
                    yield Written(**json.loads(str(written)))
        except ray.exceptions.RayError as error:
            told = str(error).strip().split("\n")[-1]
            raise RegardError(
                f"a worker of Ray failed: {told}; --engine local --resume shows at which record"
            ) from None


def _imported(*, has_cluster: bool) -> Any:
    # they are read when it is imported
    for name, value in {**QUIET, **(_to_join() if has_cluster else _of_its_own())}.items():
        os.environ.setdefault(name, value)
    try:
        # not every environment has it
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise RegardError("--engine ray needs Ray: pip install 'regard[ray]'") from None
    version = tuple(map(int, re.findall(r"\d+", ray.__version__)[:2]))
    if version < OLDEST:
        raise RegardError(f"Ray {ray.__version__} is too old, and older than 2.55 unsafe: pip install 'regard[ray]'")
    return ray


def _of_its_own() -> dict[str, str]:
    """A cluster of this process listens on 127.0.0.1 alone, as on Windows, and lets nobody in but this process."""
    token = secrets.token_hex(32)
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def _to_join() -> dict[str, str]:
    """Where this user has a secret, the cluster asks for it."""
    is_known = TOKEN.expanduser().is_file() or os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    return {"RAY_AUTH_MODE": "token"} if is_known else {}


@contextmanager
def _connected(ray: Any, address: str | None, *, cpus: int) -> Iterator[None]:
    """Connected to a cluster, one of this job's own where there is no address; a connection that is there is used."""
    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    folder = None
    if address is None:
        _clear_left_folders()
        # a socket's path must be short
        folder = tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-")
        settings |= {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }
    else:
        _check_answers(address)
    try:
        try:
            with _silent_stderr(), _own_sigterm():
                ray.init(address=address or "local", **settings)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            told = str(error).strip().split("\n")[0]
            raise RegardError(f"--address {address or 'local'}: no Ray cluster answers ({told}); start one") from None
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        # a worker that died is started again, and nothing that its user has to read of
        ray._private.worker._worker_logs_enabled = False
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _clear_left_folders() -> None:
    """Remove the files of clusters whose process was killed."""
    if sys.platform == "win32":
        # there os.kill with 0 asks nothing but sends Ctrl-C; what was left stays
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        process = folder.name.removeprefix(FOLDER).partition("-")[0]
        with suppress(OSError, ValueError):
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What SIGTERM does stays what it was."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """What C++ writes on standard error meanwhile is dropped: a line that it has taken its level of logging."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answers(address: str) -> None:
    """Raises RegardError where nobody listens at an address: Ray would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if address == "auto":
        return
    if found is None:
        raise RegardError(f"--address {address}: no address of a Ray cluster; it is auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        told = getattr(error, "strerror", None) or error
        raise RegardError(f"--address {address}: no Ray cluster answers ({told}); check it, or start one") from None


def _workers(resources: dict[str, float], wanted: int | None, threads: int, gpus: float) -> int:
    """How many workers the cluster has room for. Raises RegardError where that is none, or fewer than are wanted."""
    room = int(resources.get("CPU", 0) // threads)
    if gpus:
        room = min(room, int(resources.get("GPU", 0) / gpus))
    if room < (wanted or 1):
        has = f"{resources.get('CPU', 0):g} processors and {resources.get('GPU', 0):g} GPUs"
        needs = f"{threads} processors" + f" and {gpus:g} GPUs" * bool(gpus)
        raise RegardError(
            f"--workers {wanted or 1}: the Ray cluster has {has}, a worker takes {needs}; ask for fewer, or add nodes"
        )
    return wanted or room
