"""What the gateway keeps in memory: with 1,000 streams open, and over an hour's worth of requests."""

from __future__ import annotations

import asyncio

from benchmarks.gateway.arms import HttpArm
from benchmarks.gateway.ours import dropped_captures, gateway
from benchmarks.gateway.plan import Plan
from benchmarks.gateway.stub import ENDLESS, set_pace, stub_engine
from benchmarks.gateway.table import Bound, Part, Row
from benchmarks.gateway.unary import MANY
from benchmarks.load import Streams, run_load

STREAMS = 1000
AN_HOUR = 3600 * 100
"""Requests, at 100 a second."""

_GAP_MS = 500.0
_HOLD_S = 5
_FLAT_MIB = 5.0
_MORE_PLACES = {"gateway": {"max_in_flight": 1024}}
"""For one alias; 256 at once is the default, more wait or are refused."""


async def measure_memory(plan: Plan) -> Part:
    async with stub_engine(plan, "memory-engine") as engine:
        async with gateway(plan.place("streams"), engine, plan.cores, changes=_MORE_PLACES) as arm:
            streams = await _open_streams(arm, engine)
        await set_pace(engine)
        async with gateway(plan.place("hour"), engine, plan.cores) as arm:
            hour = await _hour(arm, AN_HOUR if plan.full else AN_HOUR // 4)
    return Part([*streams.rows, *hour.rows], [*streams.notes, *hour.notes])


async def _open_streams(arm: HttpArm, engine: str) -> Part:
    assert arm.process is not None
    idle = arm.process.resident_mib()
    await set_pace(engine, tokens=ENDLESS, gap_ms=_GAP_MS)
    streams = Streams()
    try:
        opened = await streams.open(arm.url, arm.body, streams=STREAMS, over_s=3.0, key=arm.key)
        held = []
        for _ in range(_HOLD_S):
            await asyncio.sleep(1)
            held.append(arm.process.resident_mib())
    finally:
        streams.close()
    row = Row(f"resident memory with {opened:,} streams open", "MiB", max(held), Bound(150))
    return Part([row], [f"idle: {idle:.0f} MiB; gateway.max_in_flight is raised to 1,024 for the 1,000 streams"])


async def _hour(arm: HttpArm, requests: int) -> Part:
    assert arm.process is not None
    await arm.load(MANY, 1.0)
    await arm.process.quiet()
    sizes = [arm.process.resident_mib()]
    elapsed_s, failed = 0.0, 0
    for _ in range(4):
        load = await run_load(arm.url, arm.body, connections=MANY, requests=requests // 4, key=arm.key)
        elapsed_s += load.elapsed_s
        failed += load.failed
        sizes.append(arm.process.resident_mib())
    row = Row(f"resident memory: growth over {requests:,} requests", "MiB", sizes[-1] - sizes[1], Bound(_FLAT_MIB))
    dropped = await dropped_captures(arm)
    return Part(
        [row],
        [
            f"MiB at the start and after each quarter of {requests:,} requests: "
            f"{', '.join(f'{size:.0f}' for size in sizes)}; growth is counted from the first quarter's end; "
            f"{requests / elapsed_s:,.0f} requests/s, {failed} failed, {dropped} captures dropped"
        ],
    )
