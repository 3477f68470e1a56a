"""A process that takes part in a training on one machine, which workers.py starts: worker.py URL RANK SIZE."""

import os
import signal
import sys
import threading

from torch.distributed.rendezvous import rendezvous

from regard.errors import RegardError
from regard.training.distributed import Meeting
from regard.training.train import follow


def main(url: str, own_rank: str, num_ranks: str) -> None:
    # clusters send it to every process of a job: the one that leads saves the run, and ends this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    store, rank, size = next(rendezvous(url, int(own_rank), int(num_ranks)))
    meeting = Meeting(store, rank=rank, size=size)
    try:
        follow(meeting)
    except RegardError:
        # rank 0 was told, or sees this process end
        sys.exit(1)


def _end_with_the_leader() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
