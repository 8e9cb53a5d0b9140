"""Unary requests over the stub engine: latency that is added, throughput, CPU time a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.gateway.arms import Arm
from benchmarks.gateway.peers.tensorzero import EMBEDDED
from benchmarks.gateway.plan import Plan, turns
from benchmarks.gateway.table import OURS, Bound, Part, Row

MANY = 32
_WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm in one round; milliseconds over one connection, requests a second and their CPU time over many."""

    p50_ms: float
    p99_ms: float
    rate: float
    cpu_us: float
    failed: int


async def measure_unary(arms: Sequence[Arm], plan: Plan) -> Part:
    """The first arm is the engine itself."""
    for arm in arms:
        await arm.load(MANY, _WARM_S)
        await _quiet(arm)
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in arms}
    for arm in turns(arms, plan.rounds):
        samples[arm.name].append(await _sample(arm, plan.seconds))
    failed = {name: sum(sample.failed for sample in found) for name, found in samples.items()}
    notes = [f"{name}: {count} unary requests failed" for name, count in failed.items() if count]
    return Part(rows(samples, arms[0].name), notes)


async def _sample(arm: Arm, seconds: float) -> Sample:
    one = await arm.load(1, seconds)
    await _quiet(arm)
    before = arm.process.cpu_s() if arm.process else 0.0
    many = await arm.load(MANY, seconds)
    await _quiet(arm)  # what a request leaves to do, such as the shipping of its capture, is part of its cost
    used = arm.process.cpu_s() - before if arm.process else 0.0
    return Sample(
        one.quantile(0.5) * 1e3,
        one.quantile(0.99) * 1e3,
        many.rate,
        used / len(many.latencies) * 1e6,
        one.failed + many.failed,
    )


async def _quiet(arm: Arm) -> None:
    if arm.process is not None:
        await arm.process.quiet()


def rows(samples: dict[str, list[Sample]], direct: str) -> list[Row]:
    """Medians over rounds; a round's added latency is against the direct one of the same round."""
    through = [name for name in samples if name != direct]
    pairs = {name: list(zip(samples[name], samples[direct], strict=True)) for name in through}
    p50 = {name: median(s.p50_ms - d.p50_ms for s, d in pairs[name]) for name in through}
    p99 = {name: median(s.p99_ms - d.p99_ms for s, d in pairs[name]) for name in through}
    rate = {name: median(s.rate for s in samples[name]) for name in samples}
    cpu = {name: median(s.cpu_us for s in samples[name]) for name in through}
    table = [
        _row("unary, 1 connection: added latency p50", "ms", p50, Bound(0.4)),
        _row("unary, 1 connection: added latency p99", "ms", p99, Bound(1.5)),
        _row("unary, 32 connections: requests", "/s", rate, Bound(3000, at_least=True)),
        _row("unary, 32 connections: CPU a request", "µs", cpu, Bound(300)),
    ]
    if EMBEDDED in rate:
        against = rate[OURS] / rate[EMBEDDED]
        table.insert(3, Row(f"unary, 32 connections: of {EMBEDDED}", "x", against, Bound(1.0, at_least=True)))
    return table


def _row(what: str, unit: str, figures: dict[str, float], bound: Bound) -> Row:
    others = {name: value for name, value in figures.items() if name != OURS}
    return Row(what, unit, figures[OURS], bound, others)
