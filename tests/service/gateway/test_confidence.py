"""Log-probabilities are asked for so many requests a second, whatever the traffic."""

from __future__ import annotations

import asyncio

import pytest

from service.gateway.confidence import ConfidenceBudget
from tests.service.gateway.live import CHAT


def taken(per_s: float, arrivals: list[float]) -> int:
    budget = ConfidenceBudget(per_s)
    found = 0
    for at in arrivals:
        if budget.take(at, 1):
            found += 1
            budget.leave()
    return found


@pytest.mark.parametrize(("per_s", "rate", "expected"), [(10, 5, 50), (10, 10, 100), (10, 1000, 110), (0, 5, 0)])
def test_a_budget_is_kept_at_any_rate(per_s, rate, expected):
    arrivals = [1e9 + n / rate for n in range(10 * rate)]
    assert taken(per_s, arrivals) == pytest.approx(expected, abs=1)


def test_less_than_one_a_second_is_kept_too():
    assert taken(0.1, [1e9 + n for n in range(100)]) == pytest.approx(10, abs=1)


def test_a_clock_that_jumps_back_gives_nothing_away():
    assert taken(1, [1e9, 1e9 - 3600, 1e9 - 3599, 1e9 - 3598]) == 1


@pytest.mark.parametrize(("open_requests", "expected"), [(1, 4), (16, 4), (32, 4), (40, 5), (100, 13)])
def test_of_many_at_a_time_it_is_an_eighth(open_requests, expected):
    budget = ConfidenceBudget(1000)
    assert sum(budget.take(1e9, open_requests) for _ in range(100)) == expected
    budget.leave()
    assert [budget.take(1e9, open_requests) for _ in range(2)] == [True, False]


async def test_requests_that_fail_or_go_leave_their_place_to_others(make_world):
    world = await make_world(capture={"confidence_per_s": 1000})
    async with world.client() as client:
        world.engine.refusal = (500, {"error": {"message": "boom", "code": 500}})
        for _ in range(8):
            await client.post("/v1/chat/completions", json=CHAT)
        world.engine.refusal = None
        before = len(world.engine.requests)
        for _ in range(3):
            reply = await client.post("/v1/chat/completions", json=CHAT)
            assert reply.status_code == 200
    asked = world.engine.requests[before:]
    assert [bool(request.get("logprobs")) for request in asked] == [True] * 3


async def test_a_busy_engine_is_asked_for_an_eighth(make_world, wait_until):
    world = await make_world(capture={"confidence_per_s": 1000})
    world.engine.gate = asyncio.Event()
    async with world.client() as client:
        waiting = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(40)]
        await wait_until(lambda: len(world.engine.requests) == 40)
        world.engine.gate.set()
        assert {(await one).status_code for one in waiting} == {200}
    assert sum(bool(request.get("logprobs")) for request in world.engine.requests) == 5


async def test_a_gateway_asks_for_no_more_and_captures_all(make_world, wait_until):
    world = await make_world(capture={"confidence_per_s": 3})
    async with world.client() as client:
        for _ in range(20):
            reply = await client.post("/v1/chat/completions", json=CHAT)
            assert reply.status_code == 200
            assert reply.json()["choices"][0].get("logprobs") is None
    await wait_until(lambda: len(world.sink.captures) == 20)
    told = [capture.confidence for capture in world.sink.captures.values()]
    asked = [request for request in world.engine.requests if request.get("logprobs")]
    assert 3 <= len(asked) < 20
    assert sum(value is not None for value in told) == len(asked)
