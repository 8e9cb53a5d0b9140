"""Direct preference optimization: the reply that a person wrote in place of the one that was given gains on it.

Rafailov et al., 2023; with the preferred reply's own loss beside it (Pang et al., 2024), without which both replies may
become unlikely together. The reference is the model as training begins: the base, or the champion with a warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch.nn.functional import logsigmoid

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes import sft_lora
from retrain_jobs.recipes.beginnings import sharing
from retrain_jobs.recipes.objective import reference
from retrain_jobs.recipes.packed import Tokens, log_probabilities, pack, target_logits


class Config(sft_lora.Config):
    """`configs/dpo_lora.yaml`."""

    beta: float = Field(gt=0)
    sft_weight: float = Field(ge=0)
    rate_ratio: float = Field(gt=0)


@dataclass(slots=True)
class Pairs:
    """Of each pair the first row is preferred to the second; both have the same prompt."""

    pairs: Sequence[tuple[Encoded, Encoded]]
    beta: float
    sft_weight: float
    rate_ratio: float
    rows: Sequence[Encoded] = field(init=False)
    lengths: Sequence[int] = field(init=False)
    _reference: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.rows = sharing([row for pair in self.pairs for row in pair])
        self.lengths = [self.rows[at].own + self.rows[at + 1].own for at in range(0, len(self.rows), 2)]

    def begin(self, model: Any, max_tokens: int) -> None:
        self._reference = reference(model, self.rows, max_tokens).view(-1, 2)

    def loss(self, model: Any, items: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        batch = pack([self.rows[2 * item + which] for item in items for which in range(2)], model.device)
        found = log_probabilities(target_logits(model, batch), batch).view(-1, 2)
        gained = found - self._reference[list(items)]
        lost = -logsigmoid(self.beta * (gained[:, 0] - gained[:, 1]))
        if self.sft_weight:
            tokens = found.new_tensor([len(self.pairs[item][0].target) for item in items])
            lost = lost - self.sft_weight * found[:, 0] / tokens
        return lost.sum(), batch.tokens
