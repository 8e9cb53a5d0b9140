"""What capture costs: three gateways that differ in it only, in turns."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median

from benchmarks.gateway.ours import Changes, dropped_captures, gateway
from benchmarks.gateway.plan import Plan, turns
from benchmarks.gateway.stub import stub_engine
from benchmarks.gateway.table import Bound, Part, Row
from benchmarks.gateway.unary import MANY

ON, RECORDS, OFF = "on", "records only", "off"
VARIANTS: dict[str, Changes] = {
    ON: {},
    RECORDS: {"capture": {"confidence_per_s": 0}},
    OFF: {"capture": {"enabled": False}},
}


async def measure_capture(plan: Plan) -> Part:
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(stub_engine(plan, "capture-engine"))
        arms = [
            await stack.enter_async_context(
                gateway(plan.place(f"capture-{number}"), engine, plan.cores, name=name, changes=changes)
            )
            for number, (name, changes) in enumerate(VARIANTS.items())
        ]
        for arm in arms:
            await arm.load(MANY, 1.0)
        for arm in turns(arms, 2 * plan.rounds):
            assert arm.process is not None
            await arm.process.quiet()
            rates[arm.name].append((await arm.load(MANY, plan.seconds)).rate)
        dropped = await dropped_captures(arms[0])
    return Part(
        [
            Row("capture on against off: throughput", "x", share(rates[ON], rates[OFF]), Bound(0.95, at_least=True)),
            Row("capture without confidence against off", "x", share(rates[RECORDS], rates[OFF])),
        ],
        [
            f"requests/s with capture on {median(rates[ON]):,.0f}, without confidence {median(rates[RECORDS]):,.0f}, "
            f"off {median(rates[OFF]):,.0f}; {dropped} captures dropped"
        ],
    )


def share(here: list[float], there: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return median(h / t for h, t in zip(here, there, strict=True))
