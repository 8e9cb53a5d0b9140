"""What a training tells while it runs, when it stops, and which of its weights are kept."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from retrain_jobs.recipes.pace import Pace
from service.core.errors import Conflict
from service.settings import RetrainSettings

log = logging.getLogger(__name__)

OnStep = Callable[[float, Mapping[str, Any]], None]
"""Told the share done (0..1) and what a person wants to see; what it raises ends the training."""


@dataclass(slots=True)
class Curve:
    """How the training went; losses are nats a target token, by step.

    `pace` is each step's share of the learning rate where the clock had a say in it: a repetition needs it.
    """

    train: list[tuple[int, float]] = field(default_factory=list)
    heldout: list[tuple[int, float]] = field(default_factory=list)
    heldout_right: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best_step: int = 0
    stop_reason: str = "epochs"
    pace: tuple[float, ...] = ()
    _rows: int = 0
    _right: int = 0

    def judged(self, *, rows: int, right: int) -> None:
        """Count a batch of an evaluation: a row is right when the likeliest token is the target's at every place, which
        is when a greedy reply would be the target."""
        self._rows += rows
        self._right += right

    def evaluated(self, step: int, loss: float) -> tuple[float, float]:
        """End an evaluation; the share of right rows, and the loss negated: of two, the greater is better."""
        share = self._right / max(1, self._rows)
        self._rows = self._right = 0
        self.heldout.append((step, loss))
        self.heldout_right.append((step, share))
        return share, -loss

    def summary(self) -> dict[str, Any]:
        """As JSON; at most 200 points of the training loss."""
        thin = max(1, len(self.train) // 200)
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "tokens_per_s": round(self.tokens / self.seconds) if self.seconds else 0,
            "best_step": self.best_step,
            "stop_reason": self.stop_reason,
            "train_loss": [[step, round(loss, 4)] for step, loss in self.train[::thin]],
            "heldout_loss": [[step, round(loss, 4)] for step, loss in self.heldout],
            "heldout_exact": [[step, round(share, 4)] for step, share in self.heldout_right],
        }


class Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the best weights in memory, stops early or on time, and tells how it goes."""

    def __init__(self, curve: Curve, pace: Pace, knobs: RetrainSettings, on_step: OnStep) -> None:
        self._curve = curve
        self._pace = pace
        self._knobs = knobs
        self._on_step = on_step
        self._peak = self._best_found = (-1.0, -math.inf)
        self._best: dict[str, torch.Tensor] = {}
        self._worse = 0

    def restore(self, model: Any) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, weight in _trainable(model):
                if name in self._best:
                    weight.copy_(self._best[name])

    def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
        curve = self._curve
        curve.steps, curve.seconds = state.global_step, time.monotonic() - self._pace.started
        if self._pace.is_over(curve.steps, curve.seconds) and not control.should_training_stop:
            curve.stop_reason = "max_seconds"
            control.should_training_stop = True
            control.should_evaluate = True
        share = max(state.global_step / max(1, state.max_steps), curve.seconds / self._knobs.max_seconds)
        left = curve.seconds / share - curve.seconds if share else 0.0
        detail: dict[str, Any] = {"step": state.global_step, "steps": state.max_steps, "eta_s": round(left, 1)}
        if curve.train:
            detail["loss"] = round(curve.train[-1][1], 4)
            detail["tokens_per_s"] = round(curve.tokens / curve.seconds)
        if curve.heldout:
            detail["heldout_loss"] = round(curve.heldout[-1][1], 4)
            detail["heldout_exact"] = round(curve.heldout_right[-1][1], 4)
        self._on_step(share, detail)

    def on_log(self, arguments: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not -1e9 < loss < 1e9:
            raise Conflict(
                f"Training diverged: the loss is {loss} at step {state.global_step}; lower retrain.learning_rate.",
                code="diverged",
            )
        self._curve.train.append((state.global_step, loss))

    def on_evaluate(
        self, arguments: Any, state: Any, control: Any, metrics: Mapping[str, Any], model: Any, **_: Any
    ) -> None:
        step, loss = state.global_step, float(metrics["eval_loss"])
        found = self._curve.evaluated(step, loss)
        log.info("step %d of %d: held-out loss %.4f, exact %.1f%%", step, state.max_steps, loss, 100 * found[0])
        self._worse = 0 if any(new > old for new, old in zip(found, self._peak, strict=True)) else self._worse + 1
        self._peak = (max(found[0], self._peak[0]), max(found[1], self._peak[1]))
        if found > self._best_found:
            self._best_found = found
            self._curve.best_step = step
            self._best = {name: weight.detach().clone() for name, weight in _trainable(model)}
        if self._worse >= self._knobs.patience and not control.should_training_stop:
            self._curve.stop_reason = "no_improvement"
            control.should_training_stop = True


def _trainable(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
