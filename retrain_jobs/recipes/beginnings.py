"""Which rows begin alike: a system prompt that many rows have is computed once for all that are computed at once.

The tokens that follow it see the same keys and values as if each row had its own, so losses and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from retrain_jobs.encode import Encoded

AT_ONCE = 16
"""Rows that are computed together; what is shared by few of all rows seldom meets there."""

WORTH = 32.0
"""Tokens that a beginning must spare each time, on average: its own attention costs a small model some 30."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows from `start` to `stop`, in the order of their prompts, that begin with the same `length` tokens."""

    start: int
    stop: int
    length: int

    def spared(self, rows: int) -> float:
        """Tokens not computed again each time that `AT_ONCE` of all `rows` are, drawn at random; in the mean."""
        share = (self.stop - self.start) / rows
        return self.length * (AT_ONCE * share - 1.0 + (1.0 - share) ** AT_ONCE)


def sharing(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows, each told what it shares; of beginnings within one another those that spare more."""
    prompts = [row.prompt[:-1] for row in rows]  # the last one predicts the target's first token, each row for itself
    order = sorted(range(len(rows)), key=prompts.__getitem__)
    alike = [_alike(prompts[one], prompts[other]) for one, other in pairwise(order)]
    found = list(rows)
    for group in _chosen(alike):
        for row in order[group.start : group.stop]:
            found[row] = replace(rows[row], shared=group.length)
    return found


def _chosen(alike: Sequence[int]) -> list[_Group]:
    """Groups that do not overlap. `alike` says what neighbours have in common."""
    chosen: list[tuple[_Group, float]] = []
    for group in _groups(alike):
        first = len(chosen)
        while first and chosen[first - 1][0].start >= group.start:
            first -= 1
        spared = group.spared(len(alike) + 1)
        if spared >= max(WORTH, sum(its for _, its in chosen[first:])):
            chosen[first:] = [(group, spared)]
    return [group for group, _ in chosen]


def _groups(alike: Sequence[int]) -> Iterator[_Group]:
    """Each widest group that has so much in common, those within others first.

    As the rectangles below a histogram are found, with a stack.
    """
    open_: list[tuple[int, int]] = []
    for place, height in enumerate((*alike, 0)):
        start = place
        while open_ and open_[-1][1] >= height:
            start, length = open_.pop()
            yield _Group(start, place + 1, length)
        if height:
            open_.append((start, height))


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    for place, (token, same) in enumerate(zip(one, other, strict=False)):
        if token != same:
            return place
    return min(len(one), len(other))
