"""/v1/responses: what it may contain, what is stored of it (nothing), and how a reply is read."""

from __future__ import annotations

import json

import pytest

from service.core.errors import BadRequest
from service.gateway.ask import Kind
from service.gateway.protocol import read_ask
from service.gateway.responses import ResponsesReader
from service.settings import GatewaySettings
from tests.service.gateway.apis import responses

LIMITS = GatewaySettings(max_tokens=100)
ADAPTER = "support@111111111111"
TOOL = {"type": "function", "name": "find", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "find",
    "arguments": "{}",
    "id": "fc_1",
    "status": "completed",
}

OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}


def read(**fields):
    return read_ask(Kind.RESPONSES, json.dumps({"model": "m", "input": "Hi", **fields}).encode(), LIMITS)


def sent(ask, tenant=None):
    return json.loads(ask.engine_body("served", confidence=True, tenant=tenant))


@pytest.mark.parametrize(
    "fields",
    [
        {"instructions": "Be short", "max_output_tokens": 100, "temperature": 0, "top_p": 0.5},
        {"input": [{"role": "user", "content": "Hi"}]},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
        {"input": [{"role": "user", "content": "Hi"}, CALL, OUTPUT]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "find"}, "parallel_tool_calls": False},
        {"tools": [{"type": "custom", "name": "c", "format": {"type": "text"}}], "tool_choice": "required"},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}}},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "stream": True},
        {"reasoning": {"effort": "low", "summary": None}, "truncation": "auto", "metadata": {"a": "b"}, "user": "ann"},
        {"top_k": 3, "min_p": 0.1, "seed": 7, "stop": ["a"], "logit_bias": {"5": 1}, "presence_penalty": 1},
        {"structured_outputs": {"choice": ["a"]}, "chat_template_kwargs": {"enable_thinking": False}},
    ],
)  # fmt: skip
def test_accepted_and_passed_on(fields):
    body = sent(read(**fields))
    assert {name: body[name] for name in fields} == fields


@pytest.mark.parametrize("store", [None, True, False])
def test_nothing_is_stored_whatever_is_asked(store):
    fields = {"background": False, "previous_response_id": None, "conversation": None, "prompt": None}
    body = sent(read(store=store, safety_identifier="s", stream_options={"include_obfuscation": True}, **fields))
    assert body == {"model": "served", "input": "Hi", "store": False}
    assert sent(read(), tenant="ann")["cache_salt"] == "ann"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"previous_input_messages": []}, "previous_input_messages"),
        ({"enable_response_messages": True}, "enable_response_messages"),
        ({"request_id": "resp_of_another"}, "request_id"),
        ({"session_id": "s"}, "session_id"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"priority": -1}, "priority"),
        ({"vllm_xargs": {}}, "vllm_xargs"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"max_output_tokens": 101}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"include": ["web_search_call.action.sources"]}, "include[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]}, "tools[0].type"),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "parameters": {"pattern": "a" * 513}}]}, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": list(range(5000))}}}}, "text"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_of_another"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
         "input[0].content[0].type"),
        ({"input": "a\0b"}, "input"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    ],
)  # fmt: skip
def test_refused(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param
    assert refused.value.message


def test_it_is_captured_as_the_messages_of_a_chat():
    parts = [{"type": "output_text", "text": "I ", "annotations": []}, {"type": "refusal", "refusal": "will not."}]
    items = [
        {"role": "developer", "content": "Be short"},
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        CALL,
        OUTPUT,
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": parts},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    assert read(input=items, instructions="You help.").prompt() == [
        {"role": "system", "content": "You help."},
        {"role": "developer", "content": "Be short"},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": "I will not."},
    ]
    assert read(user="ann").conversation() != read(user="bob").conversation()
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    assert read(input=turn).conversation() == read(input=turn[:1]).conversation() == read().conversation()


def test_a_reply_is_read_from_its_whole_its_events_or_what_came_of_them():
    reply, events = responses({"model": "m"}, ["Hello", " wor", "ld"])
    lines = [f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events]
    whole, streamed, broken = ResponsesReader(), ResponsesReader(), ResponsesReader()
    whole.whole(json.dumps(reply).encode())
    streamed.feed(b"".join(lines))
    for line in lines[:6]:
        broken.feed(line)
    assert whole.said() == streamed.said()
    said = whole.said()
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("Hello world", 7, 3)
    assert (said.finish_reason, said.confidence, said.error) == ("stop", None, None)
    assert (broken.said().text, broken.said().finish_reason) == ("Hello wor", None)


def test_calls_of_tools_and_replies_that_were_cut():
    called, cut = ResponsesReader(), ResponsesReader()
    called.whole(json.dumps({"output": [CALL], "status": "completed"}).encode())
    cut.whole(json.dumps({"output": [], "status": "incomplete", "error": {"message": "boom"}}).encode())
    assert json.loads(called.said().text) == [{"name": "find", "arguments": "{}"}]
    assert called.said().finish_reason == "tool_calls"
    assert (cut.said().finish_reason, cut.said().error) == ("length", "boom")


@pytest.mark.parametrize("stream", [False, True])
async def test_it_is_answered_captured_and_counted(world, wait_until, stream):
    async with world.client() as http:
        reply = await http.post(
            "/v1/responses", json={"model": "support", "input": "Where?", "user": "ann", "stream": stream}
        )
    assert reply.status_code == 200
    assert reply.headers["x-trimtab-adapter"] == ADAPTER == world.engine.requests[0]["model"]
    await wait_until(lambda: world.sink.captures)
    capture = world.sink.captures[reply.headers["x-request-id"]]
    assert (capture.reply, list(capture.prompt)) == ("Hello world", [{"role": "user", "content": "Where?"}])
    assert (capture.prompt_tokens, capture.completion_tokens, capture.streamed) == (7, 3, stream)
    assert capture.source.startswith("user:")
    assert world.metric("trimtab_completion_tokens_total", alias="support", adapter=ADAPTER) == 3


async def test_its_shadow_is_the_same_api(world, wait_until):
    await world.route(candidate="support@222222222222", mirror_ratio=1.0)
    async with world.client() as http:
        await http.post("/v1/responses", json={"model": "support", "input": "Where?", "stream": True})
    await wait_until(lambda: world.sink.shadows)
    shadow = world.engine.requests[1]
    assert shadow == {"priority": 100, "model": "support@222222222222", "input": "Where?", "store": False}
    assert next(iter(world.sink.shadows.values())).reply == "Hello world"


async def test_there_are_no_stored_replies(world):
    async with world.client() as http:
        for method, path in (
            ("GET", "resp_1"),
            ("DELETE", "resp_1"),
            ("POST", "resp_1/cancel"),
            ("GET", "resp_1/input_items"),
        ):
            reply = await http.request(method, f"/v1/responses/{path}")
            assert reply.status_code == 404
            assert "not stored" in reply.json()["error"]["message"]
    assert world.engine.requests == []
