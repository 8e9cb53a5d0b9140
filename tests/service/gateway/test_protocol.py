"""What a request may contain: a truth table."""

from __future__ import annotations

import json

import pytest

from service.core.errors import BadRequest
from service.gateway.ask import Kind
from service.gateway.protocol import read_ask
from service.settings import GatewaySettings

LIMITS = GatewaySettings(max_tokens=100)
USER = [{"role": "user", "content": "Hi"}]
DEEP: dict = {}
for _ in range(40):
    DEEP = {"properties": {"a": DEEP}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def read(kind: Kind, **fields):
    base = {"messages": USER} if kind is Kind.CHAT else {"prompt": "Hi"}
    return read_ask(kind, json.dumps({"model": "m", **base, **fields}).encode(), LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2.0, "top_p": 0.5, "top_k": 40, "min_p": 0.1},
        {"n": 16},
        {"n": None, "stop": None, "logit_bias": None, "seed": None, "user": None},
        {"stop": "x"},
        {"stop": ["x", "y"]},
        {"max_tokens": 100},
        {"seed": -(2**63)},
        {"logit_bias": {"5": -100}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {}},
        {"presence_penalty": -2, "frequency_penalty": 2, "repetition_penalty": 1.1},
        {"response_format": SCHEMA},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"ignore_eos": True, "min_tokens": 3, "stop_token_ids": [1, 2]},
        {"user": "ann"},
    ],
)
@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETION])
def test_accepted(kind, fields):
    ask = read(kind, **fields)
    sent = json.loads(ask.engine_body("m", confidence=False, tenant=None))
    for name, value in fields.items():
        if name == "user":
            assert name not in sent
        elif name == "stream_options":
            assert sent[name]["include_usage"] is True
        else:
            assert sent[name] == value


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True, "top_logprobs": 20},
        {"max_completion_tokens": 5},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
        {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "42"},
                {"role": "assistant", "content": "x", "refusal": None, "annotations": None, "audio": None,
                 "function_call": None, "reasoning": None},
            ]
        },
    ],
)  # fmt: skip
def test_accepted_in_a_chat(fields):
    sent = json.loads(read(Kind.CHAT, **fields).engine_body("m", confidence=False, tenant=None))
    assert {name: sent[name] for name in fields} == fields


@pytest.mark.parametrize("prompt", ["Hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]]])
def test_accepted_prompts(prompt):
    assert (
        json.loads(read(Kind.COMPLETION, prompt=prompt).engine_body("m", confidence=False, tenant=None))["prompt"]
        == prompt
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x" * 257]}, "stop[0]"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": DEEP}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"pattern": "a" * 513}}}},
         "response_format"),
        ({"structured_outputs": {"grammar": "root ::= root"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "a" * 513}}, "structured_outputs.regex"),
        ({"structured_outputs": {"json": {"enum": list(range(5000))}}}, "structured_outputs"),
        ({"priority": -5}, "priority"),
        ({"cache_salt": "x"}, "cache_salt"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"prompt_logprobs": 5}, "prompt_logprobs"),
        ({"kv_transfer_params": {}}, "kv_transfer_params"),
        ({"vllm_xargs": {}}, "vllm_xargs"),
        ({"request_id": "mine"}, "request_id"),
        ({"lora_path": "/etc"}, "lora_path"),
        ({"user": "x" * 513}, "user"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETION])
def test_refused(kind, fields, param):
    with pytest.raises(BadRequest) as refused:
        read(kind, **fields)
    assert refused.value.param == param
    assert refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "x": 1}]}, "messages[0].x"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "file:///x"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"prompt": "x"}, "prompt"),
    ],
)  # fmt: skip
def test_refused_in_a_chat(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(Kind.CHAT, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"messages": USER}, "messages"),
    ],
)
def test_refused_in_a_completion(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(Kind.COMPLETION, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"\xff", b'{"model":"m"}', b'{"model":"\xed\xa0\x80","messages":[]}',
        b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\udc00 low"}]}',
        b'{"model":"m","temperature":NaN,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","temperature":1e999,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":'
        b'{"name":"x","schema":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}}}",
    ],
)  # fmt: skip
def test_bytes_that_are_no_request(body):
    with pytest.raises(BadRequest):
        read_ask(Kind.CHAT, body, LIMITS)


def test_a_text_that_only_looks_like_an_escaped_nul_is_accepted():
    ask = read(Kind.CHAT, messages=[{"role": "user", "content": "\\u0000"}])
    assert ask.prompt()[0]["content"] == "\\u0000"


def test_openais_bookkeeping_is_taken_and_not_passed_on():
    fields = {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "s", "user": "u"}
    assert json.loads(read(Kind.CHAT, **fields).engine_body("x", confidence=False, tenant=None)) == {
        "model": "x",
        "messages": USER,
    }


def test_log_probabilities_are_asked_for_only_where_they_are_cheap():
    def asked(kind: Kind, **fields) -> object:
        return json.loads(read(kind, **fields).engine_body("x", confidence=True, tenant=None)).get("logprobs")

    assert asked(Kind.CHAT) is True
    assert asked(Kind.COMPLETION) == 0
    assert asked(Kind.COMPLETION, logprobs=3) == 3
    assert asked(Kind.COMPLETION, echo=True) is None


def test_the_shadow_asks_the_same_once_and_whole():
    ask = read(Kind.CHAT, temperature=0.3, n=4, stream=True, stream_options={"include_usage": True}, user="ann", seed=7)
    shadow = json.loads(ask.shadow_body("c"))
    assert shadow == {"model": "c", "messages": USER, "temperature": 0.3, "seed": 7, "logprobs": True}
