"""What a training makes small. The loop asks for it item by item and knows nothing else about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.beginnings import sharing
from retrain_jobs.recipes.forced import forced
from retrain_jobs.recipes.packed import Tokens, pack, row_losses, target_logits


class Objective(Protocol):
    """A loss over items, each made of one row or more.

    Attributes:
        lengths: tokens that are computed for each item alone.
        rows: all of the items' rows.
        rate_ratio: its learning rate, where the settings name none, as a share of supervised fine-tuning's.
    """

    rate_ratio: float

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def rows(self) -> Sequence[Encoded]: ...

    def begin(self, model: Any, max_tokens: int) -> None:
        """Look at the model as training begins with it, at most `max_tokens` at once."""

    def loss(self, model: Any, items: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        """The sum of the items' losses, and the tokens that were computed for it."""


@dataclass(slots=True)
class Likelihood:
    """Supervised fine-tuning: each row's mean loss on its target."""

    rows: Sequence[Encoded]
    rate_ratio: float = 1.0
    lengths: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sharing(self.rows)
        self.lengths = [row.own for row in self.rows]

    def begin(self, model: Any, max_tokens: int) -> None:
        """There is nothing to compare with."""

    def loss(self, model: Any, items: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        batch = pack([self.rows[item] for item in items], model.device)
        return row_losses(target_logits(model, batch), batch).sum(), batch.tokens


def reference(model: Any, rows: Sequence[Encoded], max_tokens: int) -> torch.Tensor:
    """The log-probability of each row's target (nats) under the model as it is."""
    return torch.tensor([-one.loss for one in forced(model, rows, max_tokens)], device=model.device)
