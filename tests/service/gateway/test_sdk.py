"""The official clients, unchanged, against the gateway over a stub engine (tests' own double for vLLM)."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Hi"}]


def async_client(world, **kwargs):
    return openai.AsyncOpenAI(
        base_url=f"{world.url}/v1", api_key=kwargs.pop("api_key", "none"), max_retries=0, **kwargs
    )


async def test_the_synchronous_client(world):
    def use() -> tuple[str | None, str, list[str]]:
        with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
            chat = client.chat.completions.create(model="support", messages=MESSAGES, temperature=0)
            text = client.completions.create(model="plain", prompt="Once", max_tokens=8)
            stream = client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
            parts = [chunk.choices[0].delta.content or "" for chunk in stream]
            again = [*MESSAGES, chat.choices[0].message, {"role": "user", "content": "And?"}]
            assert client.chat.completions.create(model="support", messages=again).choices
            assert chat._request_id.startswith("req_")
            return chat.choices[0].message.content, text.choices[0].text, parts

    content, text, parts = await asyncio.to_thread(use)
    assert content == text == "".join(parts) == "Hello world"


async def test_responses_through_the_synchronous_client(world):
    def use() -> list[str]:
        with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
            first = client.responses.create(model="support", input="Hi", instructions="Be short")
            again = client.responses.create(model="support", input=[*MESSAGES, *first.output, *MESSAGES])
            with client.responses.stream(model="support", input="Hi") as stream:
                parts = [event.delta for event in stream if event.type == "response.output_text.delta"]
                final = stream.get_final_response()
            assert first._request_id.startswith("req_")
            return [first.output_text, again.output_text, "".join(parts), final.output_text]

    assert await asyncio.to_thread(use) == ["Hello world"] * 4


async def test_anthropics_clients(world):
    tools = [{"name": "find", "input_schema": {"type": "object"}}]
    asked = {"model": "support", "max_tokens": 8, "messages": MESSAGES}

    def use() -> list[str]:
        with anthropic.Anthropic(base_url=world.url, api_key="none", max_retries=0) as client:
            first = client.messages.create(**asked, system="Be short", metadata={"user_id": "ann"})
            turns = [*MESSAGES, {"role": "assistant", "content": first.content}, *MESSAGES]
            again = client.messages.create(**{**asked, "messages": turns})
            with client.messages.stream(**asked) as stream:
                parts = "".join(stream.text_stream)
            beta = client.beta.messages.create(**asked, context_management={"edits": []}, betas=["x"])
            called = client.messages.create(**asked, tools=tools).content[0]
            result = {"type": "tool_result", "tool_use_id": called.id, "content": [{"type": "text", "text": "42"}]}
            turns = [*MESSAGES, {"role": "assistant", "content": [called]}, {"role": "user", "content": [result]}]
            answer = client.messages.create(**{**asked, "messages": turns})
            assert client.messages.count_tokens(model="support", messages=MESSAGES).input_tokens == 7
            assert (called.name, called.input) == ("find", {"a": "b"})
            assert first._request_id.startswith("req_")
            return [m.content[0].text for m in (first, again, beta, answer)] + [parts]

    assert await asyncio.to_thread(use) == ["Hello world"] * 5
    client = anthropic.AsyncAnthropic(base_url=world.url, api_key="none", max_retries=0)
    async with client, client.messages.stream(**asked, tools=tools) as stream:
        assert (await stream.get_final_message()).content[0].input == {"a": "b"}


async def test_the_asynchronous_client_streams(world):
    async with async_client(world) as client:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="support", messages=MESSAGES, stream=True, stream_options=options, logprobs=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[1].choices[0].logprobs.content[0].token == "Hello"


async def test_raw_responses_carry_the_adapter(world):
    async with async_client(world) as client:
        raw = await client.chat.completions.with_raw_response.create(model="support", messages=MESSAGES)
    assert raw.headers["x-trimtab-adapter"] == "support@111111111111"
    assert raw.parse().choices[0].message.content == "Hello world"


async def test_models_are_listed_and_found(world):
    async with async_client(world) as client:
        models = {m.id: m async for m in client.models.list()}
        one = await client.models.retrieve("support@111111111111")
    assert set(models) == {"base-model", "support", "plain", "support@111111111111", "support@222222222222"}
    assert models["support"].root == "support@111111111111"
    assert one.parent == "base-model"


async def test_errors_become_the_clients_exceptions(world):
    async with async_client(world) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="nobody", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.chat.completions.create(model="support", messages=MESSAGES, n=1000)
        assert wrong.value.param == "n"
        with pytest.raises(openai.BadRequestError) as extra:
            await client.chat.completions.create(model="support", messages=MESSAGES, extra_body={"priority": 1})
        assert extra.value.param == "priority"
        world.engine.refusal = (500, {"error": {"message": "boom", "code": 500}})
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="support", messages=MESSAGES)


async def test_an_error_in_mid_stream_is_raised(world):
    world.engine.dies_after = 2
    async with async_client(world) as client:
        stream = await client.chat.completions.create(model="support", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in stream:
                pass


async def test_keys_through_the_client(make_world, key_of):
    from service.core.records import Scope

    world = await make_world(
        keys=[key_of("good", Scope.INFER), key_of("narrow", Scope.FEEDBACK)], server={"require_keys": True}
    )
    async with async_client(world, api_key="good") as client:
        assert (await client.chat.completions.create(model="support", messages=MESSAGES)).choices
    async with async_client(world, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="support", messages=MESSAGES)
    async with async_client(world, api_key="narrow") as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="support", messages=MESSAGES)
