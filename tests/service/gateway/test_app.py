"""The routes beside /v1, the shape of every error, keys, readiness, and what importing the gateway costs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest
from fastapi import FastAPI

from service.core.records import Scope
from tests.service.gateway.stub import ADAPTER, CANDIDATE

CHAT = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}


def is_error(reply, status, code=None):
    error = reply.json()["error"]
    assert reply.status_code == status, reply.text
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    return True


async def test_every_wrong_path_and_method_has_the_same_shape(world):
    async with world.client() as http:
        for path in ("/nothing", "/v1/nothing", "/v1", "/v1/", "/v1/load_lora_adapter", "/v2/models"):
            assert is_error(await http.get(path), 404, "unknown_url")
        for method, path in (
            ("GET", "/v1/chat/completions"), ("PUT", "/v1/completions"), ("POST", "/v1/models"),
            ("GET", "/v1/feedback"),
            ("POST", "/health"), ("DELETE", "/metrics"), ("POST", "/v1/models/support"),
        ):  # fmt: skip
            reply = await http.request(method, path)
            assert is_error(reply, 405, "method_not_allowed")
            assert reply.headers["allow"]
        assert is_error(await http.get("/v1/models/nobody"), 404, "model_not_found")


async def test_the_description_covers_v1_and_the_control_app(make_world):
    control = FastAPI()

    @control.get("/api/v1/aliases")
    async def aliases() -> list[str]:
        return ["support"]

    world = await make_world(control=control)
    async with world.client() as http:
        assert (await http.get("/api/v1/aliases")).json() == ["support"]
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert (await http.get("/docs")).status_code == 200
        assert (await http.get("/")).headers["location"] == "/console"
    assert {"/v1/chat/completions", "/v1/feedback", "/v1/models/{model}", "/api/v1/aliases", "/health"} <= set(paths)
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatParams"}


async def test_the_control_apps_lifespan_runs(make_world):
    import contextlib

    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        seen.append("started")
        yield

    await make_world(control=FastAPI(lifespan=lifespan))
    assert seen == ["started"]


async def test_ready_only_with_a_table_and_a_ready_engine(world):
    async with world.client() as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/ready")).status_code == 200
        world.table = replace(world.table, engines=tuple(replace(e, ready=False) for e in world.table.engines))
        await world.gateway.refresh()
        reply = await http.get("/ready")
        assert is_error(reply, 503, "unavailable")
        assert is_error(await http.post("/v1/chat/completions", json=CHAT), 503, "unavailable")
        await world.route()
        assert (await http.get("/ready")).status_code == 200
        world.gateway.drain()
        assert (await http.get("/ready")).status_code == 503
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_an_engine_that_the_table_calls_ready_must_answer_too(make_world):
    """After a restart of everything the store still says what was true before it."""
    world = await make_world(gateway={"probe_s": 0.02})
    async with world.client() as http:

        async def status_becomes(status: int) -> None:
            async with asyncio.timeout(5.0):
                while (await http.get("/ready")).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        await status_becomes(200)
        world.engine.healthy = False
        await status_becomes(503)
        world.engine.healthy = True
        await status_becomes(200)


async def test_with_the_store_away_the_last_table_serves_on(world, wait_until):
    world.store_away = True
    await wait_until(lambda: world.metric("trimtab_routing_table_age_seconds") > 0.4)
    async with world.client() as http:
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    world.store_away = False
    await wait_until(lambda: world.metric("trimtab_routing_table_age_seconds") < 0.3)


async def test_a_flip_in_the_store_is_seen_within_a_poll(world, wait_until):
    world.table = world.make_table(champion="support@222222222222")
    async with world.client() as http:
        async with asyncio.timeout(1.0):
            while True:
                reply = await http.post("/v1/chat/completions", json=CHAT)
                if reply.headers["x-trimtab-adapter"] == "support@222222222222":
                    break


@pytest.mark.parametrize(
    ("method", "path", "scope", "body"),
    [
        ("POST", "/v1/chat/completions", Scope.INFER, CHAT),
        ("POST", "/v1/completions", Scope.INFER, {"model": "support", "prompt": "x"}),
        ("GET", "/v1/models", Scope.INFER, None),
        ("GET", "/v1/models/support", Scope.INFER, None),
        ("POST", "/v1/feedback", Scope.FEEDBACK, {"request_id": "req_x", "rating": "up"}),
        ("GET", "/metrics", Scope.METRICS, None),
    ],
)
async def test_every_route_asks_for_its_key(make_world, key_of, method, path, scope, body):
    keys = [key_of(s.value, s) for s in Scope]
    revoked = replace(key_of("revoked", *Scope), revoked_at=1.0)
    world = await make_world(keys=[*keys, revoked], server={"require_keys": True})
    async with world.client() as http:

        async def ask(key: str | None):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return await http.request(method, path, json=body, headers=headers)

        for key in (None, "invented", "revoked"):
            reply = await ask(key)
            assert is_error(reply, 401, "invalid_api_key")
            assert reply.headers["www-authenticate"] == "Bearer"
        for other in Scope:
            reply = await ask(other.value)
            if other is scope:
                assert reply.status_code in {200, 404}
            else:
                assert is_error(reply, 403, "insufficient_scope")


async def test_where_keys_are_optional_a_known_key_keeps_its_scopes(make_world, key_of):
    world = await make_world(keys=[key_of("narrow", Scope.FEEDBACK)])
    async with world.client() as http:
        for key, status in (("anything", 200), ("narrow", 403)):
            reply = await http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            assert reply.status_code == status


async def test_feedback_for_a_reply(world, wait_until):
    async with world.client() as http:
        request_id = (await http.post("/v1/chat/completions", json=CHAT)).headers["x-request-id"]
        body = {"request_id": request_id, "rating": "down", "expected": "Right", "tags": {"who": "ann"}}
        first = await http.post("/v1/feedback", json=body)
        second = await http.post("/v1/feedback", json={**body, "request_id": f"chatcmpl-{request_id}"})
    assert (first.status_code, first.json()["object"]) == (202, "feedback")
    assert first.json()["id"] == second.json()["id"]
    await wait_until(lambda: world.sink.feedback)
    kept = world.sink.feedback[first.json()["id"]]
    assert (kept.request_id, kept.rating, kept.expected, kept.tags) == (request_id, -1.0, "Right", {"who": "ann"})
    assert world.metric("trimtab_feedback_total", kind="rating") == 2


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"request_id": "req_000000000000aaaaaaaaaabbbbbbbb"}, 404, "request_id"),
        ({"request_id": "nonsense"}, 404, "request_id"),
        ({"rating": 2}, 400, "rating"),
        ({"rating": "sideways"}, 400, "rating"),
        ({"rating": None}, 400, "rating"),
        ({"expected": "a\0b"}, 400, None),
        ({"surprise": 1}, 400, "surprise"),
        ({"tags": {"a": 1}}, 400, "tags[...]"),
    ],
)
async def test_bad_feedback(world, change, status, param):
    async with world.client() as http:
        request_id = (await http.post("/v1/chat/completions", json=CHAT)).headers["x-request-id"]
        reply = await http.post("/v1/feedback", json={"request_id": request_id, "rating": 1, **change})
    assert is_error(reply, status)
    assert reply.json()["error"]["param"] == param


async def test_stopping_ships_what_was_captured(make_world):
    world = await make_world(capture={"ship_interval_s": 60})
    async with world.client() as http:
        request_id = (await http.post("/v1/chat/completions", json=CHAT)).headers["x-request-id"]
    assert not world.sink.captures
    await world.stop()
    assert request_id in world.sink.captures


async def test_stopping_lets_a_stream_finish(make_world, wait_until):
    world = await make_world()
    world.engine.words = ["x"] * 50
    world.engine.pause_s = 0.01
    async with world.client() as http:
        asked = asyncio.create_task(http.post("/v1/chat/completions", json={**CHAT, "stream": True}))
        await wait_until(lambda: world.engine.running)
        await world.stop()
        reply = await asked
    assert reply.text.endswith("data: [DONE]\n\n")
    assert world.sink.captures[reply.headers["x-request-id"]].reply == "x" * 50


def test_importing_the_gateway_leaves_the_heavy_packages_out():
    heavy = ("torch", "vllm", "pandas", "evidently", "sqlalchemy", "transformers")
    code = f"import sys, service.gateway.app; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gateway_holds_nothing_that_only_other_commands_and_processes_need():
    """They were 12 MiB of it."""
    others = ("httpx", "rich", "psycopg", "service.control.reconciler")
    code = f"import sys, service.cli, service.bootstrap; print([m for m in {others!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_canary_is_sticky_by_user_and_else_by_conversation(world):
    """Nobody meets two adapters in turn, and both sides have their share of the clients."""
    await world.route(candidate=CANDIDATE, canary_ratio=0.5)
    async with world.client() as http:

        async def served(**changes):
            return {
                (await http.post("/v1/chat/completions", json={**CHAT, **changes})).headers["x-trimtab-adapter"]
                for _ in range(4)
            }

        by_user = [await served(user=f"user-{n}") for n in range(16)]
        by_talk = [await served(messages=[{"role": "user", "content": f"question {n}"}]) for n in range(16)]
    for found in (by_user, by_talk):
        assert all(len(adapters) == 1 for adapters in found)
        assert set().union(*found) == {ADAPTER, CANDIDATE}
