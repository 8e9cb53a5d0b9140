"""What a training tells while it runs, when it stops, and which of its weights are kept."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from retrain_jobs.recipes.pace import Pace
from retrain_jobs.recipes.packed import Tokens
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
    computed: int = 0
    best_step: int = 0
    stop_reason: str = "epochs"
    pace: tuple[float, ...] = ()

    @property
    def best_loss(self) -> float:
        """The held-out loss of the weights that were kept."""
        return dict(self.heldout)[self.best_step]

    def state(self) -> dict[str, Any]:
        """All of it; `Curve(**state)` is the same."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """As JSON; at most 200 points of the training loss."""
        thin = max(1, len(self.train) // 200)
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "tokens_per_s": round(self.tokens / self.seconds) if self.seconds else 0,
            "padding_ratio": round(1.0 - self.tokens / self.computed, 4) if self.computed else 0.0,
            "best_step": self.best_step,
            "stop_reason": self.stop_reason,
            "train_loss": [[step, round(loss, 4)] for step, loss in self.train[::thin]],
            "heldout_loss": [[step, round(loss, 4)] for step, loss in self.heldout],
            "heldout_exact": [[step, round(share, 4)] for step, share in self.heldout_right],
        }

    def drawn(self) -> dict[str, Any]:
        """Both losses in few points, for whoever looks on."""
        return {"train": thinned(self.train), "heldout": thinned(self.heldout)}


def thinned(points: Sequence[tuple[int, float]], most: int = 60) -> list[tuple[int, float]]:
    """At most `most` points: each the mean of its neighbours, at the last one's step."""
    size = -(-len(points) // most) or 1
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], round(math.fsum(loss for _, loss in part) / len(part), 4)) for part in parts]


class Watch:
    """Keeps the best weights in memory, stops early or on time, and tells how it goes.

    Attributes:
        best: the weights of the best evaluation as one vector; None before the first.
        over: no further step is to be made.
    """

    def __init__(self, curve: Curve, pace: Pace, knobs: RetrainSettings, on_step: OnStep, steps: int) -> None:
        self.best: torch.Tensor | None = None
        self.over = False
        self.curve = curve
        self._pace = pace
        self._knobs = knobs
        self._on_step = on_step
        self._steps = steps
        self._peak = self._best_found = (-1.0, -math.inf)
        self._worse = 0

    def stepped(self, loss: float, tokens: Tokens) -> None:
        """A step is done.

        Raises Conflict when its loss is not finite, and what `on_step` raises.
        """
        curve = self.curve
        curve.steps += 1
        curve.tokens += tokens.used
        curve.computed += tokens.computed
        curve.seconds = time.monotonic() - self._pace.started
        if not -1e9 < loss < 1e9:
            raise Conflict(
                f"Training diverged: the loss is {loss} at step {curve.steps}; lower retrain.learning_rate.",
                code="diverged",
            )
        curve.train.append((curve.steps, loss))
        if curve.steps >= self._steps:
            self.over = True
        elif self._pace.is_over(curve.steps, curve.seconds):
            curve.stop_reason = "max_seconds"
            self.over = True
        share = max(curve.steps / self._steps, curve.seconds / self._knobs.max_seconds)
        detail: dict[str, Any] = {
            "step": curve.steps, "steps": self._steps, "eta_s": round(curve.seconds / share - curve.seconds, 1),
            "loss": round(loss, 4), "tokens_per_s": round(curve.tokens / curve.seconds),
            "tokens": curve.tokens, "computed": curve.computed, "curve": curve.drawn(),
        }  # fmt: skip
        if curve.heldout:
            detail["heldout_loss"] = round(curve.heldout[-1][1], 4)
            detail["heldout_exact"] = round(curve.heldout_right[-1][1], 4)
        self._on_step(share, detail)

    def evaluated(self, loss: float, right: float, weights: torch.Tensor) -> None:
        """The held-out rows were judged: their mean loss, and the share (0..1) whose greedy reply is the target."""
        curve = self.curve
        curve.heldout.append((curve.steps, loss))
        curve.heldout_right.append((curve.steps, right))
        log.info("step %d of %d: held-out loss %.4f, exact %.1f%%", curve.steps, self._steps, loss, 100 * right)
        found = (right, -loss)
        self._worse = 0 if any(new > old for new, old in zip(found, self._peak, strict=True)) else self._worse + 1
        self._peak = (max(found[0], self._peak[0]), max(found[1], self._peak[1]))
        if found > self._best_found:
            self._best_found = found
            curve.best_step = curve.steps
            self.best = weights.detach().clone() if self.best is None else self.best.copy_(weights.detach())
        if self._worse >= self._knobs.patience and not self.over:
            curve.stop_reason = "no_improvement"
            self.over = True

    def state(self) -> dict[str, Any]:
        """For `load`."""
        return {
            "best": self.best, "over": self.over, "peak": self._peak, "found": self._best_found, "worse": self._worse,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        self.best, self.over, self._worse = state["best"], state["over"], state["worse"]
        self._peak, self._best_found = tuple(state["peak"]), tuple(state["found"])
