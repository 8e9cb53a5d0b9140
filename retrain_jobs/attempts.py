"""Where a training begins: with fresh weights, with the champion's, or both are tried and the better one is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain_jobs.base import Base
from retrain_jobs.recipes.sft_lora import opened
from retrain_jobs.recipes.watch import Curve
from service.settings import WarmStart

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A training that is over; its adapter lies in `folder`."""

    start: WarmStart
    model: Any
    curve: Curve
    folder: Path


Train = Callable[[WarmStart, float], Attempt]
"""Trains from a start within so many seconds."""


def starts(wanted: WarmStart, champion: str | None) -> Sequence[WarmStart]:
    """What to begin from, one after another. Over the base model there is only a fresh start."""
    if champion is None:
        return (WarmStart.FRESH,)
    return (WarmStart.CHAMPION, WarmStart.FRESH) if wanted is WarmStart.BOTH else (wanted,)


def best_of(
    order: Sequence[WarmStart], train: Train, base: Base, max_seconds: float
) -> tuple[Attempt, Mapping[str, Any]]:
    """The attempt with the lowest held-out loss, its adapter over the base model; and each one's loss, for the record.

    A further start is tried where at least as much time is left as those before it took.
    """
    found: list[Attempt] = []
    spent = 0.0
    for start in order:
        if found and max_seconds - spent < spent:
            log.info("no time for a %s start: %.1f of %.1f s are spent", start, spent, max_seconds)
            break
        if found:
            found[-1].model.unload()
        found.append(train(start, max_seconds - spent))
        spent += found[-1].curve.seconds
    best = min(found, key=lambda attempt: attempt.curve.best_loss)
    if best is not found[-1]:
        found[-1].model.unload()
        best = Attempt(best.start, opened(base, best.folder).eval(), best.curve, best.folder)
    losses = {str(attempt.start): round(attempt.curve.best_loss, 6) for attempt in found}
    return best, {"taken": str(best.start), "heldout_loss": losses}
