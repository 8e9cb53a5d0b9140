"""Second attempts: the budget, and what it does to clients."""

from __future__ import annotations

from service.gateway.retries import RetryBudget

CHAT = {"model": "support", "messages": [{"role": "user", "content": "Where is it?"}]}


def test_a_fifth_of_the_traffic_may_be_retried():
    budget = RetryBudget()
    while budget.spend():
        pass
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) in {19, 20}


def test_what_is_unspent_is_capped():
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(10_000)) == 100


async def requests_of_one_question(world):
    for engine in world.engines:
        engine.refusal = (404, {"error": {"message": "no such model", "code": 404}})
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 503
    return sum(len(engine.requests) for engine in world.engines)


async def test_a_failed_request_is_tried_once_elsewhere(make_world):
    assert await requests_of_one_question(await make_world(engines=3)) == 2


async def test_with_the_budget_spent_the_first_failure_is_the_answer(make_world, monkeypatch):
    monkeypatch.setattr(RetryBudget, "spend", lambda budget: False)
    assert await requests_of_one_question(await make_world(engines=3)) == 1


async def test_a_reply_that_has_begun_is_not_asked_for_again(make_world):
    """Its beginning is with the client already: another engine's would follow on a torso."""
    world = await make_world(engines=2)
    for engine in world.engines:
        engine.dies_after = 2
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert sum(len(engine.requests) for engine in world.engines) == 1
    assert reply.text.count('"role":"assistant"') == 1
    assert '"error"' in reply.text
