"""What one seed of each row does; figures only, so that seeds run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.drift.streams import World, measured
from service.core.records import Capture, Labelled
from service.monitor.embedders import Vectors
from service.monitor.estimate import estimate_quality
from service.monitor.features import Features
from service.monitor.stream import Stream

CLEAN = 10_000

LONGEST = 6000
SHARES = (0.5, 0.2, 0.05)
CHANGED = 0.3
_STEP = 32
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Where:
    """A pool by its name, where pools are kept, and how many clean requests lie between the reference and the drift."""

    name: str
    cache: Path
    data: Path
    settled: int

    def world(self, seed: int, *, coverage: float = 0.1) -> World:
        return World(measured(self.cache, self.data)[self.name], seed, coverage=coverage)


def false_alarms(where: Where, seed: int) -> tuple[int, int]:
    """How often an alarm began, and how many clean requests came outside alarms."""
    world, began, watched = where.world(seed), 0, 0
    for _ in range(0, CLEAN, _STEP):
        before = world.alarm
        world.step(_STEP)
        began += world.alarm and not before
        watched += 0 if world.alarm else _STEP
    return began, watched


def delays(where: Where, seed: int) -> dict[float, int]:
    """Requests from the drift to its alarm, by the share that is novel; those that had an alarm before are left out."""
    found = {}
    for share in SHARES:
        world = where.world(seed)
        world.step(where.settled)
        if not world.alarm:
            found[share] = _until_alarm(world, 1 if share > 0.1 else 16, share=share)
    return found


def label_delay(where: Where, seed: int, coverage: float) -> float | None:
    """Labels until an alarm when the right answers to `CHANGED` of the requests change; None with an alarm before."""
    world = where.world(seed, coverage=coverage)
    world.stream.requests = None
    world.step(where.settled)
    return None if world.alarm else coverage * _until_alarm(world, 8, wrong=CHANGED)


def _until_alarm(world: World, step: int, *, share: float = 0.0, wrong: float = 0.0) -> int:
    for past in range(0, LONGEST, step):
        world.step(step, share, wrong=wrong)
        if world.alarm:
            return past + (step + 1) // 2
    return LONGEST


def accuracy(where: Where, seed: int, share: float) -> tuple[float, float, Sequence[float], Sequence[float], Features]:
    """Estimated and true mean score of a window without labels; then the reference's and the window's confidences, and
    the reference, for peers."""
    world = where.world(seed, coverage=1.0)
    rng, pool = world.rng, world.pool
    n = round(share * _WINDOW)
    known = pool.known.chosen(rng.integers(0, len(pool.known), _WINDOW - n))
    novel = pool.novel.chosen(rng.integers(0, len(pool.novel), n))
    window = Features(
        (*known.features.prompts, *novel.features.prompts),
        (*known.features.replies, *novel.features.replies),
        {
            name: np.concatenate([column, novel.features.columns[name]])
            for name, column in known.features.columns.items()
        },
        np.full(_WINDOW, np.nan),
    )
    truth = float(np.concatenate([known.features.scores, novel.features.scores]).mean())
    beyond = _beyond(world.stream, window, np.vstack([known.vectors, novel.vectors]))
    quality = estimate_quality(world.reference.features, window, least=20, beyond=beyond)
    told = world.reference.features.columns["confidence"].tolist()
    seen = window.columns["confidence"].tolist()
    return (quality.current if quality else float("nan")), truth, told, seen, world.reference.features


def _beyond(stream: Stream, window: Features, vectors: Vectors) -> bool:
    rows = [
        Labelled(Capture(f"w{i}", float(i), "", "", "", [], "", 200, 0.0), None) for i in range(len(window))
    ]  # fmt: skip
    stream.take(rows, window, vectors)
    return stream.beyond(len(rows))
