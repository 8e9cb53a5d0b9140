"""Shadow traffic: the candidate is asked after the client's last byte, in lulls, and can hurt nobody."""

from __future__ import annotations

import asyncio

import pytest

from service.core.sampling import in_share

CANDIDATE = "support@222222222222"
CHAT = {"model": "support", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}


def count(world, outcome):
    return world.metric("trimtab_mirror_requests_total", alias="support", outcome=outcome)


def shed(world, reason):
    return world.metric("trimtab_mirror_shed_total", alias="support", reason=reason)


async def test_the_candidate_is_asked_the_same_with_a_later_priority(world, wait_until):
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True, "n": 2})
    assert reply.headers["x-trimtab-adapter"] == "support@111111111111"
    await wait_until(lambda: world.sink.shadows)
    shadow = world.sink.shadows[reply.headers["x-request-id"], CANDIDATE]
    assert (shadow.reply, shadow.status, shadow.error, shadow.completion_tokens) == ("Hello world", 200, None, 3)
    assert shadow.confidence is not None
    asked = world.engine.requests[1]
    assert (asked["model"], asked["temperature"], asked["priority"]) == (CANDIDATE, 0.5, 100)
    assert "stream" not in asked
    assert "n" not in asked
    assert (count(world, "offered"), count(world, "sent")) == (1, 1)


async def test_the_base_that_was_champion_before_is_asked_by_the_engines_name_for_it(world, wait_until):
    await world.route(candidate="base", mirror_ratio=1.0)
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    await wait_until(lambda: world.sink.shadows)
    assert world.sink.shadows[reply.headers["x-request-id"], "base"].status == 200
    assert world.engine.requests[1]["model"] == "base-model"


async def test_the_share_is_the_mirrors_ratio(world, wait_until):
    await world.route(candidate=CANDIDATE, mirror_ratio=0.3)
    async with world.client() as http:
        ids = [(await http.post("/v1/chat/completions", json=CHAT)).headers["x-request-id"] for _ in range(40)]
    assert count(world, "offered") == sum(in_share(i, 0.3, salt=CANDIDATE) for i in ids)
    await wait_until(lambda: count(world, "sent") + count(world, "shed") == count(world, "offered"))


async def test_no_shadow_without_a_candidate_or_of_a_failed_request(world):
    async with world.client() as http:
        await http.post("/v1/chat/completions", json=CHAT)
        await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
        world.engine.dies_after = 2
        await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert count(world, "offered") == 0
    assert len(world.engine.requests) == 2


async def test_a_failing_shadow_is_recorded_and_the_client_sees_nothing(world, wait_until):
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        world.engine.refuses_model = CANDIDATE
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 200
    await wait_until(lambda: world.sink.shadows)
    shadow = world.sink.shadows[reply.headers["x-request-id"], CANDIDATE]
    assert shadow.status == 502
    assert "boom" in shadow.error
    assert count(world, "failed") == 1


async def test_an_engine_without_priorities_is_asked_without(world, wait_until):
    world.engine.knows_priority = False
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        for sent in (1, 2):
            await http.post("/v1/chat/completions", json=CHAT)
            await wait_until(lambda sent=sent: count(world, "sent") == sent)
    assert sum("priority" in r for r in world.engine.requests) == 1


async def test_what_finds_the_queue_full_is_shed(make_world, wait_until):
    world = await make_world(mirror={"max_queue": 0})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await wait_until(lambda: count(world, "offered") == 1)
    assert (count(world, "shed"), shed(world, "queue_full")) == (1, 1)


async def test_shadows_wait_while_clients_keep_the_engine_busy(make_world, wait_until):
    world = await make_world(mirror={"max_live_ratio": 1 / 64})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        world.engine.gate = asyncio.Event()
        slow = [asyncio.create_task(http.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
        await wait_until(lambda: world.engine.running == 2)
        opened, world.engine.gate = world.engine.gate, None
        await http.post("/v1/chat/completions", json=CHAT)
        await asyncio.sleep(0.1)
        assert (count(world, "offered"), len(world.engine.requests)) == (1, 3)
        opened.set()
        await asyncio.gather(*slow)
    await wait_until(lambda: count(world, "sent") == 3)
    assert count(world, "shed") == 0


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"mirror": {"max_live_ratio": 0.0}}, "engine_busy"),
        ({"engine": {"max_loras": 1}}, "lora_slots"),
    ],
)
async def test_what_has_waited_too_long_is_shed_and_the_reason_counted(make_world, wait_until, sections, reason):
    world = await make_world(**{**sections, "mirror": {**sections.get("mirror", {}), "deadline_s": 0.1}})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        world.engine.gate = asyncio.Event()
        slow = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_until(lambda: world.engine.running == 1)
        opened, world.engine.gate = world.engine.gate, None
        await http.post("/v1/chat/completions", json=CHAT)
        await wait_until(lambda: shed(world, reason) == 1)
        opened.set()
        await slow


async def test_shadows_use_no_more_tokens_than_clients_earned_them(make_world, wait_until, monkeypatch):
    monkeypatch.setattr("service.gateway.mirror._BUDGET_TOKENS", 20)
    world = await make_world(mirror={"token_ratio": 0.0, "deadline_s": 0.1})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        for _ in range(4):
            await http.post("/v1/chat/completions", json=CHAT)
    await wait_until(lambda: count(world, "sent") + count(world, "shed") == 4)
    assert (count(world, "sent"), shed(world, "token_budget")) == (2, 2)


async def test_running_shadows_yield_to_clients_and_are_tried_again(make_world, wait_until):
    world = await make_world(mirror={"max_live_ratio": 1 / 64})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        gate = world.engine.gate = asyncio.Event()
        await wait_until(lambda: world.engine.running == 1)
        shadow_gate = world.engine.gate = asyncio.Event()
        gate.set()
        await asked
        await wait_until(lambda: world.engine.running == 1)
        clients = [asyncio.create_task(http.post("/v1/chat/completions", json=CHAT)) for _ in range(3)]
        await wait_until(lambda: count(world, "yielded") == 1)
        await wait_until(lambda: world.engine.aborted == 1)
        await wait_until(lambda: world.engine.running == 3)
        world.engine.gate = None
        shadow_gate.set()
        assert {reply.status_code for reply in await asyncio.gather(*clients)} == {200}
    await wait_until(lambda: len(world.sink.shadows) == 4)
    assert (count(world, "sent"), count(world, "failed")) == (4, 0)


async def test_at_most_so_many_shadows_run(make_world, wait_until):
    world = await make_world(mirror={"max_in_flight": 2, "max_queue": 100})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    world.engine.gate = asyncio.Event()
    async with world.client() as http:
        asked = [asyncio.create_task(http.post("/v1/chat/completions", json=CHAT)) for _ in range(8)]
        await wait_until(lambda: world.engine.running == 8)
        opened, world.engine.gate = world.engine.gate, asyncio.Event()
        opened.set()
        await asyncio.gather(*asked)
    await wait_until(lambda: world.engine.running == 2)
    assert count(world, "offered") == 8
    world.engine.gate.set()
    await wait_until(lambda: count(world, "sent") == 8)


async def test_a_shadow_takes_no_longer_than_its_deadline(make_world, wait_until):
    world = await make_world(mirror={"deadline_s": 0.05})
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    async with world.client() as http:
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        world.engine.gate = asyncio.Event()
        await wait_until(lambda: world.engine.running == 1)
        opened, world.engine.gate = world.engine.gate, asyncio.Event()
        opened.set()
        assert (await asked).status_code == 200
    await wait_until(lambda: world.sink.shadows)
    assert next(iter(world.sink.shadows.values())).status == 504
    await wait_until(lambda: world.engine.running == 0)


async def test_a_candidate_that_was_withdrawn_is_not_asked(world, wait_until):
    await world.route(candidate=CANDIDATE, mirror_ratio=1.0)
    world.engine.gate = asyncio.Event()
    async with world.client() as http:
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_until(lambda: world.engine.running == 1)
        await world.route()
        world.engine.gate.set()
        await asked
    await wait_until(lambda: count(world, "shed") == 1)
    assert len(world.engine.requests) == 1
