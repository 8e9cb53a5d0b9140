"""A row that is learned rests for an epoch: its gradient is nearly nothing, and its steps cost as much as any other's.

After Selective-Backprop (Jiang et al., 2019, arXiv:1910.00762), with the loss of the row's last turn in place of a pass
that only asks for it. A rest is short, so that a row which is being forgotten comes back in time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Rests:
    """Whose turn it is. Pure: it follows from the losses alone.

    Attributes:
        below: a loss (nats a token) under which a row counts as learned; 0: no row ever rests.
        seen: each row's epoch when it was last computed, and its loss then.
    """

    below: float
    seen: dict[int, tuple[int, float]] = field(default_factory=dict)

    def awake(self, batch: Sequence[int], epoch: int) -> list[int]:
        """The rows of the batch that are to be computed."""
        return [row for row in batch if not self._rests(row, epoch)]

    def computed(self, rows: Sequence[int], losses: Sequence[float], epoch: int) -> None:
        self.seen |= {row: (epoch, loss) for row, loss in zip(rows, losses, strict=True)}

    def mean(self, batch: Sequence[int]) -> float:
        """The batch's loss, with what is known of those who rest."""
        return math.fsum(self.seen[row][1] for row in batch) / len(batch)

    def state(self) -> dict[int, tuple[int, float]]:
        """For `load`."""
        return dict(self.seen)

    def load(self, state: Mapping[int, Sequence[float]]) -> None:
        self.seen = {row: (int(epoch), loss) for row, (epoch, loss) in state.items()}

    def _rests(self, row: int, epoch: int) -> bool:
        last, loss = self.seen.get(row, (epoch, math.inf))
        return epoch - last <= 1 and loss < self.below
