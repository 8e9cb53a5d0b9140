"""What vLLM 0.32 answers on the APIs beside chats and completions: same fields, same order, same events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Event = tuple[str, dict[str, Any]]
Answer = tuple[dict[str, Any], list[Event]]
"""The reply in one piece, and as server-sent events."""


def responses(asked: dict[str, Any], words: Sequence[str]) -> Answer:
    text = "".join(words)
    part = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
    message = {"id": "msg_1", "content": [part], "role": "assistant", "status": "completed", "type": "message"}
    reply = {
        "id": "resp_1",
        "created_at": 1,
        "model": asked["model"],
        "object": "response",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "none",
        "tools": [],
        "status": "completed",
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": len(words),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7 + len(words),
        },
    }
    begun = {**reply, "output": [], "status": "in_progress", "usage": None}
    where = {"content_index": 0, "item_id": "msg_1", "output_index": 0}
    deltas = [("response.output_text.delta", {**where, "delta": word, "logprobs": []}) for word in words]
    events = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"item": {**message, "content": []}, "output_index": 0}),
        ("response.content_part.added", {**where, "part": {**part, "text": ""}}),
        *deltas,
        ("response.output_text.done", {**where, "logprobs": [], "text": text}),
        ("response.output_item.done", {"item": message, "output_index": 0}),
        ("response.completed", {"response": reply}),
    ]
    return reply, [(name, {**data, "sequence_number": n, "type": name}) for n, (name, data) in enumerate(events)]


def messages(asked: dict[str, Any], words: Sequence[str]) -> Answer:
    head = {"id": "chatcmpl-1", "type": "message", "role": "assistant"}
    usage = {"input_tokens": 5, "output_tokens": len(words), "cache_read_input_tokens": 2}
    if asked.get("tools"):
        block = {"type": "tool_use", "id": "call_1", "name": asked["tools"][0]["name"], "input": {"a": "b"}}
        started = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"a":', '"b"}')]
    else:
        block = {"type": "text", "text": "".join(words)}
        started = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in words]
    stop = "tool_use" if asked.get("tools") else "end_turn"
    reply = {**head, "content": [block], "model": asked["model"], "stop_reason": stop, "usage": usage}
    begun = {**reply, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 0}}
    events = [
        ("message_start", {"message": begun}),
        ("content_block_start", {"content_block": started, "index": 0}),
        *(("content_block_delta", {"delta": delta, "index": 0}) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}),
        ("message_stop", {}),
    ]
    return reply, [(name, {"type": name, **data}) for name, data in events]


def count_tokens(asked: dict[str, Any], words: Sequence[str]) -> Answer:
    return {"input_tokens": 7, "context_management": {"original_input_tokens": 7}}, []


def embeddings(asked: dict[str, Any], words: Sequence[str]) -> Answer:
    data = [{"index": 0, "object": "embedding", "embedding": [0.5, -0.5]}]
    usage = {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0}
    return {"id": "embd-1", "object": "list", "created": 1, "model": asked["model"], "data": data, "usage": usage}, []


APIS: Mapping[str, Callable[[dict[str, Any], Sequence[str]], Answer]] = {
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/embeddings": embeddings,
}
