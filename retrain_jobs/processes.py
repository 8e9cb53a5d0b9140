"""Which of the processes that train together this one is, and the others of this machine, started beside it.

A launcher (accelerate, torchrun, an Indexed Job of Kubernetes) says it in the environment, as torch.distributed reads
it: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Imports nothing heavy.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.core.errors import ConfigError
from service.processes import die_with

LEADER = 0
ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """One of `size` processes, of which `local` are on this machine; the one with rank 0 leads."""

    rank: int = LEADER
    size: int = 1
    local: int = 1

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Place:
        """Raises ConfigError for numbers that make no sense."""
        try:
            size = int(env.get("WORLD_SIZE") or 1)
            found = cls(int(env.get("RANK") or LEADER), size, int(env.get("LOCAL_WORLD_SIZE") or 1))
        except ValueError as error:
            raise ConfigError(f"RANK, WORLD_SIZE and LOCAL_WORLD_SIZE are numbers ({error}).") from error
        if not 0 <= found.rank < found.size or not 1 <= found.local <= found.size:
            raise ConfigError(f"RANK {found.rank} is none of WORLD_SIZE {found.size} (LOCAL_WORLD_SIZE {found.local}).")
        return found


@contextmanager
def beside(processes: int, arguments: Sequence[str]) -> Iterator[Place]:
    """This process's place; without a launcher it leads, and the others are started with the same arguments.

    They end with the block, and with this process.
    """
    if "WORLD_SIZE" in os.environ or processes == 1:
        yield Place.of(os.environ)
        return
    own = Place(LEADER, processes, processes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    parent = os.getpid()
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "retrain_jobs", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}, preexec_fn=lambda: die_with(parent),
        )
        for rank in range(1, processes)
    ]  # fmt: skip
    try:
        yield own
    finally:
        for one in others:
            _end(one)


def _end(one: subprocess.Popen[bytes]) -> None:
    try:
        one.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        one.kill()
        one.wait()
