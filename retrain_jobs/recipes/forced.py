"""What a model makes of targets that are put into its mouth (teacher forcing): one pass, and nothing is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.beginnings import sharing
from retrain_jobs.recipes.order import within
from retrain_jobs.recipes.packed import log_probabilities, pack, target_logits

MAX_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Forced:
    """`loss` is the target's negative log-probability, summed over its tokens (nats). `said`: each of its tokens is the
    likeliest at its place, so that a greedy reply begins with it."""

    loss: float
    said: bool


@torch.inference_mode()
def forced(
    model: Any,
    rows: Sequence[Encoded],
    max_tokens: int = MAX_TOKENS,
    on_part: Callable[[int], None] = lambda done: None,
) -> list[Forced]:
    """Each row's, in the rows' order. The model must take packed batches (`packing`).

    Args:
        max_tokens: computed at once, beside what rows share.
        on_part: told after each part how many rows are done; what it raises ends the work.
    """
    model.eval()
    rows = sharing(rows)
    lengths = [row.own for row in rows]
    found: dict[int, Forced] = {}
    for part in within(sorted(range(len(rows)), key=lambda row: lengths[row]), lengths, max_tokens):
        batch = pack([rows[row] for row in part], model.device)
        logits = target_logits(model, batch)
        losses = (-log_probabilities(logits, batch)).tolist()
        wrong = (logits.argmax(-1) != batch.targets).long()
        missed = torch.zeros(batch.rows, dtype=torch.long, device=wrong.device).index_add(0, batch.row_of, wrong)
        found |= {row: Forced(loss, count == 0) for row, loss, count in zip(part, losses, missed.tolist(), strict=True)}
        on_part(len(found))
    return [found[row] for row in range(len(rows))]
