"""How a gateway ends: by SIGTERM with nothing lost, by kill -9 with at most the newest captures lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from tests.service.gateway.live import CHAT, STREAM, Reply, eventually, gateway, post, prepare, session, world
from tests.service.gateway.live import engine as stub_engine

pytestmark = pytest.mark.soak


def captured(state_dir: Path) -> dict[str, tuple[int, str | None]]:
    """Status and error of each capture in the store, by its request."""
    with contextlib.closing(sqlite3.connect(state_dir / "trimtab.db")) as store:
        return {row[0]: row[1:] for row in store.execute("SELECT request_id, status, error FROM captures")}


async def test_sigterm_lets_open_requests_finish_and_keeps_their_captures(tmp_path, scale):
    streams, unary = scale(60, 200), scale(20, 56)
    async with world(tmp_path, knobs={"first_ms": 100, "gap_ms": 100, "tokens": 12}) as (serving, (engine,)):

        async def all_running() -> bool:
            return (await engine.get("/stats"))["running"] == streams + unary

        async with session() as client, httpx.AsyncClient(base_url=serving.url, trust_env=False) as watcher:
            assert (await watcher.get("/ready")).status_code == 200
            asked = [
                post(client, serving.url, body) for body, n in ((STREAM, streams), (CHAT, unary)) for _ in range(n)
            ]
            replies = asyncio.gather(*asked)
            await eventually(all_running, 10.0)
            serving.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            try:
                unready = (await watcher.get("/ready")).status_code
            except httpx.TransportError:
                unready = 0
            done: list[Reply] = await replies
        code = await asyncio.wait_for(serving.process.wait(), 10.0)
        log = serving.log.read_text()
    kept = captured(tmp_path / "state")
    print(f"SIGTERM with {streams} streams and {unary} others: {len(kept)} captures, exit code {code}")
    assert unready in {0, 503}
    assert code == 0
    assert "Traceback" not in log
    assert {reply.status for reply in done} == {200}
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in done[:streams])
    assert all(reply.body.count(b'"x"') == 2 * 12 for reply in done[:streams])
    assert {kept[reply.headers["x-request-id"]] for reply in done} == {(200, None)}


async def test_a_drain_that_takes_too_long_ends_what_is_left_and_keeps_it(tmp_path):
    async with world(tmp_path, knobs={"gap_ms": 50, "tokens": 10_000}, server={"drain_s": 1}) as (serving, (engine,)):

        async def both_running() -> bool:
            return (await engine.get("/stats"))["running"] == 2

        async with session() as client:
            replies = asyncio.gather(post(client, serving.url, STREAM), post(client, serving.url, CHAT))
            await eventually(both_running, 10.0)
            serving.signal(signal.SIGTERM)
            stream, whole = await replies
        assert await asyncio.wait_for(serving.process.wait(), 10.0) == 0
    kept = captured(tmp_path / "state")
    assert (whole.status, whole.error["code"]) == (503, "unavailable")
    assert whole.headers["retry-after"]
    assert json.loads(stream.body.split(b"data: ")[-1])["error"]["code"] == "unavailable"
    assert [status for status, _ in kept.values()] == [503]


async def test_kill_9_loses_at_most_the_captures_of_the_last_tenth_of_a_second(tmp_path, scale, soaking):
    state = tmp_path / "state"
    async with stub_engine(tmp_path, first_ms=2) as stub:
        await prepare(state, [stub])
        lost_s = []
        for _ in range(scale(1, 10)):
            replied: list[tuple[float, str]] = []

            async def ask(client, url, replied=replied) -> None:
                while (reply := await post(client, url, CHAT)).status == 200:
                    replied.append((time.perf_counter(), reply.headers["x-request-id"]))

            async with gateway(state, [stub]) as serving, session() as client:
                asking = [asyncio.create_task(ask(client, serving.url)) for _ in range(8)]
                await asyncio.sleep(scale(1.0, 3.0))
                serving.signal(signal.SIGKILL)
                killed_at = time.perf_counter()
                await serving.process.wait()
                await asyncio.gather(*asking)
            async with gateway(state, [stub]) as serving:

                async def shipped(state=state) -> bool:
                    return not [*(state / "spool").glob("*/*.jsonl"), *(state / "spool").glob("*/*.open")]

                await eventually(shipped, 10.0)
            kept = captured(state)
            missing = [killed_at - at for at, request_id in replied if request_id not in kept]
            assert len(replied) > 50
            lost_s.append(max(missing, default=0.0))
            print(
                f"kill -9: {len(replied)} replies, {len(missing)} captures lost, the oldest {lost_s[-1] * 1e3:.0f} ms"
            )
        assert max(lost_s) <= (0.1 if soaking else 1.0)
