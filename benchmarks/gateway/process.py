"""Programs under test: each on its own cores, what it has used told from outside, ended when the block ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

END_S = 20.0
"""How long a program may take over its end; a gateway that stops ships its captures first."""

_QUIET_S, _QUIET_SHARE = 0.25, 0.08


@dataclass(frozen=True, slots=True)
class Cores:
    """`tested` is where the gateway or a peer runs, `others` where the load generator and the stub engine do."""

    tested: frozenset[int]
    others: frozenset[int]


def divide_cores() -> Cores:
    """The last core is for what is tested; on a machine with one, all share it."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(cores[-1:]), frozenset(cores[:-1] or cores))


@dataclass(frozen=True, slots=True)
class Process:
    """A program and its children; what it prints is in `log`."""

    pid: int
    log: Path

    @property
    def alive(self) -> bool:
        return psutil.pid_exists(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def last_words(self) -> str:
        return " ".join(self.log.read_text("utf-8", "replace").split())[-400:]

    def cpu_s(self) -> float:
        """CPU time used so far."""
        times = [process.cpu_times() for process in self._all()]
        return sum(t.user + t.system for t in times)

    def resident_mib(self) -> float:
        """Of all its processes; what they share counts once (PSS)."""
        return sum(float(process.memory_full_info().pss) for process in self._all()) / 2**20

    def move_children(self, cores: frozenset[int]) -> None:
        for child in psutil.Process(self.pid).children():
            child.cpu_affinity(sorted(cores))

    async def quiet(self, within_s: float = 20.0) -> None:
        """Return once the program has nothing left to do, such as captures to ship, or after `within_s`."""
        for _ in range(round(within_s / _QUIET_S)):
            before = self.cpu_s()
            await asyncio.sleep(_QUIET_S)
            if self.cpu_s() - before <= _QUIET_SHARE * _QUIET_S:
                return

    def _all(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """What this thread starts inside runs on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def program(
    argv: Sequence[str], cores: frozenset[int], log: Path, *, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """A program in a process group of its own, with its output in `log`."""
    with log.open("w") as output, on_cores(cores):
        child = subprocess.Popen(
            argv,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Process(child.pid, log)
    finally:
        end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM; what is left of its process group after a while is killed."""
    child.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one of our own modules."""
    return [sys.executable, "-m", name, *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
