"""Bodies that would hurt an engine, or the gateway itself: each is refused with a 4xx and no engine sees it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

CHAT: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "support", "prompt": "Hi"}
RESPONSES: dict[str, Any] = {"model": "support", "input": "Hi"}
MESSAGES: dict[str, Any] = {**CHAT, "max_tokens": 16}
CHAT_PATH, TEXT_PATH = "/v1/chat/completions", "/v1/completions"
RESPONSES_PATH, MESSAGES_PATH = "/v1/responses", "/v1/messages"


def nested(depth: int, leaf: Any = None) -> Any:
    schema: Any = leaf or {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def tool(parameters: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


def answer_format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def said(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


WIDE = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}
REGEX = "(a+)+" * 1000

CHAT_BOMBS: dict[str, dict[str, Any]] = {
    "n": {"n": 100_000},
    "n of zero": {"n": 0},
    "n as a float": {"n": 1e300},
    "max_tokens": {"max_tokens": 10**9},
    "max_completion_tokens": {"max_completion_tokens": 10**9},
    "max_tokens below zero": {"max_tokens": -1},
    "max_tokens beyond 64 bits": {"max_tokens": 10**30},
    "min_tokens": {"min_tokens": 10**9},
    "seed beyond 64 bits": {"seed": 2**80},
    "top_logprobs": {"logprobs": True, "top_logprobs": 100_000},
    "prompt_logprobs": {"prompt_logprobs": 100_000},
    "logit_bias": {"logit_bias": {str(n): 1 for n in range(5_000)}},
    "logit_bias of a name": {"logit_bias": {"x" * 100: 1}},
    "logit_bias out of range": {"logit_bias": {"1": 1e9}},
    "many stops": {"stop": ["x"] * 1_000},
    "a long stop": {"stop": "x" * 100_000},
    "many stop_token_ids": {"stop_token_ids": list(range(5_000))},
    "bad_words": {"bad_words": ["x"] * 10_000},
    "temperature": {"temperature": 1e308},
    "best_of": {"best_of": 1_000},
    "use_beam_search": {"use_beam_search": True},
    "many messages": {"messages": CHAT["messages"] * 10_000},
    "no messages": {"messages": []},
    "many tools": {"tools": tool({})["tools"] * 1_000},
    "many tool calls": {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}] * 1_000}]},
    "a deep schema": answer_format(nested(200)),
    "a deep schema in a tool": tool(nested(200)),
    "a deeper schema": answer_format(nested(400)),
    "a wide schema": answer_format(WIDE),
    "a schema with a huge pattern": answer_format({"type": "string", "pattern": REGEX}),
    "a huge regex": {"structured_outputs": {"regex": REGEX}},
    "many choices": {"structured_outputs": {"choice": [str(n) for n in range(100_000)]}},
    "a grammar": {"structured_outputs": {"grammar": 'root ::= "x" root'}},
    "guided_regex": {"guided_regex": REGEX},
    "guided_grammar": {"guided_grammar": 'root ::= "x" root'},
    "structural_tag": {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
    "chat_template": {"chat_template": "{% for a in range(10**9) %}x{% endfor %}"},
    "chat_template_kwargs": {"chat_template_kwargs": {"tools_in_user_message": "{{ 7 * 7 }}"}},
    "documents": {"documents": [{"title": "x", "text": "y"}]},
    "mm_processor_kwargs": {"mm_processor_kwargs": {"num_crops": 10**9}},
    "an image by URL": said([{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}]),
    "an image by file": said([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
    "audio by URL": said([{"type": "audio_url", "audio_url": {"url": "http://127.0.0.1/"}}]),
    "video by URL": said([{"type": "video_url", "video_url": {"url": "http://127.0.0.1/"}}]),
    "audio in the body": said([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]),
    "an embedded image": said([{"type": "image_embeds", "image_embeds": "AAAA"}]),
    "a role of its own": {"messages": [{"role": "root", "content": "x"}]},
    "priority": {"priority": -1000},
    "cache_salt": {"cache_salt": "of-another-tenant"},
    "kv_transfer_params": {"kv_transfer_params": {"remote_host": "evil"}},
    "vllm_xargs": {"vllm_xargs": {"x": 1}},
    "logits_processors": {"logits_processors": ["os.system"]},
    "return_token_ids": {"lora_request": {"path": "/etc"}},
    "request_id": {"request_id": "of-another"},
    "extra_body": {"extra_body": {"n": 100_000}},
    "NUL in a message": said("a\0b"),
    "NUL in a tool": tool({"description": "a\0b"}),
    "NUL in a key": tool({"a\0b": 1}),
    "NUL in the model": {"model": "support\0"},
    "NUL in the user": {"user": "ann\0"},
    "NUL in a stop": {"stop": "\0"},
    "NUL in the metadata": {"metadata": {"a": "\0"}},
    "a list as the model": {"model": ["support"]},
    "an object as a message": {"messages": {"role": "user"}},
    "a path as the model": {"model": "../../etc/passwd"},
}

TEXT_BOMBS: dict[str, dict[str, Any]] = {
    "prompt_embeds": {"prompt_embeds": "AAAA"},
    "many prompts": {"prompt": ["x"] * 1_000},
    "token ids out of range": {"prompt": [2**40]},
    "token ids below zero": {"prompt": [-1]},
    "token ids of many": {"prompt": [[1]] * 1_000},
    "a mixture": {"prompt": ["x", 1]},
    "logprobs": {"logprobs": 100_000},
    "best_of": {"best_of": 1_000},
    "n times prompts": {"n": 17, "prompt": ["x"] * 16},
    "NUL": {"prompt": "a\0b"},
    "NUL in a list": {"prompt": ["a\0b"]},
}


def item(**content: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [content]}]}


RESPONSES_BOMBS: dict[str, dict[str, Any]] = {
    "max_output_tokens": {"max_output_tokens": 10**9},
    "a reply of another": {"previous_response_id": "resp_1"},
    "a conversation of another": {"conversation": "conv_1"},
    "in the background": {"background": True},
    "a stored prompt": {"prompt": {"id": "p"}},
    "many tools": {"tools": [{"type": "function", "name": "f", "parameters": {}}] * 1_000},
    "a deep tool": {"tools": [{"type": "function", "name": "f", "parameters": nested(200)}]},
    "a deep schema": {"text": {"format": {"type": "json_schema", "name": "a", "schema": nested(200)}}},
    "a huge pattern": {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"pattern": REGEX}}}},
    "code": {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    "the web": {"tools": [{"type": "web_search_preview"}]},
    "MCP": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1/"}]},
    "an image by URL": item(type="input_image", image_url="http://169.254.169.254/"),
    "a file by URL": item(type="input_file", file_url="file:///etc/passwd"),
    "NUL": item(type="input_text", text="a\0b"),
    "priority": {"priority": -1},
    "cache_salt": {"cache_salt": "of-another"},
    "top_logprobs": {"top_logprobs": 100_000},
}

MESSAGES_BOMBS: dict[str, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 10**9},
    "many tools": {"tools": [{"name": "f", "input_schema": {}}] * 1_000},
    "a deep tool": {"tools": [{"name": "f", "input_schema": nested(200)}]},
    "a deep schema": {"output_config": {"format": {"type": "json_schema", "schema": nested(200)}}},
    "many stops": {"stop_sequences": ["x"] * 1_000},
    "an image by URL": said([{"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}]),
    "a document by URL": said([{"type": "document", "source": {"type": "url", "url": "http://127.0.0.1/"}}]),
    "a server's tool": {"tools": [{"type": "bash_20250124", "name": "bash"}]},
    "MCP": {"mcp_servers": [{"type": "url", "url": "http://127.0.0.1/", "name": "x"}]},
    "a container": {"container": "c"},
    "NUL": said("a\0b"),
    "NUL in the system": {"system": "a\0b"},
}

MODEL = b'{"model":"support","messages":[{"role":"user","content":'
RAW: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"model=support",
    "half of it": MODEL,
    "two": json.dumps(CHAT).encode() * 2,
    "an array": b"[]",
    "null": b"null",
    "NaN": MODEL + b'"x"}],"temperature":NaN}',
    "Infinity": MODEL + b'"x"}],"temperature":1e999}',
    "a lone surrogate": MODEL + b'"\\ud800"}]}',
    "a lone low surrogate": MODEL + b'"\\udc00x"}]}',
    "a lone surrogate in a key": b'{"model":"support","\\ud800":1}',
    "invalid UTF-8": MODEL + b'"\xff\xfe"}]}',
    "an encoded surrogate": MODEL + b'"\xed\xa0\x80"}]}',
    "overlong UTF-8": MODEL + b'"\xc0\x80"}]}',
    "a raw NUL": MODEL + b'"a\x00b"}]}',
    "UTF-16": json.dumps(CHAT).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(CHAT).encode(),
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "deep in a message": MODEL + b"[" * 100_000,
    "deep in a schema": b'{"tools":[{"function":{"name":"f","parameters":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_003,
    "a number of 100,000 digits": MODEL + b'"x"}],"max_tokens":' + b"9" * 100_000 + b"}",
    "a number of 100,000 digits in a schema": MODEL + b'"x"}],"response_format":{"type":"json_schema","json_schema":'
    b'{"name":"a","schema":{"maximum":' + b"9" * 100_000 + b"}}}}",
    "an exponent of 100,000 digits": MODEL + b'"x"}],"temperature":1e' + b"9" * 100_000 + b"}",
    "a model twice, the second bad": b'{"model":"support",' + json.dumps({**CHAT, "model": 1}).encode()[1:],
}  # fmt: skip


async def check_refused(world, bodies: Iterable[tuple[str, str, bytes]]) -> None:
    """Each (name, path, body) is refused in our shape, no engine sees anything, and the gateway stays well."""
    taken = []
    async with world.client() as http:
        for name, path, body in bodies:
            reply = await http.post(path, content=body, headers={"content-type": "application/json"})
            if not 400 <= reply.status_code < 500 or world.engine.requests:
                taken.append((name, path, reply.status_code))
                world.engine.requests.clear()
                continue
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}, (name, path)
            assert len(reply.content) < 2_000, (name, path)
        assert (await http.post(CHAT_PATH, json=CHAT)).status_code == 200
    assert not taken


async def test_parameter_bombs_are_refused(world):
    chats = [(name, CHAT_PATH, {**CHAT, **bomb}) for name, bomb in CHAT_BOMBS.items()]
    texts = [(name, TEXT_PATH, {**TEXT, **bomb}) for name, bomb in {**CHAT_BOMBS, **TEXT_BOMBS}.items()]
    responses = [(name, RESPONSES_PATH, {**RESPONSES, **bomb}) for name, bomb in RESPONSES_BOMBS.items()]
    messages = [(name, MESSAGES_PATH, {**MESSAGES, **bomb}) for name, bomb in MESSAGES_BOMBS.items()]
    bombs = [*chats, *texts, *responses, *messages]
    await check_refused(world, [(name, path, json.dumps(body).encode()) for name, path, body in bombs])


async def test_what_is_no_proper_json_is_refused(world):
    paths = (CHAT_PATH, TEXT_PATH, RESPONSES_PATH, MESSAGES_PATH, "/v1/embeddings", "/v1/feedback")
    await check_refused(world, [(name, path, body) for name, body in RAW.items() for path in paths])


# Where a client may put any JSON; DEEP stands for it.
ANYWHERE = (
    (CHAT_PATH, {**CHAT, **tool("DEEP")}),
    (CHAT_PATH, {**CHAT, **answer_format("DEEP")}),
    (CHAT_PATH, {**CHAT, "structured_outputs": {"json": "DEEP"}}),
    (RESPONSES_PATH, {**RESPONSES, "tools": [{"type": "function", "name": "f", "parameters": "DEEP"}]}),
    (RESPONSES_PATH, {**RESPONSES, **item(type="output_text", text="x", logprobs=["DEEP"])}),
    (MESSAGES_PATH, {**MESSAGES, "tools": [{"name": "f", "input_schema": "DEEP"}]}),
    (MESSAGES_PATH, {**MESSAGES, "tools": [{"name": "f", "input_schema": {}, "input_examples": ["DEEP"]}]}),
    (MESSAGES_PATH, {**MESSAGES, **said([{"type": "tool_use", "id": "1", "name": "f", "input": "DEEP"}])}),
)


async def test_no_depth_is_a_fault_of_the_server(world):
    """Near the interpreter's own limit of recursion one part may manage what the next cannot."""
    depths = (20, 30, 35, *range(60, 1_200, 150), 3_000, 50_000)
    async with world.client() as http:
        for depth, leaf, (path, body) in itertools.product(depths, ('"\\u0000"', "1"), ANYWHERE):
            deep = json.dumps(body).replace('"DEEP"', '{"a":' * depth + leaf + "}" * depth)
            reply = await http.post(path, content=deep.encode())
            allowed = {200, 400} if depth < 32 and leaf == "1" else {400}
            assert reply.status_code in allowed, (depth, path, body, reply.text)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_hundred_megabytes_are_refused_before_they_are_taken(make_world, chunked):
    world = await make_world()
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_600):
            yield b" " * 65_536
            sent += 65_536
            await asyncio.sleep(0)

    headers = {} if chunked else {"content-length": str(1_600 * 65_536)}
    async with world.client() as http:
        for path in (CHAT_PATH, TEXT_PATH, "/v1/feedback"):
            reply = await http.post(path, content=body(), headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert not world.engine.requests
