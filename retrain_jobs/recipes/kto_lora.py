"""Kahneman-Tversky optimization: wanted replies become likelier than before, those turned down less likely.

Ethayarajh et al., 2024. A thumb is enough; no pairs are needed. The reference is the model as training begins: the
base, or the champion with a warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from pydantic import Field

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes import sft_lora
from retrain_jobs.recipes.beginnings import sharing
from retrain_jobs.recipes.objective import reference
from retrain_jobs.recipes.packed import Tokens, log_probabilities, pack, target_logits


class Config(sft_lora.Config):
    """`configs/kto_lora.yaml`."""

    beta: float = Field(gt=0)
    rate_ratio: float = Field(gt=0)


@dataclass(slots=True)
class Thumbs:
    """Replies that were wanted and replies that were not. Both kinds weigh the same, however many there are of each.

    How far the model has moved from its reference at all is estimated, as in the paper, on prompts with the replies of
    other prompts (`strange`).
    """

    wanted: Sequence[Encoded]
    rejected: Sequence[Encoded]
    beta: float
    rate_ratio: float
    seed: int = 0
    rows: Sequence[Encoded] = field(init=False)
    strange: Sequence[Encoded] = field(init=False)
    lengths: Sequence[int] = field(init=False)
    _reference: torch.Tensor = field(init=False)
    _strange_reference: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sharing([*self.wanted, *self.rejected])
        longest = max(map(len, self.rows))
        order = list(range(len(self.rows)))
        Random(self.seed).shuffle(order)
        other = dict(zip(order, [*order[1:], order[0]], strict=True))
        self.strange = [
            replace(row, target=self.rows[other[place]].target[: longest - len(row.prompt)])
            for place, row in enumerate(self.rows)
        ]
        self.lengths = [row.own + strange.own for row, strange in zip(self.rows, self.strange, strict=True)]

    def begin(self, model: Any, max_tokens: int) -> None:
        self._reference = reference(model, self.rows, max_tokens)
        self._strange_reference = reference(model, self.strange, max_tokens)

    def loss(self, model: Any, items: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        places = list(items)
        with torch.no_grad():
            mixed = pack([self.strange[place] for place in places], model.device)
            drift = log_probabilities(target_logits(model, mixed), mixed) - self._strange_reference[places]
            moved = drift.mean().clamp(min=0)
        batch = pack([self.rows[place] for place in places], model.device)
        gained = log_probabilities(target_logits(model, batch), batch) - self._reference[places]
        wanted = torch.tensor([place < len(self.wanted) for place in places], device=gained.device)
        sign = torch.where(wanted, 1.0, -1.0)
        lost = self.weights(wanted) * (1 - torch.sigmoid(self.beta * sign * (gained - moved)))
        return lost.sum(), batch.tokens + mixed.tokens

    def weights(self, wanted: torch.Tensor) -> torch.Tensor:
        """1 for the kind that is more frequent, as much more for the other as it is rarer."""
        up, down = len(self.wanted), len(self.rejected)
        return torch.where(wanted, max(1.0, down / up), max(1.0, up / down))
