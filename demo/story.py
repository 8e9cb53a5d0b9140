"""The demo's plot, from calm to recovery; each stage waits for what the service really did."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from demo.player import Answered, Player, between, quality
from service.core.errors import TrimtabError

POLL_S = 1.0


class Stage(StrEnum):
    """In order; each ends when the service has done what its name says."""

    CALM = "calm"
    DRIFT = "drift noticed"
    GATHER = "feedback gathered"
    TRAIN = "adapter trained"
    EVALUATE = "adapter evaluated"
    SHADOW = "proven in shadow"
    SWAP = "swapped in"
    RECOVER = "quality recovered"


ATTEMPTS = 3
"""Cycles that may be tried: a candidate that proves nothing is rejected, and the next one learns from more."""


class StoryFailed(TrimtabError):
    """A stage did not end in time, or ended otherwise than the story needs."""


class CycleLost(StoryFailed):
    """The cycle ended without a promotion."""


@dataclass(slots=True)
class Progress:
    """What the screen shows: stage ends (monotonic seconds), the newest verdict, cycle and alias."""

    started_at: float = field(default_factory=time.monotonic)
    ended: dict[Stage, float] = field(default_factory=dict)
    onset_at: float | None = None
    drift: dict[str, Any] = field(default_factory=dict)
    cycle: dict[str, Any] = field(default_factory=dict)
    alias: dict[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def lose_cycle(self) -> None:
        """Go back to waiting for the next cycle."""
        self.lost.append(self.cycle["id"])
        self.cycle = {}
        self.ended = {stage: end for stage, end in self.ended.items() if stage is Stage.CALM}

    @property
    def stage(self) -> Stage | None:
        return next((stage for stage in Stage if stage not in self.ended), None)


@dataclass(frozen=True, slots=True)
class Plot:
    """Sizes of the story. Quality is compared over windows of `judged` requests; each stage may take `patience_s`."""

    alias: str
    reference_size: int
    current_size: int
    judged: int
    novel_ratio: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the story measured. Qualities are 0..1, those before and after over `judged` requests each; stage times are
    in seconds and requests since the onset."""

    before: float
    trough: float
    after: float
    judged: int
    cycles: int
    seconds: dict[Stage, float]
    requests: dict[Stage, int]
    sent: int
    failed: int
    slowest_swap_s: float
    slowest_s: float
    errors: tuple[str, ...]

    @property
    def recovered(self) -> bool:
        """Not shown to be more than 5 points below the quality before the drift, and no client request failed."""
        return self.after + self.noise >= self.before - 0.05 and self.failed == 0

    @property
    def noise(self) -> float:
        """The half of a 95% interval of the difference between the qualities before and after, which are shares."""
        variance = sum(share * (1 - share) / self.judged for share in (self.before, self.after))
        return 1.96 * math.sqrt(variance)


async def tell(plot: Plot, player: Player, url: str, progress: Progress) -> Outcome:
    """Play the story to its end.

    Raises:
        StoryFailed: a stage took longer than `patience_s`, or the cycle failed.
    """
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10.0) as http:

        async def until(stage: Stage, reached: Callable[[], bool]) -> None:
            await _until(stage, reached, lambda: _look(http, plot.alias, progress), plot, progress)

        enough = plot.reference_size + plot.current_size
        await until(Stage.CALM, lambda: _served(player) >= enough and bool(progress.drift))
        onset = progress.onset_at = time.monotonic()
        player.novel_ratio = plot.novel_ratio
        while True:
            try:
                await _cycle(until, progress)
                break
            except CycleLost:
                progress.lose_cycle()
                if len(progress.lost) == ATTEMPTS:
                    raise
        swapped = progress.ended[Stage.SWAP]
        await until(
            Stage.RECOVER, lambda: len(between(player.answered, swapped + 1.0, time.monotonic())) >= plot.judged
        )
    return _outcome(plot, player.answered, progress, onset, swapped)


async def _cycle(until: Callable[[Stage, Callable[[], bool]], Awaitable[None]], progress: Progress) -> None:
    """Follow one cycle from the verdict to the swap."""

    def past(*states: str) -> Callable[[], bool]:
        return lambda: progress.cycle["state"] not in states

    await until(Stage.DRIFT, lambda: bool(progress.cycle))
    await until(Stage.GATHER, past("open"))
    await until(Stage.TRAIN, past("open", "training"))
    await until(Stage.EVALUATE, past("evaluating"))
    await until(Stage.SHADOW, past("shadowing"))
    await until(Stage.SWAP, lambda: progress.alias.get("champion") == progress.cycle["candidate"])


async def _until(
    stage: Stage, reached: Callable[[], bool], look: Callable[[], Awaitable[None]], plot: Plot, progress: Progress
) -> None:
    deadline = time.monotonic() + plot.patience_s
    while True:
        await look()
        state = progress.cycle.get("state")
        if state in {"failed", "rejected", "rolled_back"}:
            events = progress.cycle.get("events") or [{}]
            raise CycleLost(f"The cycle ended as {state} ({events[0].get('message', 'see /console')}).")
        if reached():
            progress.ended[stage] = time.monotonic()
            return
        if time.monotonic() > deadline:
            raise StoryFailed(f"'{stage}' did not happen within {plot.patience_s:.0f} s.")
        await asyncio.sleep(POLL_S)


async def _look(http: httpx.AsyncClient, alias: str, progress: Progress) -> None:
    checks = (await http.get("/api/v1/drift", params={"alias": alias, "limit": 1})).json()["data"]
    cycles = (await http.get("/api/v1/cycles", params={"alias": alias, "limit": 1})).json()["data"]
    aliases = (await http.get("/api/v1/aliases")).json()["data"]
    progress.alias = next(one for one in aliases if one["name"] == alias)
    if checks:
        progress.drift = checks[0]
    if cycles and cycles[0]["id"] not in progress.lost:
        progress.cycle = (await http.get(f"/api/v1/cycles/{cycles[0]['id']}")).json()


def _served(player: Player) -> int:
    return sum(not a.error for a in player.answered)


def _outcome(plot: Plot, answered: list[Answered], progress: Progress, onset: float, swapped: float) -> Outcome:
    now = time.monotonic()
    calm, drifted, after = (
        between(answered, 0.0, onset),
        between(answered, onset, swapped),
        between(answered, swapped + 1.0, now),
    )
    before = quality(calm[-plot.judged :])
    return Outcome(
        judged=plot.judged,
        before=before,
        trough=min(quality(w) for w in _windows(drifted, plot.judged // 2)),
        after=quality(after[-plot.judged :]),
        cycles=len(progress.lost) + 1,
        seconds={stage: end - onset for stage, end in progress.ended.items() if stage is not Stage.CALM},
        requests={
            stage: len(between(answered, onset, end))
            for stage, end in progress.ended.items()
            if stage is not Stage.CALM
        },
        sent=len(answered),
        failed=sum(bool(a.error) for a in answered),
        slowest_swap_s=max((a.duration_s for a in between(answered, swapped - 3.0, swapped + 3.0)), default=0.0),
        slowest_s=max((a.duration_s for a in answered), default=0.0),
        errors=tuple(sorted({a.error for a in answered if a.error}))[:5],
    )


def _windows(answered: list[Answered], size: int) -> list[list[Answered]]:
    """Consecutive windows of `size` requests (the last may be shorter if it is the only one)."""
    whole = [answered[i : i + size] for i in range(0, len(answered) - size + 1, size)]
    return whole or [answered]
