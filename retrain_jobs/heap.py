"""glibc's allocator of memory, told what a training is like: each step takes large pieces, and gives them all back.

Left alone it keeps freed small pieces at hand, and each of these parts two large ones, which together would have held
one of the next step's, so that the heap grows. With another C library nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

STARTED_OVER = "TRIMTAB_JOB_STARTED_OVER"
"""Has what GLIBC_TUNABLES were before; apart from these, since glibc takes them away from a program with privileges."""

TUNABLES = "GLIBC_TUNABLES"
NOTHING_AT_HAND = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
"""The GNU C Library's manual: Memory Allocation Tunables."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""mallopt(3): what free memory at the heap's end is given back, and how large a piece has a mapping of its own."""

LARGE = 128 * 1024
LARGEST = 32 * 1024**2
"""glibc takes no greater threshold for mappings."""


def start_over() -> None:
    """Run this process's program again from its beginning, as the same process, with nothing kept at hand: glibc asks
    only then. There it returns, and whatever this process starts is as usual. Call it before anything else."""
    before = os.environ.pop(STARTED_OVER, None)
    given = os.environ.pop(TUNABLES, "") if before is None else before
    if before is None and _is_glibc():
        told = ":".join(filter(None, (given, NOTHING_AT_HAND)))
        env = {**os.environ, STARTED_OVER: given, TUNABLES: told}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
    os.environ.pop(TUNABLES, None)
    if given:
        os.environ[TUNABLES] = given


def part_large() -> None:
    """From now on each large piece is a mapping of its own: what stays lies apart from what comes and goes."""
    _set(M_MMAP_THRESHOLD, LARGE)


def reuse_large() -> None:
    """From now on large pieces are parts of the heap, which stays as it is: mappings come page by page, and that
    takes time in each step."""
    _set(M_MMAP_THRESHOLD, LARGEST)
    _set(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back() -> None:
    """Let go of the heap's free memory, and of the buffers that Intel's MKL, which is in torch, keeps for the next
    product (`mkl_free_buffers`; it has some for each size)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL("libtorch_cpu.so").mkl_serv_free_buffers()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(what: int, value: int) -> None:
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(what, value)


def _is_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (ValueError, OSError):
        return False
