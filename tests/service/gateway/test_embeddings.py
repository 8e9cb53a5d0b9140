"""/v1/embeddings over an engine of its own, and without one."""

from __future__ import annotations

import json

import httpx
import pytest

from service.core.errors import BadRequest
from service.gateway.ask import Kind
from service.gateway.protocol import read_ask
from service.settings import GatewaySettings

ASK = {"model": "embedder", "input": "Hello"}


@pytest.fixture
async def embedder(make_stub):
    stub = await make_stub()
    stub.models = ["embedder"]
    return stub


def read(**fields):
    return read_ask(Kind.EMBEDDINGS, json.dumps({**ASK, **fields}).encode(), GatewaySettings())


@pytest.mark.parametrize("asked", ["Hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]]])
def test_accepted_and_passed_on(asked):
    fields = {"input": asked, "encoding_format": "base64", "dimensions": 8, "truncate_prompt_tokens": 4}
    body = json.loads(read(**fields, user="ann").engine_body("e", confidence=True, tenant="ann"))
    assert body == {"model": "e", "cache_salt": "ann", **fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"), ({"input": ["a", 1]}, "input"), ({"input": ["a"] * 2049}, "input"),
        ({"input": [-1]}, "input[0]"), ({"input": None}, "input"), ({"encoding_format": "bytes"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"), ({"messages": []}, "messages"), ({"priority": 1}, "priority"),
        ({"stream": True}, "stream"), ({"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
    ],
)  # fmt: skip
def test_refused(fields, param):
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param


async def test_texts_become_vectors_and_are_not_captured(make_world, embedder, wait_until):
    world = await make_world(embedding_engines=(embedder.url,))
    async with world.client() as http:
        reply = await http.post("/v1/embeddings", json=ASK)
        models = {m["id"]: m for m in (await http.get("/v1/models")).json()["data"]}
        one = (await http.get("/v1/models/embedder")).json()
        chat = await http.post(
            "/v1/chat/completions", json={"model": "plain", "messages": [{"role": "user", "content": "x"}]}
        )
    assert reply.json()["data"][0]["embedding"] == [0.5, -0.5]
    assert reply.headers["x-trimtab-adapter"] == "base"
    assert one == models["embedder"]
    assert one["parent"] is None
    assert embedder.requests == [ASK]
    assert world.engine.requests[0]["messages"]
    await wait_until(lambda: world.sink.captures)
    assert list(world.sink.captures) == [chat.headers["x-request-id"]]
    assert world.metric("trimtab_prompt_tokens_total", alias="embedder", adapter="base") == 4


async def test_only_models_that_embed_do(make_world, embedder):
    alone = await make_world()
    async with alone.client() as http:
        reply = await http.post("/v1/embeddings", json={**ASK, "model": "support"})
    assert reply.status_code == 404
    assert "embedding_engines" in reply.json()["error"]["message"]
    world = await make_world(embedding_engines=(embedder.url,))
    async with world.client() as http:
        wrong = await http.post("/v1/embeddings", json={**ASK, "model": "support"})
        chat = await http.post("/v1/completions", json={"model": "embedder", "prompt": "x"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
    assert (chat.status_code, chat.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_engine_that_comes_late_is_found_and_one_that_goes_is_a_502(make_world, embedder, wait_until):
    embedder.models = []
    world = await make_world(embedding_engines=(embedder.url, "http://127.0.0.1:9"), gateway={"probe_s": 0.02})
    async with world.client() as http:

        async def ask() -> httpx.Response:
            return await http.post("/v1/embeddings", json=ASK)

        assert (await ask()).status_code == 404
        embedder.models = ["embedder"]
        reply = await ask()
        while reply.status_code == 404:
            reply = await ask()
        assert reply.status_code == 200
        embedder.refusal = (500, {"error": {"message": "boom"}})
        assert (await ask()).status_code == 502
