"""Metric labels come from the registry: whatever clients invent, the number of series stays what it was."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.service.gateway.live import CHAT, Process, post, session, world

pytestmark = pytest.mark.soak


async def series(gateway: Process) -> set[str]:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return {line.rsplit(" ", 1)[0] for line in lines if line and not line.startswith("#") and "_created" not in line}


async def test_invented_names_add_one_series(tmp_path, scale):
    count = scale(1_000, 10_000)
    async with world(tmp_path) as (gateway, _), session() as client:
        assert (await post(client, gateway.url, CHAT)).status == 200
        before = await series(gateway)
        numbers = iter(range(count))

        async def invent() -> None:
            for number in numbers:
                reply = await post(client, gateway.url, {**CHAT, "model": f"invented-{number}", "user": f"u{number}"})
                assert (reply.status, reply.error["code"]) == (404, "model_not_found")

        await asyncio.gather(*(invent() for _ in range(32)))
        for number in range(20):
            await post(client, gateway.url, CHAT, f"/v1/invented-{number}")
        added = await series(gateway) - before
        refused = await gateway.metric("trimtab_requests_total", alias="unknown", code="404")
    print(f"{count} invented names added {len(added)} series: {added}")
    assert added == {'trimtab_requests_total{adapter="unknown",alias="unknown",code="404"}'}
    assert refused == count
