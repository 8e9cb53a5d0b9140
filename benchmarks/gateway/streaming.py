"""Streams over the stub engine: CPU time a chunk, and the delay that a gateway adds between chunks.

Paced: 256 streams of 50 chunks a second, begun evenly over a second, so that their chunks do not come in step and each
is a read and a write of its own. Saturated: 32 connections ask for 256 chunks at once, again and again; chunks that
have piled up in a socket are then read together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from benchmarks.gateway.arms import HttpArm
from benchmarks.gateway.plan import Plan, turns
from benchmarks.gateway.stub import set_pace
from benchmarks.gateway.table import OURS, Bound, Part, Row
from benchmarks.gateway.unary import MANY
from benchmarks.load import Streams, quantile, run_load

STREAMS, PER_S = 256, 50.0
LONG = 256
"""Chunks of a saturated stream."""

CARRIES = 0.98
"""An arm carries the paced streams if this share of the chunks due comes."""

_OPEN_S, _SETTLE_S, _SPARE_S = 1.0, 0.5, 2.0
_QUIET_S = 60.0
"""Some go on reading from the engine after their client has left."""


@dataclass(frozen=True, slots=True)
class Paced:
    """One arm in one round. `delivered` is the share of the chunks due that came."""

    gap_p99_ms: float
    cpu_us: float
    delivered: float
    opened: int


@dataclass(frozen=True, slots=True)
class Saturated:
    """One arm in one round."""

    chunks_per_s: float
    cpu_us: float
    failed: int


async def measure_streaming(arms: Sequence[HttpArm], engine: str, plan: Plan) -> Part:
    """The first arm is the engine itself. An arm that does not carry the paced streams is not asked again."""
    paced: dict[str, list[Paced]] = {arm.name: [] for arm in arms}
    saturated: dict[str, list[Saturated]] = {arm.name: [] for arm in arms}
    await set_pace(engine, tokens=round(PER_S * (_OPEN_S + _SETTLE_S + plan.seconds + _SPARE_S)), gap_ms=1e3 / PER_S)
    for arm in turns(arms, plan.rounds):
        if all(sample.delivered >= CARRIES / 2 for sample in paced[arm.name]):
            paced[arm.name].append(await _paced(arm, plan.seconds))
    await set_pace(engine, tokens=LONG)
    for arm in turns(arms, plan.rounds):
        saturated[arm.name].append(await _saturated(arm, plan.seconds))
    await set_pace(engine)
    direct = arms[0].name
    return Part([*paced_rows(paced, direct), *saturated_rows(saturated, direct)], notes(paced, saturated))


async def _paced(arm: HttpArm, seconds: float) -> Paced:
    streams = Streams()
    try:
        opened = await streams.open(arm.url, arm.body, streams=STREAMS, over_s=_OPEN_S, key=arm.key)
        await asyncio.sleep(_SETTLE_S)
        streams.gaps.clear()
        started, before = perf_counter(), _cpu_s(arm)
        await asyncio.sleep(seconds)
        elapsed_s, used_s = perf_counter() - started, _cpu_s(arm) - before
        gaps = sorted(streams.gaps)
    finally:
        streams.close()
        await _quiet(arm)
    if not gaps:
        return Paced(float("inf"), float("inf"), 0.0, opened)
    due = STREAMS * PER_S * elapsed_s
    return Paced(quantile(gaps, 0.99) * 1e3, used_s / len(gaps) * 1e6, len(gaps) / due, opened)


async def _saturated(arm: HttpArm, seconds: float) -> Saturated:
    before = _cpu_s(arm)
    load = await run_load(arm.url, {**arm.body, "stream": True}, connections=MANY, seconds=seconds, key=arm.key)
    await _quiet(arm)
    chunks = len(load.latencies) * LONG
    return Saturated(chunks / load.elapsed_s, (_cpu_s(arm) - before) / chunks * 1e6, load.failed)


def _cpu_s(arm: HttpArm) -> float:
    return arm.process.cpu_s() if arm.process is not None else 0.0


async def _quiet(arm: HttpArm) -> None:
    if arm.process is not None:
        await arm.process.quiet(_QUIET_S)


def paced_rows(samples: Mapping[str, Sequence[Paced]], direct: str) -> list[Row]:
    """Medians over rounds; a round's added gap is against the direct one of the same round."""
    what = f"{STREAMS} streams of {PER_S:.0f} chunks/s"
    cpu: dict[str, float | str] = {}
    gap: dict[str, float | str] = {}
    for name, found in samples.items():
        if name in {direct, OURS}:
            continue
        share = median(s.delivered for s in found)
        cpu[name] = median(s.cpu_us for s in found)
        gap[name] = _added_ms(found, samples[direct]) if share >= CARRIES else f"{share:.0%} of the chunks came"
    ours = samples[OURS]
    return [
        Row(f"{what}: added gap p99", "ms", _added_ms(ours, samples[direct]), Bound(1.0), gap),
        Row(f"{what}: CPU a chunk", "µs", median(s.cpu_us for s in ours), Bound(12), cpu),
    ]


def saturated_rows(samples: Mapping[str, Sequence[Saturated]], direct: str) -> list[Row]:
    what = f"streams at saturation, {MANY} connections"
    rate = {name: median(s.chunks_per_s for s in found) for name, found in samples.items()}
    cpu = {name: median(s.cpu_us for s in found) for name, found in samples.items() if name != direct}
    return [
        Row(f"{what}: chunks", "/s", rate.pop(OURS), None, rate),
        Row(f"{what}: CPU a chunk", "µs", cpu.pop(OURS), Bound(12), cpu),
    ]


def notes(paced: Mapping[str, Sequence[Paced]], saturated: Mapping[str, Sequence[Saturated]]) -> list[str]:
    """Who could not carry the streams: its other figures are of the share that came."""
    told = []
    for name, found in paced.items():
        share, opened = median(s.delivered for s in found), min(s.opened for s in found)
        if share < CARRIES or opened < STREAMS:
            told.append(f"{name}: {opened} of {STREAMS} streams began in time, {share:.0%} of the chunks due came")
    told += [
        f"{name}: {sum(s.failed for s in found)} streams failed" for name, found in saturated.items() if _failed(found)
    ]
    gap = median(s.gap_p99_ms for s in next(iter(paced.values())))
    return [*told, f"{STREAMS} streams, gap p99 without a gateway: {gap:.1f} ms"]


def _added_ms(found: Sequence[Paced], direct: Sequence[Paced]) -> float:
    return median(s.gap_p99_ms - d.gap_p99_ms for s, d in zip(found, direct, strict=False))


def _failed(found: Sequence[Saturated]) -> bool:
    return any(sample.failed for sample in found)
