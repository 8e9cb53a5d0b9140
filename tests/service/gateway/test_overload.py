"""Three times the load that the engine can carry: it stays at its best, the rest is refused at once, shadows go first.

The stub engine, a process of its own like the gateway, answers 32 requests at once in 0.2 s each.
"""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.service.gateway.live import CANDIDATE, CHAT, ROOT, Process, post, session, world
from tests.service.gateway.offer import Offered

pytestmark = pytest.mark.soak

SLOTS, ANSWER_MS = 32, 200
PEAK = SLOTS / ANSWER_MS * 1e3
LANE = {"max_in_flight": 2 * SLOTS, "max_queue": 2 * SLOTS}


async def offer(gateway: Process, rate: float, seconds: float) -> Offered:
    argv = ["-m", "tests.service.gateway.offer", str(gateway.port), str(rate), str(seconds)]
    child = await asyncio.create_subprocess_exec(sys.executable, *argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    return Offered(**json.loads(output))


async def test_three_times_the_load(tmp_path, scale, soaking):
    seconds = scale(3.0, 60.0)
    knobs = {"slots": SLOTS, "first_ms": ANSWER_MS}
    sizes = {"max_num_seqs": SLOTS}
    async with world(tmp_path, knobs=knobs, gateway=LANE, engine=sizes, shadow=1.0) as (gateway, (engine,)):
        await engine.load(CANDIDATE)
        before = await offer(gateway, PEAK / 8, scale(1.0, 10.0))
        peak = await offer(gateway, PEAK, scale(1.0, 20.0))
        shadows = (await engine.get("/stats"))["served"].get(CANDIDATE, 0)
        over = await offer(gateway, 3 * PEAK, seconds)
        shed = await gateway.metric("trimtab_mirror_requests_total", outcome="shed")
        shadows_over = (await engine.get("/stats"))["served"].get(CANDIDATE, 0) - shadows
        after_s, normal_s = 0.0, 2 * max(before.good_s)
        async with session() as client:
            while (reply := await post(client, gateway.url, CHAT)).status != 200 or reply.seconds > normal_s:
                after_s += reply.seconds
        after = await offer(gateway, PEAK / 8, scale(1.0, 10.0))
    print(f"\nbefore: {before}\nat 1x: {peak}\nat 3x: {over}\nafter: {after}, normal again after {after_s:.1f} s")
    print(f"shadows: {shadows} before, {shadows_over} at 3x, {shed:.0f} shed")
    assert over.refused_s
    assert not [*before.other, *peak.other, *over.other, *after.other]
    assert not [*before.refused_s, *after.refused_s]
    assert len(over.good_s) + len(over.refused_s) == over.sent
    assert shadows > 0
    assert shed > shadows_over
    if soaking:
        assert over.goodput >= 0.9 * peak.goodput
        assert over.refused_p99_s <= 0.05
        assert after_s <= 10.0
