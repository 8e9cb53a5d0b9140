"""From a decision to every gateway: three gateways over one store, a controller, and a real vLLM with a tiny model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.deployment import trimtab
from benchmarks.hot_swap import ALIAS, engine
from service.core.names import adapter_name
from service.drivers.adapter_files import adapter_digest, read_adapter
from service.drivers.vllm import VllmEngine

GATEWAYS = 3
PATIENCE_S = 30.0
BODY: dict[str, Any] = {
    "model": ALIAS, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1, "temperature": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flips:
    """Seconds from the call until the last gateway served the other adapter, and requests that failed meanwhile."""

    promoted: Sequence[float]
    rolled_back: Sequence[float]
    unloaded: Sequence[float]
    failed: int
    failed_unloaded: int


class Desk:
    """All gateways of a service, asked side by side."""

    def __init__(self, http: httpx.AsyncClient, urls: Sequence[str]) -> None:
        self.http, self.urls = http, urls
        self.failed = 0

    async def act(self, action: str, body: dict[str, Any], wanted: str) -> float:
        began = perf_counter()
        call = asyncio.create_task(self._post(f"/api/v1/aliases/{ALIAS}/{action}", body))
        await asyncio.gather(*(self._serves(url, wanted, began) for url in self.urls))
        took = perf_counter() - began
        await call
        return took

    async def stage(self, adapter: str) -> None:
        """Wait until every engine holds it: what shadow has done long before a decision."""
        await self._post(f"/api/v1/aliases/{ALIAS}/candidate", {"adapter": adapter})
        while True:
            found = (await self.http.get(f"{self.urls[0]}/api/v1/adapters/{adapter}")).json()
            if found["resident"]:
                return
            await asyncio.sleep(0.02)

    async def _serves(self, url: str, wanted: str, began: float) -> None:
        while perf_counter() < began + PATIENCE_S:
            reply = await self.http.post(f"{url}/v1/chat/completions", json=BODY)
            self.failed += reply.is_error
            if reply.is_success and reply.headers["x-trimtab-adapter"] == wanted:
                return
            await asyncio.sleep(0.005)
        raise RuntimeError(f"{url} did not serve {wanted} within {PATIENCE_S:.0f} s")

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        reply = await self.http.post(f"{self.urls[0]}{path}", json=body)
        if reply.is_error:
            raise RuntimeError(f"{path}: {reply.text}")


async def play_flips(folder: Path, rounds: int) -> Flips:
    """`rounds` promotions, each rolled back, and as many rollbacks to an adapter that the engine had lost."""
    with engine(folder, 2) as (vllm, model, made):
        async with AsyncExitStack() as stack:
            settings = {
                "aliases": {ALIAS: {}}, "model": str(model), "engines": [vllm], "state_dir": str(folder / "state"),
                "promotion": {"mode": "manual"},
            }  # fmt: skip
            roles = [["serve", "controller"]] + [["serve"]] * (GATEWAYS - 1)
            urls = [
                await stack.enter_async_context(trimtab(folder / f"gateway{n}", role, settings))
                for n, role in enumerate(roles)
            ]
            desk = Desk(await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30.0)), urls)
            names = []
            for path in made:
                await desk._post("/api/v1/adapters", {"alias": ALIAS, "path": str(path)})
                names.append(str(adapter_name(ALIAS, adapter_digest(read_adapter(path)))))
            await desk.stage(names[0])
            await desk.act("promote", {"adapter": names[0], "reason": "first"}, names[0])
            promoted, back = [], []
            for _ in range(rounds):
                await desk.stage(names[1])
                promoted.append(await desk.act("promote", {"adapter": names[1], "reason": "benchmark"}, names[1]))
                back.append(await desk.act("rollback", {"reason": "benchmark"}, names[0]))
            failed, desk.failed = desk.failed, 0
            driver, lost = VllmEngine(vllm), []
            for _ in range(rounds):
                await desk.stage(names[1])
                await desk.act("promote", {"adapter": names[1], "reason": "benchmark"}, names[1])
                await driver.unload(names[0])
                lost.append(await desk.act("rollback", {"reason": "benchmark"}, names[0]))
            await driver.close()
            return Flips(promoted, back, lost, failed, desk.failed)
