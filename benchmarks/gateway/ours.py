"""The gateway under test: `trimtab serve` as an operator runs it, one process, over a SQLite store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gateway.arms import MODEL, HttpArm
from benchmarks.gateway.process import Cores, free_port, module, program
from service.core.records import EngineView, Key, Scope
from service.drivers.store import open_store
from service.settings import load_settings

KEY = "benchmark"
Changes = Mapping[str, Mapping[str, Any]]


@asynccontextmanager
async def gateway(
    folder: Path, engine: str, cores: Cores, *, name: str = "Trimtab", changes: Changes | None = None
) -> AsyncIterator[HttpArm]:
    """One that demands a key and serves one alias from `engine`, a URL; `changes` are settings, by section."""
    port = free_port()
    sections = {"server": {"port": port, "require_keys": True}, **(changes or {})}
    config = folder / "trimtab.yaml"
    config.write_text(
        yaml.safe_dump({"engines": [engine], "state_dir": str(folder), "log_level": "warning", **sections})
    )
    await _prepare_store(load_settings(config).store_url, engine)
    argv = module("service", "serve", "--config", str(config))
    with program(argv, cores.tested, folder / "gateway.log") as process:
        arm = HttpArm(name, f"http://127.0.0.1:{port}/v1", process, KEY)
        await arm.until_answered()
        process.move_children(cores.others)  # what ships captures may run wherever there is room
        yield arm


async def dropped_captures(arm: HttpArm) -> int:
    """How many captures the gateway has lost so far, by its own metrics."""
    async with httpx.AsyncClient() as client:
        url = arm.base_url.removesuffix("/v1") + "/metrics"
        reply = await client.get(url, headers={"authorization": f"Bearer {KEY}"})
    families = text_string_to_metric_families(reply.raise_for_status().text)
    samples = [sample for family in families for sample in family.samples]
    return int(sum(sample.value for sample in samples if sample.name == "trimtab_captures_dropped_total"))


async def _prepare_store(url: str, engine: str) -> None:
    store = await open_store(url, migrate=True)
    try:
        await store.add_alias(MODEL, now=0.0)
        await store.add_key(Key("k", "k", sha256(KEY.encode()).hexdigest(), frozenset(Scope), 0.0))
        await store.report_engines([EngineView(engine, True, frozenset(), 0.0, "base")])
    finally:
        await store.close()
