"""What gateway tests share: a fake sink, clock and world, real uvicorn servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from service.core.errors import BadRequest, Unavailable
from service.core.records import (
    Alias,
    Capture,
    EngineView,
    Feedback,
    Key,
    Labelled,
    PairedReply,
    Scope,
    Seen,
    ShadowReply,
)
from service.core.routing import RoutingTable
from service.gateway.app import create_app
from service.gateway.connections import Connection
from service.gateway.gateway import Gateway
from service.settings import Settings
from service.telemetry import GatewayMetrics
from tests.service.gateway.in_process import InThisProcess
from tests.service.gateway.stub import ADAPTER, BASE_MODEL, CANDIDATE, StubEngine


class Clock:
    """The system's clock, without drivers."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeSink:
    """A `Traffic` that keeps what it gets; `away` and `poison` make it refuse."""

    def __init__(self) -> None:
        self.captures: dict[str, Capture] = {}
        self.shadows: dict[tuple[str, str], ShadowReply] = {}
        self.feedback: dict[str, Feedback] = {}
        self.away = False
        self.poison: set[str] = set()
        self.erased_sources: set[str] = set()
        self.calls = 0

    async def add_captures(self, captures: Sequence[Capture]) -> None:
        self._take(captures)
        self.captures |= {c.request_id: c for c in captures}

    async def erased(self, seen: Sequence[Seen]) -> frozenset[str]:
        return frozenset(one.request_id for one in seen if one.source in self.erased_sources)

    async def add_shadow_replies(self, replies: Sequence[ShadowReply]) -> None:
        self._take(replies)
        self.shadows |= {(r.request_id, r.candidate): r for r in replies}

    async def add_feedback(self, feedback: Sequence[Feedback]) -> None:
        self._take(feedback)
        self.feedback |= {f.id: f for f in feedback}

    def _take(self, rows: Sequence[Capture | ShadowReply | Feedback]) -> None:
        self.calls += 1
        if self.away:
            raise Unavailable("The fake store is away.")
        if any(row.request_id in self.poison for row in rows):
            raise BadRequest("The fake store refuses this row.")

    async def window(
        self, alias: str, *, since: float, until: float | None = None, limit: int, newest: bool = False,
        labelled_only: bool = False,
    ) -> Sequence[Labelled]:  # fmt: skip
        raise NotImplementedError

    async def paired(self, alias: str, candidate: str, *, since: float, limit: int) -> Sequence[PairedReply]:
        raise NotImplementedError

    async def capture(self, request_id: str) -> Labelled:
        raise NotImplementedError

    async def count(self, alias: str, *, since: float, labelled_only: bool = False) -> int:
        raise NotImplementedError


class PromptServer(uvicorn.Server):
    """uvicorn's beginning and end without its naps of a tenth of a second, which hundreds of tests would wait for."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await until(lambda: self.should_exit, timeout_s=600.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def serving(app: Any, *, graceful_s: int = 5) -> AsyncIterator[str]:
    """A real uvicorn on a free port of the loopback, with the application's lifespan; yields its URL."""
    # asyncio takes Nagle's 40 ms off a connection only where the protocol is named.
    with socket.socket(proto=socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=Connection, log_level="error", access_log=False, timeout_graceful_shutdown=graceful_s
        )
        server = PromptServer(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            while not server.started:
                if task.done():
                    task.result()
                    raise RuntimeError("The server did not start.")
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Return once the condition holds; fail after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class World:
    """A running gateway, the engines behind it, and what it reads and writes."""

    def __init__(self, settings: Settings, engines: Sequence[StubEngine]) -> None:
        self.settings = settings
        self.engines = list(engines)
        self.sink = FakeSink()
        self.keys: list[Key] = []
        self.registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.registry)
        self.url = ""
        self.server = contextlib.AsyncExitStack()
        self.store_away = False
        self.table = self.make_table()
        self.gateway = Gateway(
            settings,
            load_routing=self._routing,
            load_keys=self._keys,
            shipping=InThisProcess(self.sink, settings.capture.ship_interval_s),
            secret=b"s" * 32,
            metrics=self.metrics,
            registry=self.registry,
            clock=Clock(),
        )

    def make_table(self, **alias: Any) -> RoutingTable:
        views = tuple(EngineView(e.url, True, frozenset({ADAPTER, CANDIDATE}), 1.0, BASE_MODEL) for e in self.engines)
        support = replace(Alias("support", champion=ADAPTER, updated_at=5.0), **alias)
        return RoutingTable(
            aliases={"support": support, "plain": Alias("plain")},
            adapters={ADAPTER: "support", CANDIDATE: "support"},
            engines=views,
            base_models=frozenset({BASE_MODEL}),
        )

    async def route(self, **alias: Any) -> None:
        self.table = self.make_table(**alias)
        await self.gateway.refresh()

    async def stop(self) -> None:
        """As SIGTERM does."""
        await self.server.aclose()

    async def _routing(self) -> RoutingTable:
        if self.store_away:
            raise Unavailable("The store is away.")
        return self.table

    async def _keys(self) -> Sequence[Key]:
        return self.keys

    @property
    def engine(self) -> StubEngine:
        return self.engines[0]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def client(self, **kwargs: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60.0, **kwargs)


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Starts engines and a gateway over them; keyword arguments are settings sections."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(engines: int = 1, control: Any = None, keys: Sequence[Key] = (), **sections: Any) -> World:
            stubs = [StubEngine() for _ in range(engines)]
            for stub in stubs:
                stub.url = await stack.enter_async_context(serving(stub))
            sections.setdefault("capture", {})
            sections["capture"] = {"ship_interval_s": 0.02, "fsync_interval_s": 0.01, **sections["capture"]}
            settings = Settings(state_dir=tmp_path, engines=tuple(s.url for s in stubs), **sections)
            world = World(settings, stubs)
            world.keys = list(keys)
            world.server = await stack.enter_async_context(contextlib.AsyncExitStack())
            world.url = await world.server.enter_async_context(serving(create_app(world.gateway, control=control)))
            return world

        yield make


@pytest.fixture
async def make_stub() -> AsyncIterator[Callable[[], Awaitable[StubEngine]]]:
    """Starts engines that no gateway knows yet."""
    async with contextlib.AsyncExitStack() as stack:

        async def make() -> StubEngine:
            stub = StubEngine()
            stub.url = await stack.enter_async_context(serving(stub))
            return stub

        yield make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[None]]:
    return until


def make_key(secret: str, *scopes: Scope) -> Key:
    return Key(secret, secret, sha256(secret.encode()).hexdigest(), frozenset(scopes), 0.0)


@pytest.fixture
def key_of() -> Callable[..., Key]:
    return make_key


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture
def run_server() -> Callable[..., contextlib.AbstractAsyncContextManager[str]]:
    return serving
