"""Which rows make up which step. Pure: from the seed alone, so that a training that was cut off goes on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

POOL = 16
"""So many batches' rows are sorted by length together: their batches pad little, and differ from epoch to epoch."""


def batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int, rows: Sequence[int] | None = None
) -> list[list[int]]:
    """The epoch's `rows`, or every row once, in batches of like length and in random order."""
    rng = Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)) if rows is None else rows)
    rng.shuffle(order)
    found = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda row: lengths[row])
        found += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    rng.shuffle(found)
    return found


def within(rows: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The rows in groups of at most `tokens` when all are as long as the longest; a longer row is a group alone."""
    groups: list[list[int]] = []
    width = 0
    for row in rows:
        width = max(width, lengths[row])
        if not groups or (len(groups[-1]) + 1) * width > tokens:
            groups.append([])
            width = lengths[row]
        groups[-1].append(row)
    return groups
