"""How fast to learn at each moment of a training that is limited in steps and in time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SETTLED = 0.2
"""Before this share of the time is spent, the first slow steps say little about how many more there is time for."""


@dataclass(slots=True)
class Pace:
    """The learning rate's share (0..1): a linear warm-up, then half a cosine down to 0 at the end.

    The end is the last step or, where the time will not suffice for all of them, the limit on time: a training that is
    cut off at a high rate has learned far less. Within the limit it depends on steps alone, and so is repeatable;
    beyond it `shares` are what another training needs to be the same.

    Attributes:
        recorded: the shares of an earlier training, which this one repeats: the clock says nothing then.
        shares: what was used at each step so far.
        timed: whether the clock had a say.
    """

    warmup_ratio: float
    max_seconds: float
    started: float = 0.0
    recorded: Sequence[float] = ()
    shares: dict[int, float] = field(default_factory=dict)
    timed: bool = False

    def share(self, step: int, steps: int, seconds: float) -> float:
        """For the step to come, `seconds` after the start."""
        if self.recorded:
            return self.recorded[step] if step < len(self.recorded) else 0.0
        self.shares[step] = self._found(step, steps, seconds)
        return self.shares[step]

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether the time is up after `step` steps; a repeated training ends where the first one did."""
        return step >= len(self.recorded) if self.recorded else seconds > self.max_seconds

    def _found(self, step: int, steps: int, seconds: float) -> float:
        spent = seconds / self.max_seconds
        done = step / max(1, steps)
        if spent > done and spent > SETTLED:
            done, self.timed = min(1.0, spent), True
        if done < self.warmup_ratio:
            return (step + 1) / (self.warmup_ratio * steps + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
