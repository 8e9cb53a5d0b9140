"""Which requests a verdict compares: the first ones of a reference against the newest ones after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.core.records import Labelled

_RECHECK_SHARE = 10
"""A window is judged again once a tenth of it is new: overlapping windows say nearly the same."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Requests in the reference and in the current window."""

    reference: int
    current: int

    def lack(self, wanted: Sizes) -> str | None:
        """What is missing to the sizes that are `wanted`, as a sentence; None if nothing is."""
        if self.reference < wanted.reference:
            return f"The reference is still filling: {self.reference} of {wanted.reference} requests."
        if self.current < wanted.current:
            return f"The current window is still filling: {self.current} of {wanted.current} requests."
        return None


@dataclass(frozen=True, slots=True)
class Windows:
    """The two windows, each in order of time, with no request in common."""

    reference: tuple[Labelled, ...]
    current: tuple[Labelled, ...]

    @property
    def sizes(self) -> Sizes:
        return Sizes(len(self.reference), len(self.current))


def reference_end(reference: Sequence[Labelled], wanted: Sizes) -> float | None:
    """When a full reference ends (Unix seconds): the current window lies after it. None while it is still filling."""
    return reference[wanted.reference - 1].capture.at if len(reference) >= wanted.reference else None


def choose_windows(oldest: Sequence[Labelled], newest: Sequence[Labelled], wanted: Sizes) -> Windows:
    """The first `wanted.reference` of the oldest, and of the newest the last `wanted.current` that lie after them.

    Args:
        oldest: captures since the reference began, in order of time.
        newest: the newest captures, in order of time; they may overlap with `oldest`.
    """
    end = reference_end(oldest, wanted)
    if end is None:
        return Windows(tuple(oldest), ())
    after = [row for row in newest if row.capture.at > end]
    return Windows(tuple(oldest[: wanted.reference]), tuple(after[-wanted.current :]))


def is_due(fresh: int, current_size: int) -> bool:
    """Whether `fresh` new requests or labels are enough to judge a window of `current_size` again."""
    return fresh >= max(1, current_size // _RECHECK_SHARE)
