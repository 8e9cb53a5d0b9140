"""How much is measured, and in which order the arms take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.gateway.process import Cores

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """`full` asks for an hour's worth of requests where memory is watched, else for a quarter of it."""

    seconds: float
    rounds: int
    full: bool
    cores: Cores
    folder: Path

    def place(self, name: str) -> Path:
        """A new folder for one program's files."""
        folder = self.folder / name
        folder.mkdir()
        return folder


def turns(arms: Sequence[T], rounds: int) -> Iterator[T]:
    """Every arm once a round, a different one first each time."""
    for number in range(rounds):
        first = number % len(arms)
        yield from (*arms[first:], *arms[:first])
