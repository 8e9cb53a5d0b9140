"""From drift's onset to recovered quality on the demo's stage, at a given rate of requests: Trimtab's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loop.tail import Tail, tails
from demo.base_model import ensure_base_model
from demo.desk import golden_set, support_desk
from demo.player import Answered, Player, between, quality
from demo.stage import ALIAS, running, write_stage
from demo.story import Plot, Progress, Stage, tell

SEED = 7
FEEDBACK_RATIO = 0.9
MAX_TOKENS = 48
NOVEL_RATIO = 0.5
CALM = 400
JUDGED = 200
"""Requests over which served quality is judged; a request that fails counts as wrong."""

ENOUGH = 0.95
"""Of the quality before the drift."""

TRAINING_S, PATIENCE_S = 70.0, 300.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds and requests from the onset to the end of each stage; None: not reached within the time.

    `tails`: clients' latency while nothing else ran ("idle"), and in the stages named.
    """

    seconds: dict[str, float]
    requests: dict[str, int]
    recovered_s: float | None
    recovered_requests: int | None
    before: float
    trough: float
    sent: int
    failed: int
    tails: dict[str, Tail]


def served_quality(answered: Sequence[Answered]) -> float:
    return sum(one.right for one in answered) / len(answered)


def recovered_at(answered: Sequence[Answered], onset: float, before: float) -> tuple[float, int] | None:
    """When, and after how many requests since the onset, `JUDGED` requests in a row since then were good enough.

    Times are of the monotonic clock.
    """
    since = sorted((one for one in answered if one.sent_at >= onset), key=lambda one: one.sent_at)
    right = np.cumsum([0, *(one.right for one in since)])
    for end in range(JUDGED, len(since) + 1):
        if right[end] - right[end - JUDGED] >= ENOUGH * before * JUDGED:
            return max(one.sent_at + one.duration_s for one in since[end - JUDGED : end]), end
    return None


def worst_window(answered: Sequence[Answered]) -> float:
    return min(served_quality(answered[i : i + JUDGED]) for i in range(max(1, len(answered) - JUDGED + 1)))


RECOVER: Mapping[str, Any] = {"retrain": {"max_seconds": TRAINING_S}}
LATENCY: Mapping[str, Any] = {
    "retrain": {"max_seconds": 150.0, "epochs": 100},
    "promotion": {"min_pairs": 1000},
}
"""A training and a shadow that last for long enough to say what a 99th percentile is."""


async def play_trimtab(
    folder: Path, rate: float, port: int, sizes: Mapping[str, Any] = RECOVER, *, idle: int = CALM
) -> Recovery:
    """The demo's story at `rate` requests a second, with `sizes` over the demo's own settings, after `idle` requests
    while nothing else runs.

    Raises:
        StoryFailed: a stage did not end within `PATIENCE_S`.
    """
    model = await asyncio.to_thread(ensure_base_model)
    config = write_stage(folder, model, golden_set(SEED), port=port, sizes=sizes)
    url = f"http://127.0.0.1:{port}"
    # Longer than the reference takes: the first requests after a start are slow, and no measure of idle.
    plot = Plot(ALIAS, 300 + idle, 100, judged=CALM, novel_ratio=NOVEL_RATIO, patience_s=PATIENCE_S)
    async with running(config, url):
        player = Player(
            url, ALIAS, support_desk, rate=rate, feedback_ratio=FEEDBACK_RATIO, max_tokens=MAX_TOKENS, seed=SEED
        )
        stop, progress = asyncio.Event(), Progress()
        playing = asyncio.create_task(player.play(stop))
        try:
            await tell(plot, player, url, progress)
        finally:
            stop.set()
            await playing
    return _told(player.answered, progress, idle / rate)


def _told(answered: Sequence[Answered], progress: Progress, idle_s: float) -> Recovery:
    onset = progress.onset_at
    assert onset is not None
    calm = [one for one in answered if one.sent_at < onset]
    before = quality(calm[-CALM:])
    found = recovered_at(answered, onset, before)
    ended = progress.ended
    drifted = between(answered, onset, ended[Stage.SWAP])
    spans = {
        "idle": between(answered, onset - idle_s, onset),
        "training": between(answered, ended[Stage.GATHER], ended[Stage.TRAIN]),
        "evaluation": between(answered, ended[Stage.TRAIN], ended[Stage.EVALUATE]),
        "shadow": between(answered, ended[Stage.EVALUATE], ended[Stage.SHADOW]),
        "watch": between(answered, ended[Stage.SWAP], ended[Stage.RECOVER]),
    }
    since = {stage: end for stage, end in ended.items() if stage not in (Stage.CALM, Stage.RECOVER)}
    return Recovery(
        seconds={str(stage): end - onset for stage, end in since.items()},
        requests={str(stage): len(between(answered, onset, end)) for stage, end in since.items()},
        recovered_s=found[0] - onset if found else None,
        recovered_requests=found[1] if found else None,
        before=before,
        trough=worst_window(drifted),
        sent=len(answered),
        failed=sum(bool(one.error) for one in answered),
        tails=tails({name: [(one.sent_at, one.duration_s) for one in span] for name, span in spans.items() if span}),
    )
