"""The rows that have peers: engine, gateway and peers are started once and take turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gateway.arms import Arm, DidNotStart, HttpArm
from benchmarks.gateway.ours import dropped_captures, gateway
from benchmarks.gateway.peers.install import NotInstalled
from benchmarks.gateway.peers.litellm import litellm
from benchmarks.gateway.peers.nginx import nginx
from benchmarks.gateway.peers.tensorzero import EMBEDDED, tensorzero
from benchmarks.gateway.plan import Plan
from benchmarks.gateway.process import Cores
from benchmarks.gateway.streaming import measure_streaming
from benchmarks.gateway.stub import DIRECT, stub_engine
from benchmarks.gateway.table import Part
from benchmarks.gateway.unary import measure_unary

UNARY, STREAMING = "unary", "streaming"

PEERS: Mapping[str, Callable[[Path, str, Cores], AbstractAsyncContextManager[Sequence[Arm]]]] = {
    "nginx": nginx,
    EMBEDDED: tensorzero,
    "LiteLLM proxy": litellm,
}


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part, the engine itself first and ours second; `missing` peers with the reason."""

    engine: str
    arms: Sequence[Arm]
    ours: HttpArm
    missing: Mapping[str, str]


async def measure_with_peers(plan: Plan, wanted: Collection[str]) -> Part:
    """The unary and the streaming rows, those of the two that are wanted."""
    parts: list[Part] = []
    async with _field(plan) as field:
        if UNARY in wanted:
            parts.append(await measure_unary(field.arms, plan))
        if STREAMING in wanted:
            arms = [arm for arm in field.arms if isinstance(arm, HttpArm)]
            parts.append(await measure_streaming(arms, field.engine, plan))
        dropped = await dropped_captures(field.ours)
    absent = dict.fromkeys(field.missing, "not measured")
    rows = [replace(row, others={**row.others, **absent}) for part in parts for row in part.rows]
    notes = [f"{name} was not measured: {reason}" for name, reason in field.missing.items()]
    notes += [note for part in parts for note in part.notes]
    return Part(rows, [*notes, f"{dropped} captures dropped"])


@asynccontextmanager
async def _field(plan: Plan) -> AsyncIterator[Field]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(stub_engine(plan, "engine"))
        ours = await stack.enter_async_context(gateway(plan.place("gateway"), engine, plan.cores))
        arms: list[Arm] = [HttpArm(DIRECT, f"{engine}/v1"), ours]
        missing = {}
        for number, (name, start) in enumerate(PEERS.items()):
            folder = plan.place(f"peer-{number}")
            try:
                arms += await stack.enter_async_context(start(folder, engine, plan.cores))
            except (NotInstalled, DidNotStart) as error:
                missing[name] = str(error)
        yield Field(engine, arms, ours, missing)
