"""Real processes: counting stub engines, and gateways over them as `trimtab serve` runs them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import yaml

from service.core.records import Adapter, EngineView, Key
from service.drivers.store import open_store
from service.ports import Store

ROOT = Path(__file__).parents[3]
CHAMPION, CANDIDATE = "support@111111111111", "support@222222222222"
CHAT: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True}


@dataclass
class Process:
    """A child that is ended, by its id, with the block that started it."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10.0) as http:
            return (await http.get(path)).raise_for_status().json()

    async def load(self, adapter: str) -> None:
        """As a controller does, where this is an engine."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            (await http.post("/v1/load_lora_adapter", json={"lora_name": adapter})).raise_for_status()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10.0) as http:
            lines = (await http.get("/metrics")).text.splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [li for li in lines if li.startswith((f"{name} ", f"{name}{{")) and all(w in li for w in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@dataclass(frozen=True)
class Reply:
    """What came of one request; `seconds` until its last byte. Status 0: no reply at all."""

    status: int
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, on Linux


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def running(argv: Sequence[str], url: str, log: Path, ready: str | None) -> AsyncIterator[Process]:
    """A Python module as a child process, awaited until `ready` answers."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *argv, stdout=output, stderr=output, cwd=ROOT, preexec_fn=_die_with_parent,
            env={k: v for k, v in os.environ.items() if not k.startswith("TRIMTAB_")},
        )  # fmt: skip
    child = Process(process, url, log)
    try:
        if ready is not None:
            await until_ready(child, ready)
        yield child
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 15.0)
            except TimeoutError:
                process.kill()
                await process.wait()


async def until_ready(child: Process, path: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    async with httpx.AsyncClient(base_url=child.url, trust_env=False, timeout=2.0) as http:
        while time.monotonic() < deadline and child.process.returncode is None:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(path)).status_code == 200:
                    return
            await asyncio.sleep(0.02)
    raise RuntimeError(f"{child.url} did not become ready:\n{child.log.read_text()[-4000:]}")


@contextlib.asynccontextmanager
async def engine(folder: Path, *, port: int | None = None, **knobs: float) -> AsyncIterator[Process]:
    """A counting stub engine; `knobs` are its flags."""
    port = port or free_port()
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in knobs.items()]
    argv = ["tests.service.gateway.counting_engine", f"--port={port}", *flags]
    async with running(argv, f"http://127.0.0.1:{port}", folder / f"engine-{port}.log", "/health") as child:
        yield child


@contextlib.asynccontextmanager
async def opened(state_dir: Path) -> AsyncIterator[Store]:
    """The store that a gateway over `state_dir` reads."""
    store = await open_store(f"sqlite+aiosqlite:///{state_dir / 'trimtab.db'}", migrate=True)
    try:
        yield store
    finally:
        await store.close()


async def prepare(
    state_dir: Path, engines: Sequence[Process], *, shadow: float = 0.0, keys: Sequence[Key] = ()
) -> None:
    """A store as a controller would leave it: `support` serves the base model, every engine is ready."""
    async with opened(state_dir) as store:
        await store.add_alias("support", now=0.0)
        resident = frozenset({CHAMPION, CANDIDATE})
        views = [EngineView(e.url, True, resident, time.time(), "base") for e in engines]
        await store.report_engines(views)
        for key in keys:
            await store.add_key(key)
        if shadow:
            name, digest = CANDIDATE, CANDIDATE.partition("@")[2].ljust(64, "0")
            await store.add_adapter(Adapter(name, "support", digest, "b" * 64, 8, 1, 0.0))
            await store.set_candidate("support", name, mirror_ratio=shadow, now=0.0)


def configure(state_dir: Path, engines: Sequence[Process], **sections: Any) -> Path:
    """A trimtab.yaml; `sections` are settings."""
    port = free_port()
    sections["server"] = {"port": port, "controller_metrics_port": 0, **sections.get("server", {})}
    config = state_dir / f"trimtab-{port}.yaml"
    text = {"engines": [e.url for e in engines], "state_dir": str(state_dir), "log_level": "warning", **sections}
    config.write_text(yaml.safe_dump(text), "utf-8")
    return config


@contextlib.asynccontextmanager
async def gateway(
    state_dir: Path, engines: Sequence[Process], *, port: int | None = None, **sections: Any
) -> AsyncIterator[Process]:
    """`trimtab serve` over a prepared store."""
    port = port or free_port()
    config = configure(state_dir, engines, **{**sections, "server": {"port": port, **sections.get("server", {})}})
    argv = ["service", "serve", "--config", str(config)]
    async with running(argv, f"http://127.0.0.1:{port}", state_dir / "serve.log", "/ready") as child:
        yield child


@contextlib.asynccontextmanager
async def world(
    folder: Path, *, engines: int = 1, shadow: float = 0.0, knobs: Mapping[str, float] | None = None, **sections: Any
) -> AsyncIterator[tuple[Process, list[Process]]]:
    """A gateway over engines of its own."""
    async with contextlib.AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(engine(folder, **(knobs or {}))) for _ in range(engines)]
        await prepare(folder / "state", stubs, shadow=shadow)
        yield await stack.enter_async_context(gateway(folder / "state", stubs, **sections)), stubs


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without limits of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120.0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as client:
        yield client


async def post(client: aiohttp.ClientSession, url: str, body: Any, path: str = "/v1/chat/completions") -> Reply:
    """Ask and read to the end; a failed connection is a reply too."""
    started = time.perf_counter()
    try:
        async with client.post(f"{url}{path}", json=body) as reply:
            content = await reply.read()
    except aiohttp.ClientError as error:
        return Reply(0, time.perf_counter() - started, body=str(error).encode())
    return Reply(reply.status, time.perf_counter() - started, reply.headers, content)


def raw_request(body: Any, path: str = "/v1/chat/completions") -> bytes:
    """A request's bytes, for clients that misbehave."""
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


async def eventually(condition: Any, timeout_s: float, every_s: float = 0.02) -> float:
    """Seconds until the awaitable condition holds; fails after `timeout_s`."""
    started = time.perf_counter()
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(every_s)
    return time.perf_counter() - started
