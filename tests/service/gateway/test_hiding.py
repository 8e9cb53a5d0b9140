"""The byte surgery against a full parse: equal for any content, in vLLM's format and in others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.errors import EngineFailed
from service.gateway.hiding import hide_empty, hide_logprobs, hide_usage

TRICKY = st.sampled_from(
    ["logprobs", '"logprobs":{', ',"logprobs":{', '},"finish_reason":', '\\","logprobs":{"', "data: ", "\n\n", "\\",
     '"', "{", "}", '"choices":[]', ',"choices":[]', "[DONE]", "é", "😀", "\u2028"]
)  # fmt: skip
TEXT = st.lists(st.one_of(TRICKY, st.text(max_size=5)), max_size=4).map("".join)
NUMBER = st.floats(-50, 0)

CHAT_TOKEN = st.fixed_dictionaries(
    {
        "token": TEXT,
        "logprob": NUMBER,
        "bytes": st.lists(st.integers(0, 255), max_size=3),
        "top_logprobs": st.lists(
            st.fixed_dictionaries({"token": TEXT, "logprob": NUMBER, "bytes": st.none()}), max_size=2
        ),
    }
)
CHAT_LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.lists(CHAT_TOKEN, max_size=3)})
TEXT_LOGPROBS = st.none() | st.fixed_dictionaries(
    {
        "text_offset": st.lists(st.integers(0, 9), max_size=2),
        "token_logprobs": st.lists(st.none() | NUMBER, max_size=2),
        "tokens": st.lists(TEXT, max_size=2),
        "top_logprobs": st.lists(st.none() | st.dictionaries(TEXT, NUMBER, max_size=3), max_size=3),
    }
)
TOOL = st.fixed_dictionaries(
    {"index": st.just(0), "function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})}
)
DELTA = st.fixed_dictionaries({"content": st.none() | TEXT}, optional={"tool_calls": st.lists(TOOL, max_size=2)})
TAIL = {"finish_reason": st.none() | st.just("stop"), "stop_reason": st.none() | TEXT}


def choice(index):
    chat = st.fixed_dictionaries({"index": st.just(index), "delta": DELTA, "logprobs": CHAT_LOGPROBS, **TAIL})
    text = st.fixed_dictionaries({"index": st.just(index), "text": TEXT, "logprobs": TEXT_LOGPROBS, **TAIL})
    return st.one_of(chat, text)


def reply(min_choices=1):
    choices = st.integers(min_choices, 3).flatmap(lambda n: st.tuples(*(choice(i) for i in range(n))).map(list))
    return st.fixed_dictionaries({"id": TEXT, "model": TEXT, "choices": choices, "usage": st.none()})


def compact(content):
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def without(content):
    return {**content, "choices": [{**c, "logprobs": None} if "logprobs" in c else c for c in content["choices"]]}


def as_events(contents, dump=compact):
    return b"".join(b"data: " + dump(c) + b"\n\n" for c in contents)


@settings(max_examples=150, deadline=None)
@given(reply())
def test_a_whole_reply_in_the_engines_format_is_cut_to_the_byte(content):
    assert hide_logprobs(compact(content)) == compact(without(content))


@settings(max_examples=100, deadline=None)
@given(st.lists(reply(), min_size=1, max_size=4))
def test_events_in_the_engines_format_are_cut_to_the_byte(contents):
    assert hide_logprobs(as_events(contents)) == as_events([without(c) for c in contents])


@settings(max_examples=100, deadline=None)
@given(st.lists(reply(), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_other_formats_come_out_equal_in_meaning(contents, sort, spaced):
    def dump(content):
        separators = (", ", ": ") if spaced else (",", ":")
        return json.dumps(content, sort_keys=sort, separators=separators, ensure_ascii=spaced).encode()

    hidden = hide_logprobs(b": keep-alive\n\n" + as_events(contents, dump))
    seen = [json.loads(e[6:]) for e in hidden.split(b"\n\n") if e.startswith(b"data: ")]
    assert seen == [without(c) for c in contents]


@settings(max_examples=100, deadline=None)
@given(st.lists(reply(), max_size=3), st.lists(reply(), max_size=2))
def test_only_the_usage_event_is_dropped(before, after):
    usage = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}\n\n'
    kept = as_events(before) + as_events(after)
    assert hide_usage(as_events(before) + usage + as_events(after)) == kept
    assert hide_usage(kept) == kept


@settings(max_examples=50, deadline=None)
@given(st.lists(reply(), max_size=3), st.lists(reply(), max_size=2), st.integers(1, 3))
def test_events_that_only_carried_log_probabilities_are_dropped(before, after, many):
    """vLLM sends them while a tool's call is being parsed, and only where log-probabilities were asked for."""
    empty = b'data: {"id":"x","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]}\n\n'
    last = b'data: {"id":"x","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    kept = as_events(before) + last + as_events(after)
    assert hide_empty(as_events(before) + empty * many + last + as_events(after) + empty) == kept


def test_a_reply_that_is_no_json_is_the_engines_fault():
    with pytest.raises(EngineFailed):
        hide_logprobs(b'{"logprobs":{"content":[}')
