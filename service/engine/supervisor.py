"""Keeps one vLLM alive on this machine: start, wait until ready, restart with backoff, stop cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import psutil

from service.core.errors import ConfigError
from service.drivers.vllm import VllmEngine
from service.engine.command import check_engine, engine_command, pick_device
from service.processes import ChildSpec, check_port_free, keep_running, last_line, note
from service.settings import Settings

_POLL_S = 0.5
_TELL_EVERY_S = 10.0


async def run_engine(settings: Settings, stop: asyncio.Event) -> None:
    """Supervise vLLM until `stop`.

    Raises:
        ConfigError: vLLM cannot run with these settings.
        Conflict: its port is taken.
    """
    device = pick_device(settings.engine.device)
    check_engine(settings, device, psutil.virtual_memory().available)
    check_port_free("127.0.0.1", settings.engine.port, "engine.port")
    command = engine_command(settings, device)
    log = engine_log(settings)
    spec = ChildSpec("engine", command.argv, log, command.env, stop_timeout_s=settings.engine.stop_timeout_s)
    url = f"http://127.0.0.1:{settings.engine.port}"
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_announce(url, settings, log))
        try:
            await keep_running(spec, stop)
        finally:
            watch.cancel()


async def wait_ready(engine: VllmEngine, timeout_s: float, log: Path) -> float:
    """Wait for the engine, telling how long it has been; return the seconds that it took.

    Raises:
        ConfigError: it did not become ready within `timeout_s`.
    """
    started = told = time.monotonic()
    while not await engine.ready():
        now = time.monotonic()
        if now - started > timeout_s:
            raise ConfigError(
                f"The engine was not ready within {timeout_s:.0f} s (engine.start_timeout_s). Its log, {log}, ends: "
                f"{last_line(log)}"
            )
        if now - told >= _TELL_EVERY_S:
            told = now
            note(f"the engine is loading: {now - started:.0f} s")
        await asyncio.sleep(_POLL_S)
    return time.monotonic() - started


def engine_log(settings: Settings) -> Path:
    return settings.state_dir / "logs" / "vllm.log"


async def _announce(url: str, settings: Settings, log: Path) -> None:
    engine = VllmEngine(url, settings.engine_key)
    with contextlib.suppress(ConfigError):
        note(f"the engine is ready after {await wait_ready(engine, settings.engine.start_timeout_s, log):.0f} s")
    await engine.close()
