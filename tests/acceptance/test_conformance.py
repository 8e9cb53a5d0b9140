"""The official clients and plain HTTP, against the gateway and against bare vLLM: what differs is listed, with its
reason, in docs/conformance.md. One engine generates, one embeds; `trimtab serve` stands before both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.acceptance.conformance import ANYWHERE, Difference, Reply, differences, read
from tests.acceptance.conformance_cases import (
    CASES,
    CHAT,
    FLAT_TOOL,
    LONG,
    MESSAGE_TOOL,
    TOOL,
    USER,
    Case,
)
from tests.acceptance.sides import ADAPTER, ROOT, Sides, both_sides
from tests.service.gateway.live import eventually, raw_request

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "conformance.md"
LONG_REPLY: dict[str, Any] = {
    "model": "plain",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 450,
    "ignore_eos": True,
}
LEAVE = 40
OURS = {"/health", "/metrics", "/docs", "/openapi.json"}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with both_sides(tmp_path_factory.mktemp("conformance")) as sides:
        yield sides


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60.0, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plain_http(sides: Sides, http: httpx.Client, case: Case) -> None:
    direct = read(http.post(f"{sides.direct(case.path)}/v1/{case.path}", json=case.body))
    through = read(http.post(f"{sides.gateway}/v1/{case.path}", json=case.body))
    found = differences(direct, through)
    if case.refused is not None:
        assert through.status == 400
        assert f"status {direct.status} → 400" in found
        return
    if through.status >= 400:
        found -= {Difference.ERROR_WORDS}
    assert found <= ANYWHERE, "\n".join(found - ANYWHERE)


def test_an_alias_answers_as_its_adapter_does(sides: Sides, http: httpx.Client) -> None:
    """`adapter-names`: what an app calls `support` is named in the reply by what answered."""
    body = {"messages": USER, "max_tokens": 8, "temperature": 0}
    for path in (CHAT, "messages"):
        direct = read(http.post(f"{sides.engine}/v1/{path}", json={**body, "model": ADAPTER}))
        through = read(http.post(f"{sides.gateway}/v1/{path}", json={**body, "model": "support"}))
        assert differences(direct, through) <= ANYWHERE
        assert through.body["model"] == through.headers["x-trimtab-adapter"] == ADAPTER
    base = read(http.post(f"{sides.gateway}/v1/{CHAT}", json={**body, "model": "plain"}))
    assert (
        base.body["choices"][0]["message"]
        != read(http.post(f"{sides.gateway}/v1/{CHAT}", json={**body, "model": "support"})).body["choices"][0][
            "message"
        ]
    )


def test_models(sides: Sides, http: httpx.Client) -> None:
    """`model-cards`: vLLM's, with aliases and without its own fields; each is also found by its name."""
    direct = {card["id"]: card for card in http.get(f"{sides.engine}/v1/models").json()["data"]}
    through = {card["id"]: card for card in http.get(f"{sides.gateway}/v1/models").json()["data"]}
    assert set(through) == {*direct, "plain", "support", "embedder"}
    for name, card in direct.items():
        assert set(card) - set(through[name]) == {"max_model_len", "permission"}
        assert (card["parent"], card["object"]) == (through[name]["parent"], through[name]["object"])
    assert (through["support"]["root"], through["support"]["parent"]) == (ADAPTER, "base")
    for name, card in through.items():
        assert http.get(f"{sides.gateway}/v1/models/{name}").json() == card
    assert http.get(f"{sides.gateway}/v1/models/nobody").status_code == 404
    assert http.get(f"{sides.engine}/v1/models/base").status_code == 404


def test_routes(sides: Sides, http: httpx.Client) -> None:
    """`routes`: of the engine's others none is to be reached, by any method that it takes there."""
    theirs = http.get(f"{sides.engine}/openapi.json").json()["paths"]
    ours = set(http.get(f"{sides.gateway}/openapi.json").json()["paths"]) | OURS
    closed = {path: methods for path, methods in theirs.items() if path not in ours}
    assert {"/tokenize", "/v1/load_lora_adapter"} & set(closed)
    for path, methods in closed.items():
        for method in methods:
            reply = http.request(method, sides.gateway + re.sub(r"{.*?}", "x", path), json=LONG_REPLY)
            assert reply.status_code in {404, 405}, (method, path, reply.text)
    assert "vllm:" not in http.get(f"{sides.gateway}/metrics").text


async def figure(url: str, name: str) -> float:
    """The sum of a metric's series."""
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{url}/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


async def leave(url: str, body: dict[str, Any], read: bytes | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(raw_request(body))
    if read is not None:
        await asyncio.wait_for(reader.readuntil(read), 240.0)  # eight at a time, beside whatever else is tested
    await asyncio.sleep(0.2)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("stream", "read"), [(False, None), (True, None), (True, b"data: ")], ids=["unary", "unbegun", "begun"]
)
async def test_clients_that_leave_end_the_engines_work(sides: Sides, stream: bool, read: bytes | None) -> None:
    body = {**LONG_REPLY, "stream": stream}
    await asyncio.gather(*(leave(sides.gateway, body, read) for _ in range(LEAVE)))

    async def idle() -> bool:
        running = await figure(sides.engine, "vllm:num_requests_running")
        return running + await figure(sides.engine, "vllm:num_requests_waiting") == 0

    async def all_told() -> bool:
        return await figure(sides.gateway, "trimtab_requests_in_flight") == 0

    print(f"{LEAVE} clients left; vLLM was idle {await eventually(idle, 10.0, 0.05):.2f} s later")
    await eventually(all_told, 5.0)


GREEDY: dict[str, Any] = {"max_tokens": 8, "temperature": 0}
OPENAI: dict[str, Callable[[Any], Any]] = {
    "chat": lambda sdk: sdk.chat.completions.create(model="base", messages=USER, **GREEDY),
    "chat-stream": lambda sdk: sdk.chat.completions.create(
        model="base", messages=USER, stream=True, stream_options={"include_usage": True}, **GREEDY
    ),
    "chat-tools": lambda sdk: sdk.chat.completions.create(
        model="base", messages=USER, max_tokens=60, temperature=0, tools=[TOOL], tool_choice="required"
    ),
    "completion": lambda sdk: sdk.completions.create(model="base", prompt="Hi", **GREEDY),
    "completion-stream": lambda sdk: sdk.completions.create(
        model="base", prompt="Hi", logprobs=1, stream=True, **GREEDY
    ),
    "response": lambda sdk: sdk.responses.create(model="base", input="Hi", max_output_tokens=8, temperature=0),
    "response-stream": lambda sdk: sdk.responses.create(
        model="base", input="Hi", max_output_tokens=8, temperature=0, stream=True
    ),
    "response-tools": lambda sdk: sdk.responses.create(
        model="base", input="Hi", max_output_tokens=60, temperature=0, tools=[FLAT_TOOL], tool_choice="required"
    ),
}
ANTHROPIC: dict[str, Callable[[Any], Any]] = {
    "message": lambda sdk: sdk.messages.create(
        model="base", messages=USER, max_tokens=8, extra_body={"temperature": 0}
    ),
    "message-stream": lambda sdk: sdk.messages.create(
        model="base", messages=USER, max_tokens=8, stream=True, extra_body={"temperature": 0}
    ),
    "message-tools": lambda sdk: sdk.messages.create(
        model="base", messages=USER, max_tokens=60, stream=True, extra_body={"temperature": 0}, tools=[MESSAGE_TOOL],
        tool_choice={"type": "tool", "name": "f"},
    ),
    "count": lambda sdk: sdk.messages.count_tokens(model="base", messages=USER),
}  # fmt: skip
CALLS = [("openai", name) for name in OPENAI] + [("anthropic", name) for name in ANTHROPIC]


def clients(which: str, url: str) -> tuple[Any, Any]:
    """The official synchronous and asynchronous client."""
    if which == "anthropic":
        settings: dict[str, Any] = {"base_url": url, "api_key": "none", "max_retries": 0}
        return anthropic.Anthropic(**settings), anthropic.AsyncAnthropic(**settings)
    settings = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    return openai.OpenAI(**settings), openai.AsyncOpenAI(**settings)


def seen(*parts: Any, streamed: bool = False) -> Reply:
    """What a client made of a reply, to be compared as the replies are."""
    return Reply(200, {"content-type": ""}, tuple(("", part.model_dump(mode="json")) for part in parts), streamed)


def call(which: str, name: str, url: str) -> Reply:
    with clients(which, url)[0] as sdk:
        reply = (OPENAI if which == "openai" else ANTHROPIC)[name](sdk)
        return seen(*reply, streamed=True) if hasattr(reply, "response") else seen(reply)


async def call_async(which: str, name: str, url: str) -> Reply:
    async with clients(which, url)[1] as sdk:
        reply = await (OPENAI if which == "openai" else ANTHROPIC)[name](sdk)
        return seen(*[part async for part in reply], streamed=True) if hasattr(reply, "response") else seen(reply)


@pytest.mark.parametrize(("which", "name"), CALLS)
async def test_the_official_clients_see_the_same(sides: Sides, which: str, name: str) -> None:
    direct = await asyncio.to_thread(call, which, name, sides.engine)
    for through in (
        await asyncio.to_thread(call, which, name, sides.gateway),
        await call_async(which, name, sides.gateway),
    ):
        assert differences(direct, through) <= ANYWHERE


def test_raw_responses_helpers_and_replies_sent_back(sides: Sides) -> None:
    told = []
    for url in (sides.engine, sides.gateway):
        sdk, _ = clients("openai", url)
        raw = sdk.chat.completions.with_raw_response.create(model="base", messages=USER, **GREEDY)
        said = raw.parse().choices[0].message
        turns = [*USER, said, *USER]
        second = sdk.chat.completions.create(model="base", messages=turns, **GREEDY)
        options = {"model": "base", "max_output_tokens": 8, "temperature": 0}
        with sdk.responses.stream(input="Hi", **options) as stream:
            first = stream.get_final_response()
        again = sdk.responses.create(input=[*USER, *first.output, *USER], **options)
        with sdk.chat.completions.stream(model="base", messages=USER, **GREEDY) as chat:
            kinds = {event.type for event in chat}
            final = chat.current_completion_snapshot
        told.append((raw.status_code, kinds, seen(second), seen(first), seen(again), seen(final)))
        sdk, _ = clients("anthropic", url)
        with sdk.messages.stream(model="base", messages=USER, max_tokens=8, extra_body={"temperature": 0}) as messages:
            message = messages.get_final_message()
        turns = [*USER, {"role": "assistant", "content": message.content}, *USER]
        more = sdk.messages.create(model="base", messages=turns, max_tokens=8, extra_body={"temperature": 0})
        told[-1] += (seen(message), seen(more))
    for direct, through in zip(*told, strict=True):
        if isinstance(direct, Reply):
            assert differences(direct, through) <= ANYWHERE
        else:
            assert direct == through


def test_embeddings_through_the_client(sides: Sides) -> None:
    vectors = []
    for url in (sides.embedder, sides.gateway):
        with clients("openai", url)[0] as sdk:
            vectors.append([item.embedding for item in sdk.embeddings.create(model="embedder", input=["a", "b"]).data])
    assert vectors[0] == vectors[1]


@pytest.mark.parametrize(
    "fields", [{"model": "nobody"}, {"messages": LONG}, {"max_tokens": 0}], ids=["no-model", "too-long", "no-tokens"]
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("which", ["openai", "anthropic"])
def test_a_clients_mistake_is_the_same_exception(
    sides: Sides, which: str, stream: bool, fields: dict[str, Any]
) -> None:
    raised = []
    for url in (sides.engine, sides.gateway):
        with clients(which, url)[0] as sdk:
            create = sdk.chat.completions.create if which == "openai" else sdk.messages.create
            with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as failed:
                create(**{"model": "base", "messages": USER, "max_tokens": 8, "stream": stream, **fields})
        raised.append((type(failed.value), failed.value.status_code))
    assert raised[0] == raised[1]


def test_the_page_names_every_difference() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(Difference)


def test_the_comparison_sees_what_differs() -> None:
    def reply(*events: Any, **headers: str) -> Reply:
        return Reply(200, {"content-type": "x", **headers}, tuple(("", event) for event in events), streamed=True)

    one = {"id": "1", "choices": [{"text": "ab", "finish_reason": None}]}
    pieces = [{"id": "1", "choices": [{"text": text, "finish_reason": None}]} for text in ("a", "b")]
    last = {"id": "1", "choices": [], "usage": {"prompt_tokens": 1}}
    assert not differences(reply(one, last), reply(*pieces, last))
    half = {"id": "1", "choices": [{"text": "", "finish_reason": None}]}
    assert not differences(reply(one, last), reply(pieces[0], half, pieces[1], last))
    at_once, stopped = ({"id": "1", "choices": [{"text": "ab", "finish_reason": why}]} for why in ("length", "stop"))
    in_two = [pieces[0], {"id": "1", "choices": [{"text": "b", "finish_reason": "length"}]}]
    assert not differences(reply(at_once, last), reply(*in_two, last))
    assert not differences(reply(*in_two), reply(at_once))
    assert differences(reply(stopped, last), reply(*in_two, last))
    assert differences(replace(reply(at_once), streamed=False), replace(reply(stopped), streamed=False))
    assert differences(reply(one, last), reply(one))
    assert differences(reply(one, last), reply(pieces[0], last))
    assert differences(reply(one), reply({**one, "more": 1}))
    assert differences(reply(one), reply({"id": "1", "choices": [{"text": "ac", "finish_reason": None}]}))
    assert differences(reply(one), reply(one, surprise="x")) == {"the gateway adds the header surprise"}
