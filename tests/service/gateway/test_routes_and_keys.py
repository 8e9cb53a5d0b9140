"""Every route that the application has, asked without a key and with wrong and right ones; and none that it has not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from yarl import URL

from service.control.app import create_control_app
from service.core.records import Scope
from service.gateway.app import Application, create_app
from service.settings import Settings
from tests.service.control.parts import Changes, HandClock, Shelf
from tests.service.gateway.live import CHAT, opened, session
from tests.service.gateway.live import world as world_of_processes

OPEN = {"/", "/health", "/ready", "/docs", "/docs/oauth2-redirect", "/openapi.json"}

TICKETED = {"/console/reports/nothing", "/console/cards/nothing"}
"""A browser opens them in a frame, where it can send no key: a signed ticket from the admin API stands in for one."""

ENGINE_ROUTES = (
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up", "/is_sleeping", "/reset_prefix_cache",
    "/reset_mm_cache", "/collective_rpc", "/server_info", "/tokenize", "/detokenize", "/tokenizer_info", "/load",
    "/version", "/ping", "/invocations", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank",
    "/v2/rerank", "/inference/v1/generate", "/start_profile", "/stop_profile", "/scale_elastic_ep", "/pause", "/resume",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/abort_requests", "/render",
)  # fmt: skip

DETOURS = (
    "/v1/../sleep", "/v1/%2e%2e/sleep", "//sleep", "/v1//load_lora_adapter", "/v1/chat/completions/../../sleep",
    "/v1/chat/completions/", "/V1/chat/completions", "/v1/chat%2Fcompletions/x", "/v1/completions;x", "/%00",
    "/api/../v1/load_lora_adapter", "/console/../../sleep", "/console/..%2f..%2fapp.py", "/v1/models/../sleep",
)  # fmt: skip


def needed(path: str) -> Scope | None:
    """The scope that a path asks for; None where anybody may come."""
    if path in OPEN or path == "/console" or path.startswith("/console/"):
        return None
    if path == "/metrics":
        return Scope.METRICS
    if path == "/v1/feedback":
        return Scope.FEEDBACK
    if path.startswith("/v1/"):
        return Scope.INFER
    assert path.startswith("/api/v1/"), f"{path} is new: say here who may use it"
    return Scope.ADMIN


def routes(app: Application) -> Iterator[tuple[str, str]]:
    """Method and path of all that the application answers, from its own lists; parameters are filled in."""
    for part in (app.shell, app.control):
        assert part is not None
        for route in part.routes:
            assert isinstance(route, Route | APIRoute), f"{route} is no plain route: check it here"
            # The control app's own description cannot be reached through the gateway.
            if part is app.shell or route.path.startswith(("/api", "/console")):
                yield from ((method, _filled(route.path)) for method in sorted(route.methods or ()))
    for path, operations in app.shell.openapi()["paths"].items():
        if path.startswith("/v1/"):
            yield from ((method.upper(), _filled(path)) for method in operations)


def _filled(path: str) -> str:
    return "/".join("nothing" if part.startswith("{") else part for part in path.split("/"))


@pytest.fixture
async def guarded(make_world, key_of, tmp_path):
    """The application with its real control app, keys required, one key for each scope; and its world."""
    async with opened(tmp_path) as store:
        clock = HandClock()
        settings = Settings(state_dir=tmp_path)
        control = create_control_app(
            store, settings, authorize=lambda headers, scope: world.gateway.authorize(headers, scope),
            on_change=Changes(), clock=clock, adapters=Shelf(store, clock),
        )  # fmt: skip
        keys = [key_of(scope.value, scope) for scope in Scope]
        revoked = replace(key_of("revoked", *Scope), revoked_at=1.0)
        world = await make_world(keys=[*keys, revoked], server={"require_keys": True}, control=control)
        yield world, create_app(world.gateway, control=control)


async def test_every_route_asks_for_its_own_scope(guarded):
    world, app = guarded
    own = {scope.value for scope in Scope}
    checked = 0
    async with world.client() as http:

        async def status(method: str, path: str, key: str | None) -> int:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            body = None if method in {"GET", "HEAD", "OPTIONS"} else {}
            return (await http.request(method, path, headers=headers, json=body)).status_code

        for method, path in sorted(set(routes(app))):
            scope = needed(path)
            for key in (None, "invented", "revoked", *sorted(own)):
                got = await status(method, path, key)
                if path in TICKETED:
                    assert got == 403, key
                elif scope is None or key == scope.value:
                    assert got < 500, (method, path, key, got)
                    assert got not in {401, 403}, (method, path, key, got)
                else:
                    assert got == (403 if key in own else 401), (method, path, key, got)
                checked += 1
    print(f"{checked} pairs of route and key")
    assert checked > 200


async def test_the_description_tells_of_every_route_of_v1(guarded):
    world, app = guarded
    described = {path for path in app.shell.openapi()["paths"] if path.startswith("/v1/")}
    assert described == {*world.gateway.v1._kinds, *world.gateway.v1._handlers, "/v1/models/{model}"}


async def test_the_engines_own_routes_cannot_be_reached(tmp_path):
    """With a key for everything, straight and by detours; only what was asked properly arrives."""
    async with world_of_processes(tmp_path) as (serving, (stub,)):
        async with session() as client:
            for path in (*ENGINE_ROUTES, *DETOURS):
                for method in ("GET", "POST"):
                    url = URL(f"{serving.url}{path}", encoded=True)
                    async with client.request(method, url, json=CHAT) as reply:
                        assert reply.status in {404, 405}, (method, path, reply.status)
        assert set((await stub.get("/stats"))["paths"]) == {"/health", "/stats"}
