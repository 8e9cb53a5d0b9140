"""What the conformance test asks of vLLM and of the gateway. `refused` is why the gateway alone says 400."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.acceptance.conformance import Difference as D

CHAT, COMPLETION, RESPONSES = "chat/completions", "completions", "responses"
MESSAGES, COUNT, EMBEDDINGS = "messages", "messages/count_tokens", "embeddings"

USER = [{"role": "user", "content": "Where is my order 12?"}]
LONG = [{"role": "user", "content": "x" * 3000}]
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": OBJECT}}
FLAT_TOOL = {"type": "function", "name": "f", "description": "d", "parameters": OBJECT}
MESSAGE_TOOL = {"name": "f", "description": "d", "input_schema": OBJECT}
NAMED = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
STREAM: dict[str, Any] = {"stream": True}
USAGE: dict[str, Any] = {**STREAM, "stream_options": {"include_usage": True}}

BASE: dict[str, dict[str, Any]] = {
    CHAT: {"messages": USER, "max_tokens": 8, "temperature": 0, "seed": 1},
    COMPLETION: {"prompt": "Hello there", "max_tokens": 8, "temperature": 0, "seed": 1},
    RESPONSES: {"input": "Where is my order 12?", "max_output_tokens": 8, "temperature": 0, "seed": 1},
    MESSAGES: {"messages": USER, "max_tokens": 8, "temperature": 0},
    COUNT: {"messages": USER},
    EMBEDDINGS: {"model": "embedder", "input": "Hello"},
}


@dataclass(frozen=True)
class Case:
    """`fields` change the path's `BASE`; None takes one out."""

    path: str
    fields: dict[str, Any]
    refused: D | None = None

    @property
    def body(self) -> dict[str, Any]:
        body = {"model": "base", **BASE[self.path], **self.fields}
        return {name: value for name, value in body.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.path}-{self.fields}"[:80]


def _cases(path: str, *fields: dict[str, Any]) -> tuple[Case, ...]:
    return tuple(Case(path, each) for each in fields)


def _refused(path: str, why: D, *fields: dict[str, Any]) -> tuple[Case, ...]:
    return tuple(Case(path, each, why) for each in fields)


SHARED: tuple[dict[str, Any], ...] = (
    {}, STREAM, USAGE, {**STREAM, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"n": 2, "temperature": 1.0}, {**STREAM, "n": 2, "temperature": 1.0}, {"stop": ["a", "e"]}, {"stop": "a"},
    {"logit_bias": {"65": 10}}, {"presence_penalty": 1, "frequency_penalty": 1},
    {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1}, {"min_tokens": 4, "ignore_eos": True},
    {"stop_token_ids": [3]}, {"skip_special_tokens": False}, {"include_stop_str_in_output": True, "stop": ["1"]},
    {"response_format": {"type": "json_object"}, "max_tokens": 20}, {"response_format": SCHEMA, "max_tokens": 40},
    {"structured_outputs": {"choice": ["yes", "no"]}}, {"structured_outputs": {"regex": "[ab]{3}"}},
    {"user": "u"}, {"n": 0}, {"max_tokens": 0}, {"max_tokens": 100_000}, {"temperature": -1}, {"top_p": 2},
    {"n": 2}, {"model": "none"}, {"stream_options": {"include_usage": True}}, {"stop": ["a"] * 100},
)  # fmt: skip

CASES: tuple[Case, ...] = (
    *_cases(CHAT, *SHARED),
    *_cases(COMPLETION, *SHARED),
    *_cases(
        CHAT,
        {"logprobs": True}, {"logprobs": True, "top_logprobs": 3}, {**STREAM, "logprobs": True, "top_logprobs": 2},
        {"response_format": {"type": "text"}}, {"max_tokens": None, "max_completion_tokens": 4},
        {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60},
        {"tools": [TOOL], "tool_choice": NAMED, "max_tokens": 60},
        {**STREAM, "tools": [TOOL], "tool_choice": "required", "max_tokens": 60},
        {**STREAM, "tools": [TOOL], "tool_choice": NAMED, "max_tokens": 60},
        {**STREAM, "tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL], "parallel_tool_calls": False},
        {"messages": [{"role": "system", "content": "s"}, *USER]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prompt_cache_key": "k"},
        {"reasoning_effort": "low"}, {"chat_template_kwargs": {"enable_thinking": False}},
        {"messages": []}, {"messages": None}, {"messages": "x"}, {"messages": LONG},
        {"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 100},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        {"response_format": {"type": "json_schema"}}, {"temperature": 2.5},
    ),
    *_cases(
        COMPLETION,
        {"logprobs": 2}, {"logprobs": 0}, {**STREAM, "logprobs": 1}, {"echo": True}, {"echo": True, "logprobs": 1},
        {"prompt": ["a", "b"]}, {"prompt": [1, 2, 3]}, {"prompt": [[1, 2], [3]]}, {"max_tokens": 1, "echo": True},
        {"suffix": "x"}, {"prompt": ""}, {"prompt": None}, {"prompt": [99_999]}, {"logprobs": 100},
    ),
    *_cases(
        RESPONSES,
        {}, STREAM, {"instructions": "Be short"}, {"instructions": "Be short", **STREAM},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {**STREAM, "include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"input": USER}, {"input": [{"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "Hi"}]}]},
        {"tools": [FLAT_TOOL]}, {"tools": [FLAT_TOOL], "tool_choice": "required", "max_output_tokens": 60},
        {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "f"}, "max_output_tokens": 60},
        {**STREAM, "tools": [FLAT_TOOL], "tool_choice": "required", "max_output_tokens": 60},
        {"tools": [{"type": "custom", "name": "c"}]}, {"tools": [FLAT_TOOL], "tool_choice": "none"},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": OBJECT}}, "max_output_tokens": 40},
        {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 20}, {"text": {"format": {"type": "text"}}},
        {"metadata": {"a": "b"}, "user": "u", "service_tier": "auto", "truncation": "auto", "prompt_cache_key": "k"},
        {"store": True}, {"store": False}, {"background": False}, {"reasoning": {"effort": "low"}},
        {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 1}, {"stop": ["a"]},
        {"chat_template_kwargs": {"enable_thinking": False}}, {"structured_outputs": {"choice": ["yes", "no"]}},
        {"logit_bias": {"65": 10}}, {**STREAM, "stream_options": {"include_obfuscation": False}},
        {"max_tool_calls": 2, "parallel_tool_calls": False},
        {"input": [*USER, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c", "output": "42"}]},
        {"input": [*USER, {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "ok", "annotations": []}]}, *USER]},
        {"model": "none"}, {"input": []}, {"input": None}, {"input": "x" * 3000}, {"temperature": -1},
        {"max_output_tokens": 0}, {"max_output_tokens": 100_000_000}, {"background": True}, {"prompt": {"id": "x"}},
        {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "g"}},
    ),
    *_cases(
        MESSAGES,
        {}, STREAM, {"system": "Be short"}, {**STREAM, "system": "Be short"},
        {"system": [{"type": "text", "text": "Be short", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [{"role": "system", "content": "s"}, *USER]},
        {"stop_sequences": ["a", "e"]}, {"top_k": 3, "top_p": 0.9}, {"metadata": {"user_id": "u"}},
        {"service_tier": "auto"}, {"tools": [MESSAGE_TOOL]}, {"tools": [MESSAGE_TOOL], "tool_choice": {"type": "none"}},
        {"tools": [MESSAGE_TOOL], "tool_choice": {"type": "any"}, "max_tokens": 60},
        {"tools": [MESSAGE_TOOL], "tool_choice": {"type": "tool", "name": "f"}, "max_tokens": 60},
        {**STREAM, "tools": [MESSAGE_TOOL], "tool_choice": {"type": "tool", "name": "f"}, "max_tokens": 60},
        {"messages": [*USER, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "x"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]}, {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "42"}]}]},
        {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}, "max_tokens": 40},
        {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"model": "none"}, {"max_tokens": None}, {"max_tokens": 0}, {"max_tokens": 100_000}, {"messages": []},
        {"messages": LONG}, {"temperature": -1}, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]},
    ),
    *_cases(COUNT, {}, {"system": "s", "tools": [MESSAGE_TOOL]}, {"messages": []}, {"model": "none"}),
    *_cases(
        EMBEDDINGS,
        {}, {"input": ["a", "b"]}, {"input": [1, 2, 3]}, {"input": [[1, 2], [3]]}, {"encoding_format": "base64"},
        {"user": "u"}, {"truncate_prompt_tokens": 4}, {"dimensions": 8}, {"input": ""}, {"input": []},
        {"model": "none"}, {"input": "x" * 3000}, {"encoding_format": "none"},
    ),
    *(case for path in BASE for case in _refused(path, D.UNKNOWN_PARAMETERS, {"frobnicate": 1})),
    *(case for path in (CHAT, COMPLETION, RESPONSES) for case in _refused(path, D.OURS_TO_SET, {"priority": 1})),
    *(case for path in (CHAT, COMPLETION, RESPONSES, MESSAGES, EMBEDDINGS)
      for case in _refused(path, D.OURS_TO_SET, {"cache_salt": "mine"})),
    *_refused(CHAT, D.OURS_TO_SET, {"request_id": "mine"}),
    *_refused(
        CHAT, D.LIMITS,
        {"n": 17, "temperature": 1.0, "max_tokens": 1}, {"stop": ["a" * 300]}, {"messages": [{"role": "wizard"}]},
    ),
    *_refused(COMPLETION, D.LIMITS, {"prompt": ["a"] * 17, "max_tokens": 1}, {"prompt_logprobs": 1}),
    *_refused(CHAT, D.NO_CODE, {"structured_outputs": {"grammar": 'root ::= "a"'}}, {"vllm_xargs": {"a": 1}}),
    *_refused(
        RESPONSES, D.NOTHING_STORED,
        {"conversation": "c"}, {"previous_response_id": "resp_1"}, {"enable_response_messages": True},
    ),
    *_refused(
        RESPONSES, D.NO_ENGINE_TOOLS,
        {"tools": [{"type": "web_search_preview"}]}, {"include": ["file_search_call.results"]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:1"}]},
    ),
    *_cases(CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}),
    *_refused(EMBEDDINGS, D.EMBEDDED_TEXTS, {"input": None, "messages": USER}),
)  # fmt: skip
