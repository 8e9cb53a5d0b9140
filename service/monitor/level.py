"""How much evidence an alarm needs: fitted so that false alarms come as often as declared; see docs/drift.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """A share of the declared rows between false alarms, and more where rows are ranked among few others.

    An e-detector needs the declared number itself (a `share` of 1) where rows are exchangeable with those that they
    are ranked among. One reference is odd in some way, which adds up over all the rows that it is held against, the
    more so the smaller it is.
    """

    share: float
    half: float
    steepness: float

    def needed(self, every: float, step: float, ranked: int) -> float:
        """The level that alarms.

        Args:
            every: declared requests between false alarms.
            step: requests that a row stands for.
            ranked: rows that others are ranked among.
        """
        among_few = (self.half * every / step / max(1, ranked)) ** self.steepness
        return float(self.share * every * (1.0 + among_few))


REQUESTS = Level(1.15, 0.065, 3.0)
LABELS = Level(1.0, 0.12, 1.5)
