"""How often each task of an adapter is drawn: large ones must not drown small ones. Pure, and the same for a seed.

A task is a system prompt. Its share is its number of rows to the power of 1/temperature, made up to 1: temperature 1 is
proportional, a large one draws all tasks alike (Raffel et al., "T5", 2020, 3.5.2; mT5's alpha, Xue et al., 2021, is
1/temperature). A row is drawn at most `MOST_REPEATS` times an epoch: a few rows seen all the time are learned by heart
(Chung et al., "UniMax", 2023).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any

from retrain_jobs.examples import Example
from retrain_jobs.likeness import prompt_text

MOST_REPEATS = 4
SYSTEM = "system"


def task_of(row: Example) -> str:
    """The row's system prompt, normalised; empty where it has none."""
    return prompt_text([turn for turn in row.prompt if turn.role == SYSTEM])


def quotas(sizes: Sequence[int], temperature: float) -> list[int]:
    """Rows of each task in an epoch of as many rows as there are; `sizes` are at least 1, the temperature too."""
    shares = [size ** (1.0 / temperature) for size in sizes]
    exact = [0.0] * len(sizes)
    left, free = float(sum(sizes)), set(range(len(sizes)))
    while free:
        scale = left / math.fsum(shares[task] for task in free)
        full = {task for task in free if shares[task] * scale > MOST_REPEATS * sizes[task]}
        for task in full or free:
            exact[task] = MOST_REPEATS * sizes[task] if full else shares[task] * scale
            left -= exact[task]
        free -= full or free
    return _rounded(exact, sum(sizes))


def _rounded(exact: Sequence[float], total: int) -> list[int]:
    """Whole numbers with that total: the largest remainders are rounded up."""
    found = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda task: (found[task] - exact[task], task))
    for task in by_remainder[: total - sum(found)]:
        found[task] += 1
    return found


@dataclass(frozen=True, slots=True)
class Draw:
    """Called with an epoch's number: its rows' places. Over the epochs every row of a task comes equally often."""

    groups: tuple[tuple[int, ...], ...]
    quotas: tuple[int, ...]
    seed: int

    def __call__(self, epoch: int) -> list[int]:
        return [
            row
            for task, (rows, quota) in enumerate(zip(self.groups, self.quotas, strict=True))
            for row in self._stretch(task, rows, epoch * quota, quota)
        ]

    def _stretch(self, task: int, rows: Sequence[int], start: int, count: int) -> list[int]:
        """`count` rows from `start` on, out of the task's rows shuffled again and again without end."""
        first, last = start // len(rows), (start + count - 1) // len(rows)
        passes = [row for turn in range(first, last + 1) for row in self._shuffled(task, rows, turn)]
        skip = start - first * len(rows)
        return passes[skip : skip + count]

    def _shuffled(self, task: int, rows: Sequence[int], turn: int) -> list[int]:
        found = list(rows)
        Random(f"{self.seed}:task {task}:{turn}").shuffle(found)
        return found


def draw_of(rows: Sequence[Example], temperature: float, seed: int) -> Draw | None:
    """How to draw them; None where every row comes once an epoch anyway."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        groups[task_of(row)].append(place)
    if temperature == 1.0 or len(groups) < 2:
        return None
    sizes = [len(found) for _, found in sorted(groups.items())]
    return Draw(
        tuple(tuple(found) for _, found in sorted(groups.items())), tuple(quotas(sizes, temperature)), seed
    )  # fmt: skip


def told_tasks(rows: Sequence[Example], temperature: float) -> list[dict[str, Any]]:
    """Each task by its digest, its rows and how many of an epoch are its; without any text, as JSON."""
    counts = sorted(Counter(task_of(row) for row in rows).items())
    drawn = quotas([count for _, count in counts], temperature)
    return [
        {"task": sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12], "rows": count, "drawn": quota}
        for (name, count), quota in zip(counts, drawn, strict=True)
    ]
