"""What glibc is told, by what it does then."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from retrain_jobs.heap import STARTED_OVER, TUNABLES

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc of 2021 or later")

BEGIN = """
import ctypes, json, os
from retrain_jobs import heap

class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks", "used", "free", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
"""


def run(program: str, **env: str) -> Any:
    """What the program prints, as JSON."""
    given = {name: value for name, value in os.environ.items() if name not in {TUNABLES, STARTED_OVER}} | env
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program], env=given, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout.splitlines()[-1])


SMALL = """
given = [libc.malloc(200) for _ in range(5)]
before = libc.mallinfo2().used
for one in given:
    libc.free(one)
print(json.dumps([before - libc.mallinfo2().used, os.environ.get("GLIBC_TUNABLES"), os.getppid()]))
"""


def test_started_over_nothing_small_is_kept_at_hand_and_children_are_as_usual() -> None:
    kept, told, parent = run(SMALL)
    assert (kept, told, parent) == (0, None, os.getpid())
    freed, told, parent = run("heap.start_over()" + SMALL)
    assert freed >= 5 * 200
    assert (told, parent) == (None, os.getpid())


def test_what_others_have_told_glibc_still_holds() -> None:
    own = "glibc.malloc.perturb=1"
    freed, told, _ = run("heap.start_over()" + SMALL, GLIBC_TUNABLES=own)
    assert (freed >= 5 * 200, told) == (True, own)


def test_it_starts_over_once_even_where_glibc_takes_its_tunables_away() -> None:
    """As it does from a program with privileges."""
    program = """
before = os.environ.get("TIMES", "")
os.environ["TIMES"] = before + "1"
if before:
    del os.environ["GLIBC_TUNABLES"]
heap.start_over()
print(json.dumps([os.environ["TIMES"], "GLIBC_TUNABLES" in os.environ, heap.STARTED_OVER in os.environ]))
"""
    assert run(program) == ["11", False, False]


def test_large_pieces_have_mappings_of_their_own_until_they_are_to_be_reused() -> None:
    counts = run(
        """
def mapped_and_kept():
    before = libc.mallinfo2()
    given = [libc.malloc(1 << 20) for _ in range(8)]
    during = libc.mallinfo2()
    for one in given:
        libc.free(one)
    return during.mapped - before.mapped, libc.mallinfo2().arena - before.arena

heap.part_large()
first = mapped_and_kept()
heap.reuse_large()
second = mapped_and_kept()
held = libc.mallinfo2().arena
heap.give_back()
print(json.dumps([first, second, held - libc.mallinfo2().arena]))
"""
    )
    apart, reused, given_back = counts
    assert apart[0] >= 8 << 20
    assert apart[1] == 0
    assert reused[0] == 0
    assert reused[1] >= 7 << 20
    assert given_back >= 7 << 20


def test_what_is_given_back_holds_mkls_buffers() -> None:
    torch = pytest.importorskip("torch")
    if not torch.backends.mkl.is_available():
        pytest.skip("torch without MKL")
    program = """
import torch
mkl = ctypes.CDLL("libtorch_cpu.so")
mkl.mkl_serv_mem_stat.restype = ctypes.c_longlong
def kept():
    return mkl.mkl_serv_mem_stat(ctypes.byref(ctypes.c_int()))
product = torch.ones(512, 512) @ torch.ones(512, 512)
before = kept()
heap.give_back()
print(json.dumps([before, kept(), (torch.ones(512, 512) @ torch.ones(512, 512)).equal(product)]))
"""
    before, after, same = run(program)
    assert before > 0
    assert (after, same) == (0, True)
