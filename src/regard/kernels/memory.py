"""Freed memory is kept for the next tensor."""

import ctypes
import functools

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library, where it is glibc, to keep blocks of up to 1 GiB that are freed; returns whether it does.

    By itself it hands every larger tensor's memory back to the system, which zeroes it page by page when it is next
    needed: in that time a sum over the tensor would be done several times over.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, LARGEST)])
