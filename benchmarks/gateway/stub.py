"""The stub engine beside the load generator, and the pace that it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from benchmarks.gateway.arms import HttpArm
from benchmarks.gateway.plan import Plan
from benchmarks.gateway.process import free_port, module, program

DIRECT = "direct"
TOKENS = 16
ENDLESS = 10**9


@asynccontextmanager
async def stub_engine(plan: Plan, name: str) -> AsyncIterator[str]:
    """Yield the URL of one that answers `TOKENS` tokens at once."""
    port = free_port()
    argv = module("benchmarks.stub_engine", "--port", str(port), "--tokens", str(TOKENS))
    with program(argv, plan.cores.others, plan.folder / f"{name}.log") as process:
        url = f"http://127.0.0.1:{port}"
        await HttpArm("the stub engine", f"{url}/v1", process).until_answered()
        yield url


async def set_pace(engine: str, *, tokens: int = TOKENS, gap_ms: float = 0.0) -> None:
    async with httpx.AsyncClient() as client:
        (await client.post(f"{engine}/pace", json={"tokens": tokens, "gap_ms": gap_ms})).raise_for_status()
