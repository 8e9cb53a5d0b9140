"""What a key may use a minute: the accounts alone, and over HTTP."""

from __future__ import annotations

from dataclasses import replace

import openai
import pytest

from service.core.records import Key, Scope
from service.gateway.limits import Allowance, Allowances, RateLimited

KEY = Key("k1", "app", "a" * 64, frozenset({Scope.INFER}), 0.0)
CHAT = {"model": "support", "messages": [{"role": "user", "content": "Where is it?"}]}


def test_a_minutes_requests_may_come_at_once_and_come_back_evenly():
    allowance = Allowance(replace(KEY, requests_per_minute=60), now=100.0)
    for _ in range(60):
        allowance.enter(100.0)
    with pytest.raises(RateLimited) as refused:
        allowance.enter(100.0)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    allowance.enter(101.0)
    with pytest.raises(RateLimited):
        allowance.enter(101.5)


def test_tokens_are_charged_when_known_and_then_waited_for():
    allowance = Allowance(replace(KEY, tokens_per_minute=600), now=0.0)
    allowance.enter(0.0)
    allowance.charge(900)
    with pytest.raises(RateLimited) as refused:
        allowance.enter(0.0)
    assert refused.value.retry_after_s == pytest.approx(30.1)
    assert "600 tokens a minute" in refused.value.message
    allowance.enter(31.0)


def test_a_refused_request_takes_nothing():
    allowance = Allowance(replace(KEY, requests_per_minute=2, tokens_per_minute=10), now=0.0)
    allowance.charge(10)
    for _ in range(5):
        with pytest.raises(RateLimited):
            allowance.enter(0.0)
    assert dict(allowance.headers())[b"x-ratelimit-remaining-requests"] == b"2"


def test_the_headers_say_what_is_left_and_when_it_is_full_again():
    allowance = Allowance(replace(KEY, requests_per_minute=60), now=0.0)
    allowance.enter(0.0)
    assert dict(allowance.headers()) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1.000s",
    }


def test_a_clock_that_steps_back_gives_nothing_away():
    allowance = Allowance(replace(KEY, requests_per_minute=1), now=100.0)
    allowance.enter(100.0)
    with pytest.raises(RateLimited):
        allowance.enter(40.0)


def test_keys_without_limits_have_no_account_and_new_limits_begin_anew():
    allowances = Allowances()
    assert allowances.of(KEY, 0.0) is None
    limited = replace(KEY, requests_per_minute=1)
    first = allowances.of(limited, 0.0)
    assert first is not None
    assert allowances.of(limited, 1.0) is first
    assert allowances.of(replace(KEY, requests_per_minute=2), 1.0) is not first


async def test_over_http_a_key_is_told_what_is_left_and_refused_as_the_sdk_expects(make_world, key_of):
    key = replace(key_of("secret", Scope.INFER), requests_per_minute=2)
    world = await make_world(keys=[key, key_of("other", Scope.INFER)], server={"require_keys": True})
    async with world.client(headers={"authorization": "Bearer secret"}) as http:
        replies = [await http.post("/v1/chat/completions", json=CHAT) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["1", "0", "0"]
    assert int(replies[2].headers["retry-after"]) >= 1
    assert len(world.engine.requests) == 2
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="secret", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="2 requests a minute"):
            await client.chat.completions.create(**CHAT)
    async with world.client(headers={"authorization": "Bearer other"}) as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in reply.headers)


async def test_over_http_the_tokens_of_prompt_and_reply_are_charged(make_world, key_of, wait_until):
    key = replace(key_of("secret", Scope.INFER), tokens_per_minute=15)
    world = await make_world(keys=[key], server={"require_keys": True})
    async with world.client(headers={"authorization": "Bearer secret"}) as http:
        first = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
        second = await http.post("/v1/chat/completions", json=CHAT)
        third = await http.post("/v1/chat/completions", json=CHAT)
    assert [reply.status_code for reply in (first, second, third)] == [200, 200, 429]
    assert second.headers["x-ratelimit-remaining-tokens"] == "5"
