"""Log-probabilities are asked for so many requests a second, whatever the traffic."""

from __future__ import annotations

import pytest

from service.gateway.confidence import ConfidenceBudget
from tests.service.gateway.live import CHAT


def taken(per_s: float, arrivals: list[float]) -> int:
    budget = ConfidenceBudget(per_s)
    return sum(budget.take(at) for at in arrivals)


@pytest.mark.parametrize(("per_s", "rate", "expected"), [(10, 5, 50), (10, 10, 100), (10, 1000, 110), (0, 5, 0)])
def test_a_budget_is_kept_at_any_rate(per_s, rate, expected):
    arrivals = [1e9 + n / rate for n in range(10 * rate)]
    assert taken(per_s, arrivals) == pytest.approx(expected, abs=1)


def test_less_than_one_a_second_is_kept_too():
    assert taken(0.1, [1e9 + n for n in range(100)]) == pytest.approx(10, abs=1)


def test_a_clock_that_jumps_back_gives_nothing_away():
    assert taken(1, [1e9, 1e9 - 3600, 1e9 - 3599, 1e9 - 3598]) == 1


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
