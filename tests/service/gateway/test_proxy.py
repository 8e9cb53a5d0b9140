"""Requests through a real uvicorn to a stub engine (tests' own double for vLLM): bytes, headers, captures, failures."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import socket
from typing import Any

import httpx
import pytest

from service.core.records import Scope
from tests.service.gateway.live import raw_request

ADAPTER = "support@111111111111"
CHAT = {"model": "support", "messages": [{"role": "user", "content": "Where is it?"}]}


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_chat_is_answered_by_the_champion_and_captured(world, wait_until):
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "user": "ann"})
    assert reply.status_code == 200
    body = reply.json()
    assert body["choices"][0]["message"]["content"] == "Hello world"
    assert body["choices"][0]["logprobs"] is None
    assert body["model"] == ADAPTER == reply.headers["x-trimtab-adapter"]
    request_id = reply.headers["x-request-id"]
    assert world.engine.requests[0]["model"] == ADAPTER
    assert world.engine.requests[0]["logprobs"] is True
    assert "user" not in world.engine.requests[0]
    assert world.engine.headers[0]["x-request-id"] == request_id
    await wait_until(lambda: request_id in world.sink.captures)
    capture = world.sink.captures[request_id]
    assert capture.reply == "Hello world"
    assert list(capture.prompt) == [{"role": "user", "content": "Where is it?"}]
    assert capture.confidence == pytest.approx(math.log(0.5))
    assert (capture.alias, capture.adapter, capture.status) == ("support", ADAPTER, 200)
    assert (capture.prompt_tokens, capture.completion_tokens, capture.finish_reason) == (7, 3, "stop")
    assert (capture.streamed, capture.error) == (False, None)
    assert capture.source is not None
    assert capture.source.startswith("user:")
    assert "ann" not in capture.source


async def test_a_capture_knows_the_user_and_the_key(make_world, key_of, wait_until):
    world = await make_world(keys=[key_of("app", Scope.INFER)], server={"require_keys": True})
    async with world.client() as http:
        reply = await http.post(
            "/v1/chat/completions", json={**CHAT, "user": "ann"}, headers={"authorization": "Bearer app"}
        )
    request_id = reply.headers["x-request-id"]
    await wait_until(lambda: request_id in world.sink.captures)
    capture = world.sink.captures[request_id]
    assert capture.source.startswith("user:")
    assert capture.key_id == key_of("app", Scope.INFER).id


async def test_the_whole_body_is_the_engines_own_bytes_when_nothing_is_hidden(world):
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "logprobs": True})
    assert len(reply.json()["choices"][0]["logprobs"]["content"]) == 3


async def test_a_stream_shows_what_the_client_asked_for_and_no_more(world, wait_until):
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    seen = events(reply.text)
    assert seen[-1] == "[DONE]"
    assert all(e["choices"] for e in seen[:-1])
    assert all(c["logprobs"] is None for e in seen[:-1] for c in e["choices"])
    assert "".join(e["choices"][0]["delta"]["content"] for e in seen[:-1]) == "Hello world"
    assert world.engine.requests[0]["stream_options"] == {"include_usage": True}
    await wait_until(lambda: world.sink.captures)
    capture = world.sink.captures[reply.headers["x-request-id"]]
    assert capture.streamed
    assert (capture.reply, capture.completion_tokens, capture.prompt_tokens) == ("Hello world", 3, 7)
    assert capture.confidence == pytest.approx(math.log(0.5))
    assert capture.ttft_s is not None
    assert 0 < capture.ttft_s <= capture.duration_s


async def test_a_stream_keeps_usage_and_logprobs_for_a_client_that_asked(world):
    asked = {**CHAT, "stream": True, "logprobs": True, "stream_options": {"include_usage": True}}
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json=asked)
    seen = events(reply.text)
    assert seen[-2]["usage"]["prompt_tokens"] == 7
    assert seen[1]["choices"][0]["logprobs"]["content"][0]["token"] == "Hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_answered_and_measured(world, wait_until, stream):
    async with world.client() as http:
        reply = await http.post("/v1/completions", json={"model": "plain", "prompt": "Once", "stream": stream})
    assert reply.status_code == 200
    assert reply.headers["x-trimtab-adapter"] == "base"
    assert '"logprobs":null' in reply.text
    assert "token_logprobs" not in reply.text
    assert world.engine.requests[0]["model"] == "base-model"
    assert world.engine.requests[0]["logprobs"] == 0
    await wait_until(lambda: world.sink.captures)
    capture = world.sink.captures[reply.headers["x-request-id"]]
    assert list(capture.prompt) == [{"role": "user", "content": "Once"}]
    assert capture.reply == "Hello world"
    assert capture.confidence == pytest.approx(math.log(0.5))


async def test_without_confidence_the_engine_is_asked_for_nothing_more(make_world, wait_until):
    world = await make_world(capture={"confidence_per_s": 0})
    async with world.client() as http:
        await http.post("/v1/chat/completions", json=CHAT)
    assert "logprobs" not in world.engine.requests[0]
    await wait_until(lambda: world.sink.captures)
    assert next(iter(world.sink.captures.values())).confidence is None


async def test_without_content_only_metadata_is_kept(make_world, wait_until):
    world = await make_world(capture={"content": False})
    async with world.client() as http:
        await http.post("/v1/chat/completions", json=CHAT)
    await wait_until(lambda: world.sink.captures)
    capture = next(iter(world.sink.captures.values()))
    assert (list(capture.prompt), capture.reply) == ([], "")
    assert capture.completion_tokens == 3


async def test_an_adapter_and_a_base_model_can_be_asked_for_by_name(world):
    async with world.client() as http:
        for model, told in ((ADAPTER, ADAPTER), ("base-model", "base")):
            reply = await http.post("/v1/chat/completions", json={**CHAT, "model": model})
            assert reply.headers["x-trimtab-adapter"] == told


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (500, 502, "server_error"),
        (401, 502, "server_error"),
        (404, 503, "server_error"),
    ],
)
async def test_an_engines_refusal_comes_in_our_shape(world, status, code, kind):
    world.engine.refusal = (
        status,
        {"error": {"message": "too long", "type": "X", "param": "messages", "code": status}},
    )
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (code, kind)
    assert set(error) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"].startswith("req_")


async def test_an_engine_that_is_gone_is_a_502_and_another_one_is_tried(make_world):
    world = await make_world(engines=2)
    gone = world.engines[0]
    gone.url = "http://127.0.0.1:9"
    await world.route()
    async with world.client() as http:
        replies = [await http.post("/v1/chat/completions", json=CHAT) for _ in range(4)]
        assert [r.status_code for r in replies] == [200] * 4
        world.engines.pop()
        await world.route()
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "engine_failed"


async def test_an_engine_without_the_adapter_sends_the_request_elsewhere(make_world):
    world = await make_world(engines=2)
    world.engines[0].refusal = (404, {"error": {"message": "The model does not exist.", "code": 404}})
    async with world.client() as http:
        replies = [await http.post("/v1/chat/completions", json=CHAT) for _ in range(4)]
    assert [r.status_code for r in replies] == [200] * 4


async def test_who_reads_in_fits_gets_every_event_in_its_order(world, wait_until):
    world.engine.words = [f"{number:<2000}" for number in range(8_000)]
    url = httpx.URL(world.url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (url.host, url.port))
        await loop.sock_sendall(sock, raw_request({**CHAT, "stream": True}))
        said = bytearray()
        for number in itertools.count():
            if number < 3:
                await asyncio.sleep(0.3)  # all buffers on the way are full by then
            fit = await loop.sock_recv(sock, 2**20)
            said += fit
            if said.endswith(b"0\r\n\r\n"):
                break
            assert fit, "cut off"
    assert re.findall(rb'"content":"(\d+) *"', said) == [b"%d" % number for number in range(8_000)]
    await wait_until(lambda: world.sink.captures)
    assert next(iter(world.sink.captures.values())).completion_tokens == 8_000


@pytest.mark.parametrize("dies_after", [0, 2])
async def test_an_engine_that_dies_in_a_stream(world, wait_until, dies_after):
    world.engine.dies_after = dies_after
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    if dies_after == 0:
        assert reply.status_code == 502
        assert reply.json()["error"]["code"] == "engine_failed"
        return
    assert reply.status_code == 200
    last = events(reply.text)[-1]
    assert last["error"]["code"] == "engine_failed"
    await wait_until(lambda: world.sink.captures)
    capture = next(iter(world.sink.captures.values()))
    assert capture.status == 502
    assert capture.error is not None
    assert capture.reply == "Hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_aborts_the_engine(world, wait_until, stream):
    world.engine.gate = asyncio.Event()
    async with world.client() as http:
        request = asyncio.create_task(http.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
        await wait_until(lambda: world.engine.running == 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await wait_until(lambda: world.engine.aborted == 1 and world.engine.running == 0, 1.0)
    await wait_until(lambda: world.metric("trimtab_requests_total", alias="support", adapter=ADAPTER, code="499") == 1)


async def test_a_client_that_leaves_in_mid_stream_aborts_the_engine(world, wait_until):
    world.engine.words = ["x"] * 1000
    world.engine.pause_s = 0.01
    async with world.client() as http, http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as r:
        async for line in r.aiter_lines():
            if '"x"' in line:
                break
    await wait_until(lambda: world.engine.aborted == 1, 1.0)
    await wait_until(lambda: world.sink.captures)
    capture = next(iter(world.sink.captures.values()))
    assert capture.status == 499
    assert capture.reply.startswith("x")


async def test_a_full_queue_is_a_429_with_retry_after(make_world, wait_until):
    world = await make_world(gateway={"max_in_flight": 1, "max_queue": 1})
    world.engine.gate = asyncio.Event()
    async with world.client() as http:
        first = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_until(lambda: world.engine.running == 1)
        second = asyncio.create_task(http.post("/v1/chat/completions", json=CHAT))
        await wait_until(lambda: world.metric("trimtab_requests_queued", alias="support") == 1)
        third = await http.post("/v1/chat/completions", json=CHAT)
        assert third.status_code == 429
        assert int(third.headers["retry-after"]) >= 1
        assert third.json()["error"]["type"] == "rate_limit_error"
        assert world.engine.running == 1
        world.engine.gate.set()
        assert {(await first).status_code, (await second).status_code} == {200}
    assert world.metric("trimtab_requests_shed_total", alias="support", reason="queue_full") == 1
    assert world.metric("trimtab_requests_in_flight", alias="support") == 0


async def test_the_deadline_is_a_504_and_frees_the_engine(make_world, wait_until):
    world = await make_world(gateway={"deadline_s": 0.1})
    world.engine.gate = asyncio.Event()
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    await wait_until(lambda: world.engine.running == 0)


async def test_a_flip_between_requests_changes_the_adapter_at_once(world):
    async with world.client() as http:
        before = await http.post("/v1/chat/completions", json=CHAT)
        await world.route(champion="support@222222222222")
        after = await http.post("/v1/chat/completions", json=CHAT)
    assert before.headers["x-trimtab-adapter"] == ADAPTER
    assert after.headers["x-trimtab-adapter"] == "support@222222222222"


async def test_a_body_over_the_limit_is_a_413(make_world):
    world = await make_world(gateway={"max_body_bytes": 2048})
    big = {**CHAT, "messages": [{"role": "user", "content": "x" * 4096}]}

    async def trickle() -> Any:
        for _ in range(8):
            yield b"x" * 512

    async with world.client() as http:
        assert (await http.post("/v1/chat/completions", json=big)).status_code == 413
        reply = await http.post("/v1/chat/completions", content=trickle())
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "request_too_large"
    assert world.engine.requests == []


async def test_invented_model_names_make_one_series(world):
    async with world.client() as http:
        for n in range(20):
            reply = await http.post("/v1/chat/completions", json={**CHAT, "model": f"invented-{n}"})
            assert reply.status_code == 404
            assert reply.json()["error"]["code"] == "model_not_found"
        text = (await http.get("/metrics")).text
    assert "invented" not in text
    assert world.metric("trimtab_requests_total", alias="unknown", adapter="unknown", code="404") == 20


async def test_metrics_of_a_served_request(world, wait_until):
    async with world.client() as http:
        await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    labels = {"alias": "support", "adapter": ADAPTER}
    await wait_until(lambda: world.metric("trimtab_requests_total", code="200", **labels) == 1)
    assert world.metric("trimtab_completion_tokens_total", **labels) == 3
    assert world.metric("trimtab_prompt_tokens_total", **labels) == 7
    for name in ("request_duration_seconds", "time_to_first_token_seconds", "inter_token_latency_seconds"):
        assert world.metric(f"trimtab_{name}_count", **labels) == 1
    assert world.metric("trimtab_reply_confidence_ratio_sum", **labels) == pytest.approx(0.5)


async def test_many_at_once(world):
    async with world.client(limits=httpx.Limits(max_connections=64)) as http:
        replies = await asyncio.gather(*(http.post("/v1/chat/completions", json=CHAT) for _ in range(60)))
    assert {r.status_code for r in replies} == {200}
    assert len({r.headers["x-request-id"] for r in replies}) == 60


async def test_a_trace_context_travels_on_and_a_malformed_one_does_not(world):
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with world.client() as http:
        await http.post("/v1/chat/completions", json=CHAT, headers={"traceparent": parent, "tracestate": "a=1"})
        await http.post("/v1/chat/completions", json=CHAT, headers={"traceparent": "00-0-0-01", "tracestate": "a=1"})
        await http.post(
            "/v1/chat/completions", json=CHAT, headers={"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}
        )
    told = [(h.get("traceparent"), h.get("tracestate")) for h in world.engine.headers]
    assert told == [(parent, "a=1"), (None, None), (None, None)]


async def test_tenants_share_no_prefix_cache_and_cannot_choose_its_salt(make_world, key_of):
    world = await make_world(keys=[key_of("ann", Scope.INFER), key_of("bob", Scope.INFER)])
    for name in ("ann", "bob", "nobody"):
        async with world.client(headers={"authorization": f"Bearer {name}"}) as http:
            await http.post("/v1/chat/completions", json=CHAT)
            chosen = await http.post("/v1/chat/completions", json={**CHAT, "cache_salt": "bob"})
            assert chosen.status_code == 400
    assert [asked.get("cache_salt") for asked in world.engine.requests] == ["ann", "bob", None]


async def test_the_turns_of_a_conversation_meet_one_engine(make_world):
    world = await make_world(engines=3)
    async with world.client() as http:
        for n in range(12):
            turn = [{"role": "user", "content": f"Hello {n}"}]
            for _ in range(3):
                await http.post("/v1/chat/completions", json={"model": "support", "messages": turn})
                turn = [*turn, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "More."}]
    met = [{asked["messages"][0]["content"] for asked in engine.requests} for engine in world.engines]
    assert sum(map(len, met)) == 12
    assert sum(len(engine.requests) for engine in world.engines) == 36
    assert sum(bool(one) for one in met) > 1


async def test_the_metadata_by_which_the_operator_slices_is_captured_and_no_other(make_world, wait_until):
    world = await make_world(drift={"slices": ["channel", "tier=gold"]})
    metadata = {"channel": "web", "tier": "silver", "session": "s-1"}
    async with world.client() as http:
        told = await http.post("/v1/chat/completions", json={**CHAT, "metadata": metadata})
        untold = await http.post("/v1/chat/completions", json=CHAT)
    ids = [reply.headers["x-request-id"] for reply in (told, untold)]
    await wait_until(lambda: all(one in world.sink.captures for one in ids))
    assert [world.sink.captures[one].tags for one in ids] == [{"channel": "web", "tier": "silver"}, {}]
