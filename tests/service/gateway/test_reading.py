"""What a reply said, from its events and from its whole."""

from __future__ import annotations

import json
import math

from service.gateway.reading import ChatReader

LP = {"content": [{"token": "x", "logprob": -1.0, "bytes": [1], "top_logprobs": []}]}


def event(**choice):
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def test_more_events_than_are_decoded_in_one_go():
    reader = ChatReader()
    for number in range(1000):
        reader.feed(event(delta={"content": str(number % 10)}, logprobs=LP))
    reader.feed(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1000}}\n\ndata: [DONE]\n\n')
    said = reader.said()
    assert said.text == "".join(str(n % 10) for n in range(1000))
    assert (said.prompt_tokens, said.completion_tokens, said.confidence) == (3, 1000, -1.0)


def test_only_the_first_choice_is_read():
    reader = ChatReader()
    reader.feed(event(delta={"content": "a"}))
    reader.feed(b'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n')
    assert reader.said().text == "a"


def test_tool_calls_are_the_text_where_there_is_no_other():
    reader = ChatReader()
    for name, arguments in (("find", ""), (None, '{"a"'), (None, ":1}")):
        reader.feed(event(delta={"tool_calls": [{"index": 0, "function": {"name": name, "arguments": arguments}}]}))
    assert json.loads(reader.said().text) == [{"name": "find", "arguments": '{"a":1}'}]
    whole = ChatReader()
    calls = [{"id": str(i), "type": "function", "function": {"name": f"f{i}", "arguments": "{}"}} for i in range(2)]
    whole.whole(json.dumps({"choices": [{"index": 0, "message": {"content": None, "tool_calls": calls}}]}).encode())
    assert [c["name"] for c in json.loads(whole.said().text)] == ["f0", "f1"]


def test_an_error_in_the_stream_and_bytes_that_are_no_json():
    reader = ChatReader()
    reader.feed(b'data: {"error":{"message":"out of memory","code":500}}\n\n')
    assert reader.said().error == "out of memory"
    broken = ChatReader()
    broken.feed(event(delta={"content": "a"}) + b"data: {oops\n\n")
    assert broken.said().error is not None
    assert ChatReader().said().confidence is None


def test_a_completions_logprobs_skip_those_that_are_null():
    reader = ChatReader()
    logprobs = {"token_logprobs": [None, -1.0, -3.0], "tokens": ["a", "b", "c"]}
    reader.whole(json.dumps({"choices": [{"index": 0, "text": "abc", "logprobs": logprobs}]}).encode())
    assert math.isclose(reader.said().confidence, -2.0)
