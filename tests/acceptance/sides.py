"""One engine that generates, one that embeds, and `trimtab serve` before both: what conformance is judged on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from benchmarks.tiny_model import save_adapter, save_model
from benchmarks.vllm_server import end, vllm_server, wait_until_healthy
from service.core.records import Adapter, EngineView
from service.drivers.store import open_store
from tests.acceptance.conformance_cases import EMBEDDINGS
from tests.service.gateway.live import free_port

ROOT = Path(__file__).parents[2]
ADAPTER = "support@111111111111"
GENERATES = (
    "--enable-auto-tool-choice", "--tool-call-parser=hermes", "--scheduling-policy=priority",
    "--no-enable-prefix-caching", "--max-num-seqs=8", "--enforce-eager",
)  # fmt: skip
EMBEDS = ("--runner=pooling", "--convert=embed", "--served-model-name=embedder", "--max-num-seqs=8", "--enforce-eager")


@dataclass(frozen=True)
class Sides:
    """URLs: the two engines, and the gateway over both."""

    engine: str
    embedder: str
    gateway: str

    def direct(self, path: str) -> str:
        return self.embedder if path == EMBEDDINGS else self.engine


@contextmanager
def both_sides(folder: Path) -> Iterator[Sides]:
    """Start all three, with their logs and state in `folder`."""
    model = save_model(folder / "base")
    adapters = {ADAPTER: save_adapter(folder / "one", model, seed=1)}
    with ExitStack() as stack:
        servers = (
            vllm_server(model, adapters, folder / "engine.log", flags=GENERATES, start_s=400),
            vllm_server(model, {}, folder / "embedder.log", flags=EMBEDS, start_s=400),
        )
        with ThreadPoolExecutor(2) as pool:
            engine, embedder = pool.map(stack.enter_context, servers)
        asyncio.run(_prepare(folder / "state", engine))
        yield Sides(engine, embedder, stack.enter_context(_gateway(folder, engine, embedder)))


async def _prepare(state_dir: Path, engine: str) -> None:
    """As a controller leaves it: `plain` serves the base model, `support` an adapter that the engine holds."""
    store = await open_store(f"sqlite+aiosqlite:///{state_dir / 'trimtab.db'}", migrate=True)
    await store.add_alias("plain", now=0.0)
    await store.add_alias("support", now=0.0)
    await store.add_adapter(Adapter(ADAPTER, "support", ADAPTER[-12:].ljust(64, "0"), "b" * 64, 16, 1, 0.0))
    await store.promote("support", ADAPTER, actor="test", reason="to be asked", now=0.0)
    await store.report_engines([EngineView(engine, True, frozenset({ADAPTER}), time.time(), "base")])
    await store.close()


@contextmanager
def _gateway(folder: Path, engine: str, embedder: str) -> Iterator[str]:
    """`trimtab serve` over the engines; ready once it has found the embedding model."""
    port, config, log = free_port(), folder / "trimtab.yaml", folder / "serve.log"
    settings = {
        "state_dir": str(folder / "state"), "engines": [engine], "embedding_engines": [embedder],
        "server": {"port": port, "controller_metrics_port": 0}, "gateway": {"probe_s": 0.2}, "log_level": "warning",
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings), "utf-8")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--config", str(config)],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, process, log, 60)
        while httpx.get(f"{url}/v1/models/embedder").status_code != 200:
            time.sleep(0.1)
        yield url
    finally:
        end(process)
