"""How fast to learn at each moment of a training that is limited in steps and in time. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

SETTLED = 0.2
"""Before this share of the time is spent, the first slow steps say little about how many more there is time for."""


@dataclass(slots=True)
class Pace:
    """The learning rate's share (0..1): a linear warm-up, then half a cosine down to 0 at the end.

    The end is the last step or, where the time will not suffice for all of them, the limit on time: a training that is
    cut off at a high rate has learned far less. Within the limit it depends on steps alone, and so is repeatable.
    """

    warmup_ratio: float
    max_seconds: float
    started: float = 0.0

    def share(self, step: int, steps: int, seconds: float) -> float:
        """For the step to come, `seconds` after the start."""
        spent = seconds / self.max_seconds
        done = step / max(1, steps)
        if spent > done and spent > SETTLED:
            done = min(1.0, spent)
        if done < self.warmup_ratio:
            return (step + 1) / (self.warmup_ratio * steps + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
