"""Training in several processes by `torch.distributed`: each does a part of every batch, and gradients are summed.

torchrun starts the processes, on one machine or many; on the CPU of one machine workers.py does. Rank 0 leads: it alone
prepares the folder of the run, logs and writes. The model knows nothing of it.

Rajbhandari et al. 2020, "ZeRO: memory optimizations toward training trillion parameter models" (sharding).
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from regard.errors import RegardError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# what torchrun tells each process
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# how long a rank waits for the others to start, and how long one may be silent in a step before it counts as lost
START, SILENCE = timedelta(minutes=5), timedelta(minutes=30)
# seconds between two looks at what other ranks say
POLL = 0.05
# numbers summed at once: few messages, little memory
BUCKET = 1 << 22
# dropout seeds of ranks are this far apart (Knuth 1998, "The art of computer programming", volume 3, section 6.4)
SEED_STEP = 0x9E3779B9
# seconds a worker has to end by itself
PATIENCE = 5


@final
class Meeting:
    """Where the ranks of a training meet before they compute together."""

    def __init__(self, store: Store | None, *, rank: int, size: int, workers: Sequence[subprocess.Popen] = ()) -> None:
        self.rank, self.size = rank, size
        self._store, self._workers = store, workers
        self._session, self._guest = uuid.uuid4().hex, uuid.uuid4().hex

    @classmethod
    def from_environment(cls) -> "Meeting | None":
        """The meeting to which torchrun invited this process, if any.

        Raises RegardError where the invitation is incomplete, the port is taken, or rank 0 cannot be reached.
        """
        if not {"RANK", "WORLD_SIZE"} & os.environ.keys():
            return None
        if missing := [name for name in VARIABLES if not os.environ.get(name)]:
            raise RegardError(
                f"{' and '.join(missing)} must be set beside {VARIABLES[0]} and {VARIABLES[1]} to train in several "
                "processes; start them with torchrun, or unset all of them"
            )
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        try:
            store, rank, size = next(rendezvous("env://", timeout=START))
        except (ValueError, RuntimeError) as error:
            if "EADDRINUSE" in str(error):
                raise RegardError(f"port {where} is in use; choose another MASTER_PORT (--master-port)") from None
            raise RegardError(
                f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} cannot meet rank 0 at {where}: "
                f"{_reason(error)}; check MASTER_ADDR and MASTER_PORT, and that rank 0 runs"
            ) from None
        return cls(store, rank=rank, size=size)

    @property
    def is_local(self) -> bool:
        """Whether all ranks are on this machine."""
        return bool(self._workers) or os.environ.get("MASTER_ADDR") in LOOPBACK

    @property
    def local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", self.rank if self.is_local else 0))

    @property
    def local_size(self) -> int:
        """How many of the ranks are on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size if self.is_local else 1))

    def call(self, told: object) -> None:
        """Tell the other ranks what they are to do. Raises RegardError where one of them cannot, with its reason."""
        for rank in range(1, self.size):
            # torchrun keeps the store when it starts ranks again: what those before have left there is not an answer
            while (wrong := self._said(f"{self._session} {rank}")) is None:
                if (guest := self._said(f"rank {rank}")) is not None:
                    self._say(f"to {guest}", {"session": self._session, "told": told})
                self.check_workers()
                time.sleep(POLL)
            if wrong:
                raise RegardError(wrong)

    def join(self) -> Any:
        """What rank 0 tells this rank to do."""
        self._say(f"rank {self.rank}", self._guest)
        while (said := self._said(f"to {self._guest}")) is None:
            time.sleep(POLL)
        self._session = said["session"]
        return said["told"]

    def answer(self, wrong: str = "") -> None:
        """Tell rank 0 that this rank does so, or what is wrong."""
        self._say(f"{self._session} {self.rank}", wrong)

    def _say(self, key: str, value: object) -> None:
        assert self._store is not None
        self._store.set(key, json.dumps(value))

    def _said(self, key: str) -> Any:
        assert self._store is not None
        try:
            return json.loads(self._store.get(key)) if self._store.check([key]) else None
        except dist.DistError:
            raise RegardError(f"rank {self.rank} lost rank 0, which has ended; its own error says why") from None

    def check_workers(self) -> None:
        """Raises RegardError where a worker that this process started has ended."""
        for worker in self._workers:
            if (status := worker.poll()) is not None:
                raise RegardError(
                    f"a process that helped to train ended with status {status}; if memory was short, "
                    "lower train.threads or train.batch_tokens"
                )

    @contextlib.contextmanager
    def group(self, device: torch.device) -> Iterator["Group"]:
        """All ranks, to compute together. Raises RegardError where one of them is lost."""
        if self._store is None:
            yield Group(device=device)
            return
        if dist.is_initialized():
            raise RegardError("torch.distributed is in use in this process; call destroy_process_group() before")
        try:
            with _gloo_on_loopback() if self.is_local else contextlib.nullcontext():
                dist.init_process_group(
                    "nccl" if device.type == "cuda" else "gloo",
                    store=PrefixStore(self._session, self._store),
                    rank=self.rank,
                    world_size=self.size,
                    timeout=SILENCE,
                )
            yield Group(self.rank, self.size, device)
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            with contextlib.suppress(subprocess.TimeoutExpired):
                for worker in self._workers:
                    worker.wait(PATIENCE / len(self._workers))
            self.check_workers()
            raise RegardError(
                f"rank {self.rank} lost another rank: {_reason(error)}; see what ended that one, and go on with "
                "--resume"
            ) from None
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


@dataclass(frozen=True)
class Group:
    """The ranks that train one model; by default this process alone."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether it is this process that logs and writes."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A rank's own."""
        return seed + self.rank * SEED_STEP

    def sum(self, *values: float) -> list[float]:
        """The sum of each of these numbers over all ranks, the same on each of them."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def of_rank_0(self, value: float) -> float:
        return self.sum(value if self.leads else 0.0)[0]

    def spread(self, model: nn.Module, *, shard: bool) -> None:
        """Give every rank the weights of rank 0, or, with `shard`, its share of them."""
        if self.size == 1:
            return
        for tensor in chain(model.parameters(), model.buffers()):
            dist.broadcast(tensor.detach(), 0)
        if shard:
            # no model changes in place what a block returns
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
            blocks = [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]
            for module in (*blocks, model):
                _shard(module)

    def add_gradients(self, model: nn.Module) -> None:
        """Give every rank the sum of the gradients of all; those of a model that is sharded are sums already."""
        if self.size == 1 or isinstance(model, FSDPModule):
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            _fill(bucket, flat)

    def send(self, shares: Sequence[Sequence[Tensor]]) -> None:
        """Give every rank these tensors of all ranks, of each rank its share, in place."""
        for rank, share in enumerate(shares):
            for bucket in _buckets(share):
                flat = torch.cat([tensor.detach().flatten() for tensor in bucket])
                dist.broadcast(flat, rank)
                if rank != self.rank:
                    _fill(bucket, flat)

    def wait(self) -> None:
        """Go on when all ranks have come this far."""
        self.sum(0.0)

    @torch.no_grad()
    def gather(self, model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
        """On rank 0 the model with all of its weights: where it is sharded, in one that `make` makes."""
        if not isinstance(model, FSDPModule):
            return model
        gathered = make() if self.leads else model
        for name, parameter in model.named_parameters():
            value = whole(parameter)
            if self.leads:
                gathered.get_parameter(name).copy_(value)
        return gathered


ALONE = Group()


def restarted() -> bool:
    """Whether torchrun started this process again, after one of the ranks had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each rank may have a share; all ranks must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this rank has of one `like` it."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    mesh = like.device_mesh
    parts = tensor.chunk(mesh.size())
    rank = mesh.get_local_rank()
    local = parts[rank] if rank < len(parts) else tensor[:0]
    return DTensor.from_local(
        local.to(like.device, copy=True), mesh, like.placements, shape=tensor.shape, stride=tensor.stride()
    )


def _shard(module: nn.Module) -> None:
    """Give this rank its share of the module's weights; all of them are there while one of its methods runs."""
    methods = [name for name, value in vars(type(module)).items() if callable(value) and not name.startswith("_")]
    sharded = fully_shard(module)
    # gradients are sums over all tokens of a step, not means over ranks
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)
    for name in methods:
        if name != "forward":
            register_fsdp_forward_method(module, name)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(part.numel() for part in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@torch.no_grad()
def _fill(tensors: Sequence[Tensor], flat: Tensor) -> None:
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


@contextlib.contextmanager
def _gloo_on_loopback() -> Iterator[None]:
    """By itself gloo takes the interface that the name of the machine leads to."""
    name = "GLOO_SOCKET_IFNAME"
    # Windows has no interface of such a name, and there gloo is left its own way
    if name in os.environ or sys.platform == "win32":
        yield
        return
    os.environ[name] = "lo0" if sys.platform == "darwin" else "lo"
    try:
        yield
    finally:
        del os.environ[name]


def _reason(error: BaseException) -> str:
    """The first sentence of an error of torch's, without the line of its source."""
    return re.sub(r"^\[\S+:\d+\] ", "", str(error).partition("\n")[0]).partition(". ")[0]
