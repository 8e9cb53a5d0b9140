"""The steps of a training on packed rows: one readable loop in place of a trainer's thousand lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from retrain_jobs import heap
from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.checkpoint import Checkpoint
from retrain_jobs.recipes.flat import FlatAdamW
from retrain_jobs.recipes.forced import forced
from retrain_jobs.recipes.objective import Objective
from retrain_jobs.recipes.order import batches
from retrain_jobs.recipes.pace import Pace
from retrain_jobs.recipes.together import crew
from retrain_jobs.recipes.watch import Curve, Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. `max_tokens` are computed at once, beside what rows share: a larger batch is added up
    from parts.

    `draw` tells an epoch's rows, as many as there are; None: every row once.
    """

    seed: int
    batch_size: int
    steps: int
    evaluate_every: int
    learning_rate: float
    max_tokens: int
    draw: Callable[[int], Sequence[int]] | None = None


def run(
    model: Any, optimizer: FlatAdamW, goal: Objective, heldout: Sequence[Encoded], plan: Plan, pace: Pace,
    watch: Watch, checkpoint: Checkpoint | None,
) -> None:  # fmt: skip
    """Train until `watch` says that it is over; then the model has its best weights.

    A step follows from the seed and its number, so a training that goes on from its checkpoint is the one that was
    never cut off. Of several processes this one leads.
    """
    with crew(model, optimizer, goal, seed=plan.seed, max_tokens=plan.max_tokens) as compute:
        _begin(optimizer, pace, watch, checkpoint)
        lengths = goal.lengths
        curve = watch.curve
        for number, batch in enumerate(() if watch.over else _upcoming(lengths, plan, curve.steps)):
            rate = plan.learning_rate * pace.share(curve.steps, plan.steps, time.monotonic() - pace.started)
            loss, tokens = compute(curve.steps, batch)
            optimizer.step(rate)
            watch.stepped(loss.item(), tokens)
            if number == 0:  # what its computing made and keeps is there now
                heap.reuse_large()
            if watch.over or curve.steps % plan.evaluate_every == 0:
                with optimizer.averaged():
                    found = judge(model, heldout, plan.max_tokens)
                watch.evaluated(*found, optimizer.average)
            if checkpoint is not None:
                checkpoint.keep(lambda: _state(optimizer, pace, watch), last=watch.over)
            if watch.over:
                break
    if watch.best is not None:
        optimizer.put(watch.best)


def judge(model: Any, rows: Sequence[Encoded], max_tokens: int) -> tuple[float, float]:
    """The rows' mean loss, and the share of them whose greedy reply would be the target."""
    found = forced(model, rows, max_tokens)
    mean = math.fsum(one.loss / len(row.target) for one, row in zip(found, rows, strict=True)) / len(rows)
    return mean, sum(one.said for one in found) / len(rows)


def _upcoming(lengths: Sequence[int], plan: Plan, done: int) -> Iterator[list[int]]:
    """The batches that are left after `done` steps."""
    per_epoch = -(-len(lengths) // plan.batch_size)
    epoch = done // per_epoch
    skip = done % per_epoch
    while done < plan.steps:
        rows = plan.draw(epoch) if plan.draw is not None else None
        for batch in batches(lengths, plan.batch_size, seed=plan.seed, epoch=epoch, rows=rows)[skip:]:
            yield batch
            done += 1
            if done >= plan.steps:
                return
        epoch, skip = epoch + 1, 0


def _begin(optimizer: FlatAdamW, pace: Pace, watch: Watch, checkpoint: Checkpoint | None) -> None:
    state = checkpoint.read() if checkpoint is not None else None
    pace.started = time.monotonic()
    if state is None:
        return
    optimizer.load(state["optimizer"])
    watch.curve = Curve(**state["curve"])
    watch.load(state["watch"])
    pace.started -= watch.curve.seconds
    log.info("training goes on at step %d", watch.curve.steps)
    pace.shares, pace.timed = dict(state["shares"]), state["timed"]


def _state(optimizer: FlatAdamW, pace: Pace, watch: Watch) -> dict[str, Any]:
    return {
        "optimizer": optimizer.state(),
        "curve": watch.curve.state(),
        "watch": watch.state(),
        "shares": dict(pace.shares),
        "timed": pace.timed,
    }
