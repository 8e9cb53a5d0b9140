"""An engine is killed under load and comes back without its adapters: gateway, controller and stubs are processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.core.records import Adapter
from service.drivers.adapter_files import CONFIG, WEIGHTS, adapter_digest
from service.drivers.blobs import FolderBlobs
from tests.service.gateway.live import (
    CHAT,
    STREAM,
    Process,
    Reply,
    configure,
    engine,
    eventually,
    gateway,
    opened,
    post,
    running,
    session,
)

pytestmark = pytest.mark.soak

KNOBS = {"first_ms": 20, "gap_ms": 20, "tokens": 10, "load_ms": 500}
CLIENTS = 24


@dataclass(frozen=True)
class Asked:
    """One request and what came of it."""

    at: float
    stream: bool
    reply: Reply

    @property
    def error(self) -> str | None:
        """The code of the error that the client was told; None for a complete reply."""
        if self.reply.status != 200:
            return str(self.reply.error["code"])
        if self.stream:
            last = self.reply.body.rstrip().rsplit(b"data: ", 1)[-1]
            return None if last == b"[DONE]" else str(json.loads(last)["error"]["code"])
        return None


async def register(state_dir: Path) -> str:
    """An adapter whose files the controller can verify, as the champion of `support`."""
    files = {CONFIG: b"{}", WEIGHTS: b"weights"}
    digest = adapter_digest(files)
    name = f"support@{digest[:12]}"
    await FolderBlobs(state_dir / "adapters").put(name, files)
    async with opened(state_dir) as store:
        await store.add_alias("support", now=0.0)
        await store.add_adapter(Adapter(name, "support", digest, "b" * 64, 8, 1, 0.0))
        await store.promote("support", name, actor="test", reason="test", now=0.0)
    return name


@contextlib.asynccontextmanager
async def controller(state_dir: Path, engines: list[Process]) -> AsyncIterator[Process]:
    config = configure(state_dir, engines)
    async with running(
        ["service", "controller", "--config", str(config)], "", state_dir / "control.log", None
    ) as child:
        yield child


async def test_only_what_was_on_the_killed_engine_fails_and_it_returns_verified(tmp_path, scale):
    state = tmp_path / "state"
    asked: list[Asked] = []
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine(tmp_path, **KNOBS)) for _ in range(2)]
        adapter = await register(state)
        await stack.enter_async_context(controller(state, engines))
        serving = await stack.enter_async_context(gateway(state, engines, capture={"confidence_per_s": 0}))
        client = await stack.enter_async_context(session())

        async def ask(number: int) -> None:
            stream = number % 2 == 0
            body = {**(STREAM if stream else CHAT), "user": f"user-{number}"}
            while True:
                at = time.perf_counter()
                asked.append(Asked(at, stream, await post(client, serving.url, body)))

        async def serves(child: Process) -> bool:
            with contextlib.suppress(OSError):
                return (await child.get("/stats"))["served"].get(adapter, 0) > 5
            return False

        async def all_hold_it() -> bool:
            return all([adapter in (await one.get("/stats"))["resident"] for one in engines])

        await eventually(all_hold_it, 20.0)
        await asyncio.sleep(1.0)
        asking = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
        try:
            for number in range(scale(2, 10)):
                victim = engines[number % 2]
                await eventually(lambda v=victim: serves(v), 10.0)
                first, on_it = len(asked), (await victim.get("/stats"))["running"]
                victim.signal(signal.SIGKILL)
                killed_at = time.perf_counter()
                await victim.process.wait()
                await asyncio.sleep(scale(1.0, 3.0))
                back = await stack.enter_async_context(engine(tmp_path, port=victim.port, **KNOBS))
                engines[number % 2] = back
                back_s = await eventually(lambda b=back: serves(b), 10.0)
                missing = (await back.get("/stats"))["counts"].get("missing", 0)
                failed = [one for one in asked[first:] if one.error is not None]
                late = [one for one in failed if one.at > killed_at]
                print(
                    f"kill {number + 1}: {on_it} were on the engine, {len(failed)} failed, {len(late)} of them asked "
                    f"later; it served {back_s:.1f} s after its return; {missing} came too early, answered elsewhere"
                )
                assert {one.reply.status for one in failed} <= {200, 502, 503}
                assert {one.error for one in failed} <= {"engine_failed", "unavailable"}
                assert not late
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    assert {one.reply.headers["x-trimtab-adapter"] for one in asked} == {adapter}
