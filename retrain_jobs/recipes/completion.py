"""TRL's trainer, with the work left out that completion-only rows do not need."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import SFTTrainer

from retrain_jobs.encode import IGNORED
from retrain_jobs.recipes.pace import Pace
from retrain_jobs.recipes.watch import Curve


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads on the left, so that all targets end at the same place and only their columns need logits.

    `labels` comes out as batch x longest target; the others as batch x longest row.
    """

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        longest = max(sum(label != IGNORED for label in row["labels"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), longest), IGNORED)
        for i, row in enumerate(rows):
            start = width - len(row["input_ids"])
            ids[i, start:] = torch.tensor(row["input_ids"])
            mask[i, start:] = 1
            ending = torch.tensor(row["labels"][-longest:])
            labels[i, longest - len(ending) :] = ending
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            "labels": labels,
        }


class CompletionTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the head computed for targets alone: its own computes every position on a CPU, a quarter of
    a small model's step."""

    def __init__(self, *, pace: Pace, curve: Curve, **arguments: Any) -> None:
        self._pace = pace
        self._curve = curve
        super().__init__(**arguments)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        pace = self._pace
        pace.started = time.monotonic()
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer if optimizer is None else optimizer,
            lambda step: pace.share(step, num_training_steps, time.monotonic() - pace.started),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"]
        out = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"], logits_to_keep=labels.shape[1] + 1, use_cache=False,
        )  # fmt: skip
        losses = torch.nn.functional.cross_entropy(
            out.logits[:, :-1].transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none"
        )
        loss = (losses.sum(1) / (labels != IGNORED).sum(1)).mean()
        if self.model.training:
            self._curve.tokens += int(inputs["attention_mask"].sum())
        else:
            right = (out.logits[:, :-1].argmax(-1) == labels) | (labels == IGNORED)
            self._curve.judged(rows=len(labels), right=int(right.all(1).sum()))
        return (loss, out) if return_outputs else loss
