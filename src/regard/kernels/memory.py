"""What the C library does with freed memory: keep it for the next tensor, or give it back."""

import contextlib
import ctypes
import functools
import math
import os
from collections.abc import Callable, Iterator

import torch

from regard.errors import RegardError

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SMALLEST, LARGEST = 1 << 20, 1 << 30
# what a container may have at most, where it is in one
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library, where it is glibc, to keep blocks of up to 1 GiB that are freed; returns whether it does.

    By itself it hands every larger tensor's memory back to the system, which zeroes it page by page when it is next
    needed: in that time a sum over the tensor would be done several times over.
    """
    mallopt = _of_the_c_library("mallopt")
    return mallopt is not None and all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, LARGEST)])


def give_back_large_blocks() -> None:
    """Tell the C library, where it is glibc, to return blocks of 1 MiB and more as soon as they are freed.

    By itself it keeps those of up to 32 MB, and where blocks of many sizes come and go it keeps more than is in use.
    """
    mallopt = _of_the_c_library("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, SMALLEST)


def give_back_freed_memory() -> None:
    """Return to the system what the C library, where it is glibc, has kept.

    By itself it keeps blocks of up to 32 MB, and what a long text needs for a moment is hundreds of MB of them.
    """
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def memory_of_machine() -> float:
    """The bytes of memory that this machine or container has; infinite where it does not say."""
    most = math.inf
    with contextlib.suppress(AttributeError, ValueError, OSError):
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in CGROUPS:
        # the word max where there is no limit
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            most = min(most, int(file.read()))
    return most


def _of_the_c_library(function: str) -> Callable[..., int] | None:
    try:
        # Windows has no library without a name, macOS none with these functions
        return getattr(ctypes.CDLL(None), function, None)
    except TypeError:
        return None


@contextlib.contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Raises RegardError, with this advice, where there is no memory for what is done within."""
    try:
        yield
    except RuntimeError as error:
        # on the CPU torch has no error of its own for it
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise RegardError(f"there is not enough memory for {what}; {advice}") from None
