"""Errors before, at the head of and in the middle of a stream become the exceptions of the official SDKs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import openai
import pytest

from service.core.records import Scope

MESSAGES = [{"role": "user", "content": "Hi"}]
Create = Callable[..., Any]

CREATES: dict[str, Callable[[Any], Create]] = {
    "chat": lambda sdk: lambda **kw: sdk.chat.completions.create(messages=MESSAGES, **kw),
    "completions": lambda sdk: lambda **kw: sdk.completions.create(prompt="Hi", **kw),
    "responses": lambda sdk: lambda **kw: sdk.responses.create(input="Hi", **kw),
    "messages": lambda sdk: lambda **kw: sdk.messages.create(messages=MESSAGES, max_tokens=8, **kw),
}
apis = pytest.mark.parametrize("api", list(CREATES))


@contextlib.asynccontextmanager
async def creating(world: Any, api: str, key: str = "none") -> AsyncIterator[tuple[Create, Any]]:
    """The API's method and the module with its exceptions."""
    if api == "messages":
        async with anthropic.AsyncAnthropic(base_url=world.url, api_key=key, max_retries=0) as sdk:
            yield CREATES[api](sdk), anthropic
    else:
        async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0) as sdk:
            yield CREATES[api](sdk), openai


@apis
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "exception", "code"),
    [
        ({"model": "nobody"}, "NotFoundError", "model_not_found"),
        ({"model": "support", "extra_body": {"temperature": 3.0}}, "BadRequestError", "invalid_value"),
        ({"model": "support", "extra_body": {"priority": 1}}, "BadRequestError", "unknown_parameter"),
    ],
)
async def test_our_own_refusal(world, api, stream, fields, exception, code):
    async with creating(world, api) as (create, sdk):
        with pytest.raises(getattr(sdk, exception)) as refused:
            await create(stream=stream, **fields)
    told = refused.value.body["error"] if api == "messages" else refused.value.body
    assert told["code"] == code
    assert refused.value.request_id.startswith("req_")
    assert world.engine.requests == []


@apis
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("engine", "exception", "status"),
    [
        (400, "BadRequestError", 400),
        (429, "RateLimitError", 429),
        (500, "InternalServerError", 502),
        (404, "InternalServerError", 503),
    ],
)
async def test_the_engines_refusal(world, api, stream, engine, exception, status):
    world.engine.refusal = (engine, {"error": {"message": "too long", "type": "X", "param": None, "code": engine}})
    async with creating(world, api) as (create, sdk):
        with pytest.raises(sdk.APIStatusError) as refused:
            await create(model="support", stream=stream)
    if sdk is anthropic and status == 503:
        exception = "ServiceUnavailableError"
    assert isinstance(refused.value, getattr(sdk, exception))
    assert refused.value.status_code == status


@apis
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_before_its_first_event(world, api, stream):
    world.engine.url = "http://127.0.0.1:9"
    await world.route()
    async with creating(world, api) as (create, sdk):
        with pytest.raises(sdk.InternalServerError) as failed:
            await create(model="support", stream=stream)
    assert failed.value.status_code == 502


@apis
async def test_an_engine_that_dies_in_mid_stream(world, wait_until, api):
    world.engine.dies_after = 4 if api in {"responses", "messages"} else 2
    async with creating(world, api) as (create, sdk):
        stream = await create(model="support", stream=True)
        await anext(stream)
        with pytest.raises(sdk.APIError, match="broke off") as failed:
            async for _ in stream:
                pass
    if sdk is anthropic:
        assert failed.value.type == "api_error"
    else:
        assert failed.value.code == "engine_failed"
    await wait_until(lambda: world.sink.captures)
    capture = next(iter(world.sink.captures.values()))
    assert (capture.status, capture.error is not None) == (502, True)


@apis
async def test_a_stream_that_ends_without_its_last_event_is_an_error_too(world, api):
    """The engine's connection closes cleanly, in the middle of the answer: the client must not take it for the end."""
    world.engine.ends_after = 4 if api in {"responses", "messages"} else 2
    async with creating(world, api) as (create, sdk):
        stream = await create(model="support", stream=True)
        with pytest.raises(sdk.APIError, match="broke off"):
            async for _ in stream:
                pass


@apis
async def test_a_full_queue_and_a_body_that_is_too_large(make_world, wait_until, api):
    world = await make_world(gateway={"max_in_flight": 1, "max_queue": 0, "max_body_bytes": 2048})
    world.engine.gate = asyncio.Event()
    async with creating(world, api) as (create, sdk):
        first = asyncio.create_task(create(model="support"))
        await wait_until(lambda: world.engine.running == 1)
        with pytest.raises(sdk.RateLimitError) as full:
            await create(model="support")
        with pytest.raises(sdk.APIStatusError) as large:
            await create(model="support", extra_body={"user": "x" * 4096})
        world.engine.gate.set()
        assert await first
    assert int(full.value.response.headers["retry-after"]) >= 1
    assert large.value.status_code == 413


@apis
async def test_keys(make_world, api, key_of):
    keys = [key_of("good", Scope.INFER), key_of("narrow", Scope.FEEDBACK)]
    world = await make_world(keys=keys, server={"require_keys": True})
    async with creating(world, api, "good") as (create, _):
        assert await create(model="support")
    for key, exception in (("wrong", "AuthenticationError"), ("narrow", "PermissionDeniedError")):
        async with creating(world, api, key) as (create, sdk):
            with pytest.raises(getattr(sdk, exception)):
                await create(model="support")
