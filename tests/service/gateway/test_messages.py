"""/v1/messages: what it may contain, how a reply is read, and errors and keys as Anthropic's clients know them."""

from __future__ import annotations

import json

import pytest

from service.core.errors import BadRequest
from service.core.records import Scope
from service.gateway.ask import Kind
from service.gateway.messages import MessagesReader
from service.gateway.protocol import read_ask
from service.settings import GatewaySettings
from tests.service.gateway.apis import messages

LIMITS = GatewaySettings(max_tokens=4000)
ADAPTER = "support@111111111111"
USER = [{"role": "user", "content": "Hi"}]
ASK = {"model": "support", "max_tokens": 8, "messages": USER}
TOOL = {"name": "find", "description": "d", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "t1", "name": "find", "input": {"a": "b"}}


def read(**fields):
    return read_ask(Kind.MESSAGES, json.dumps({**ASK, **fields}).encode(), LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {"system": "Be short", "temperature": 0.5, "top_k": 5, "top_p": 0.9, "stop_sequences": ["x"]},
        {"system": [{"type": "text", "text": "Be short", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "find", "disable_parallel_tool_use": True}},
        {"tools": [{**TOOL, "type": "custom", "strict": True}], "tool_choice": {"type": "any"}, "stream": True},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"messages": [*USER, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Yes", "citations": None}, USE]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "is_error": False,
                                          "content": [{"type": "text", "text": "42"}]}]}]},
        {"messages": [{"role": "system", "content": "s"}, *USER]},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)  # fmt: skip
def test_accepted_and_passed_on(fields):
    body = json.loads(read(**fields).engine_body("served", confidence=True, tenant="ann"))
    assert {name: body[name] for name in fields} == fields
    assert (body["model"], body["cache_salt"]) == ("served", "ann")
    assert "logprobs" not in body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 4001}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {}}]}]}]}, "messages[0].content[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "input_schema": {"pattern": "a" * 513}}]}, "tools"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"priority": 1}, "priority"),
        ({"vllm_xargs": {}}, "vllm_xargs"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ],
)  # fmt: skip
def test_refused(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param


def test_it_is_captured_as_the_messages_of_a_chat():
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Whe"}, {"type": "text", "text": "re?"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"},
                                          {"type": "text", "text": "Look."}, USE]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                                     {"type": "text", "text": "So?"}]},
    ]  # fmt: skip
    ask = read(system=[{"type": "text", "text": "You help."}], messages=turns, metadata={"user_id": "ann"})
    assert ask.user == "ann"
    assert b"user_id" not in ask.engine_body("m", confidence=False, tenant=None)
    call = {"id": "t1", "type": "function", "function": {"name": "find", "arguments": '{"a":"b"}'}}
    assert ask.prompt() == [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "42"},
        {"role": "user", "content": "So?"},
    ]


@pytest.mark.parametrize(
    ("asked", "text", "finish", "tokens"),
    [
        ({}, "Hello world", "stop", 3),
        ({"tools": [TOOL]}, '[{"name":"find","arguments":"{\\"a\\":\\"b\\"}"}]', "tool_calls", 3),
    ],
)
def test_a_reply_is_read_from_its_whole_or_its_events(asked, text, finish, tokens):
    reply, events = messages({"model": "m", **asked}, ["Hello", " wor", "ld"])
    whole, streamed = MessagesReader(), MessagesReader()
    whole.whole(json.dumps(reply, separators=(",", ":")).encode())
    for name, data in events:
        streamed.feed(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
    assert whole.said() == streamed.said()
    said = whole.said()
    assert (said.text, said.finish_reason, said.completion_tokens) == (text, finish, tokens)
    assert said.prompt_tokens == 7
    assert said.confidence is None


def test_the_engines_own_error_in_the_stream():
    reader = MessagesReader()
    reader.feed(b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"boom"}}\n\n')
    assert reader.said().error == "boom"


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_answered_captured_and_counted(world, wait_until, stream):
    async with world.client() as http:
        reply = await http.post("/v1/messages", json={**ASK, "stream": stream, "metadata": {"user_id": "ann"}})
    assert reply.status_code == 200
    assert reply.headers["x-trimtab-adapter"] == ADAPTER
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    await wait_until(lambda: world.sink.captures)
    capture = world.sink.captures[reply.headers["x-request-id"]]
    assert (capture.reply, list(capture.prompt)) == ("Hello world", USER)
    assert (capture.prompt_tokens, capture.completion_tokens, capture.finish_reason) == (7, 3, "stop")
    assert capture.source.startswith("user:")


async def test_it_has_no_shadow_since_the_engine_would_not_let_it_wait(world, wait_until):
    await world.route(candidate="support@222222222222", mirror_ratio=1.0)
    async with world.client() as http:
        await http.post("/v1/messages", json=ASK)
        chat = {"model": "support", "messages": USER}
        await http.post("/v1/chat/completions", json=chat)
    await wait_until(lambda: world.sink.shadows)
    assert len(world.sink.shadows) == 1
    assert "max_tokens" not in world.engine.requests[-1]


async def test_tokens_are_counted_and_not_captured(make_world, wait_until):
    world = await make_world(engines=1)
    async with world.client() as http:
        reply = await http.post("/v1/messages/count_tokens", json={"model": "support", "messages": USER, "system": "s"})
        assert reply.json()["input_tokens"] == 7
        assert world.engine.requests[0] == {"model": ADAPTER, "messages": USER, "system": "s"}
        await http.post("/v1/messages", json=ASK)
    await wait_until(lambda: world.sink.captures)
    assert len(world.sink.captures) == 1
    assert world.metric("trimtab_requests_total", alias="support", adapter=ADAPTER, code="200") == 2
    assert world.metric("trimtab_prompt_tokens_total", alias="support", adapter=ADAPTER) == 7


async def test_a_key_may_come_as_anthropics_clients_send_it(make_world, key_of):
    world = await make_world(
        keys=[key_of("good", Scope.INFER), key_of("narrow", Scope.FEEDBACK)], server={"require_keys": True}
    )
    async with world.client() as http:
        for path, body in (("messages", ASK), ("messages/count_tokens", {"model": "support", "messages": USER})):
            for headers, status, kind in (
                ({"x-api-key": "good"}, 200, None), ({"authorization": "Bearer good"}, 200, None),
                ({"x-api-key": "bad"}, 401, "authentication_error"), ({}, 401, "authentication_error"),
                ({"x-api-key": "narrow"}, 403, "permission_error"),
            ):  # fmt: skip
                reply = await http.post(f"/v1/{path}", json=body, headers=headers)
                assert reply.status_code == status
                if kind:
                    assert reply.json()["error"]["type"] == kind
        chat = await http.post(
            "/v1/chat/completions", json={"model": "support", "messages": USER}, headers={"x-api-key": "good"}
        )
        assert chat.status_code == 401


async def test_every_error_has_anthropics_shape_and_ours(world):
    async with world.client() as http:
        replies = [
            await http.post("/v1/messages", json={**ASK, "frobnicate": 1}),
            await http.post("/v1/messages", json={**ASK, "model": "nobody"}),
            await http.get("/v1/messages"),
        ]
    told = [(r.status_code, r.json()["type"], r.json()["error"]["type"], r.json()["error"]["code"]) for r in replies]
    assert told == [
        (400, "error", "invalid_request_error", "unknown_parameter"),
        (404, "error", "not_found_error", "model_not_found"),
        (405, "error", "api_error", "method_not_allowed"),
    ]
    assert all(r.json()["request_id"] == r.headers["x-request-id"] for r in replies)
