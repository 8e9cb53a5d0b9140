"""`trimtab up`: every process of one machine, each restarted when it dies, stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import httpx
import psutil

from service.core.errors import ConfigError, TrimtabError
from service.drivers.blobs import open_blobs
from service.drivers.database import parse_url
from service.drivers.golden_sets import check_golden_sets
from service.drivers.plugins import check_finders
from service.drivers.scorers import check_scorers
from service.engine.command import check_engine, pick_device
from service.processes import ChildSpec, check_port_free, keep_running, note, stop_on_signals
from service.settings import Settings

_TELL_EVERY_S = 10.0


async def run_up(settings: Settings, config: Path | None, overrides: dict[str, str]) -> None:
    """Run engine (unless `engines` names some), gateway, controller and monitor until a signal comes.

    Raises:
        TrimtabError: a process cannot work with these settings; its own words are the message.
    """
    stop = stop_on_signals()
    _check(settings)
    roles = ["serve", "controller", "monitor"] if settings.drift.enabled else ["serve", "controller"]
    if not settings.engines:
        roles.insert(0, "engine")
    specs = [_spec(role, settings, config, overrides) for role in roles]
    tasks = [asyncio.create_task(keep_running(spec, stop)) for spec in specs]
    tasks.append(asyncio.create_task(_announce(settings, stop)))
    try:
        await asyncio.gather(*tasks)
    except TrimtabError:
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _spec(role: str, settings: Settings, config: Path | None, overrides: dict[str, str]) -> ChildSpec:
    argv = [sys.executable, "-m", "service", role]
    if config is not None:
        argv += ["--config", str(config)]
    timeout_s = settings.server.drain_s + 5.0 if role == "serve" else 20.0
    return ChildSpec(role, argv, settings.state_dir / "logs" / f"{role}.log", overrides, stop_timeout_s=timeout_s)


def _check(settings: Settings) -> None:
    """What any of the processes would refuse is told at once, before one starts."""
    _check_ports(settings)
    _check_embedder(settings)
    check_scorers(settings)
    if settings.retrain.launcher == "subprocess":
        check_golden_sets(settings)
        check_finders(settings)
    parse_url(settings.store_url)
    open_blobs(settings.blobs_url, settings.state_dir / "cache")
    if not settings.engines:
        check_engine(settings, pick_device(settings.engine.device), psutil.virtual_memory().available)


def _check_ports(settings: Settings) -> None:
    check_port_free(settings.server.host, settings.server.port, "server.port")
    if settings.server.controller_metrics_port:
        check_port_free("127.0.0.1", settings.server.controller_metrics_port, "server.controller_metrics_port")
    if not settings.engines:
        check_port_free("127.0.0.1", settings.engine.port, "engine.port")


def _check_embedder(settings: Settings) -> None:
    """At the terminal a wrong path is a mistake to be told; a worker that runs alone goes on without an embedder."""
    named = settings.drift.embedder
    if named is None or "://" in named or not settings.drift.enabled:
        return
    for file in ("model.onnx", "tokenizer.json"):
        if not (Path(named).expanduser() / file).is_file():
            raise ConfigError(
                f"There is no {file} in {named}; set drift.embedder to a folder with model.onnx and tokenizer.json, or "
                "to the URL of an embeddings API."
            )


async def _announce(settings: Settings, stop: asyncio.Event) -> None:
    """A progress line until the service is ready, then its addresses."""
    base = f"http://{settings.server.host}:{settings.server.port}"
    note(f"starting; logs are in {settings.state_dir / 'logs'}")
    waited_s = 0.0
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as http:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(f"{base}/ready")).status_code == 200:
                    note(f"ready after {waited_s:.0f} s: API {base}/v1, console {base}/console")
                    return
            await asyncio.sleep(1.0)
            waited_s += 1.0
            if waited_s % _TELL_EVERY_S == 0:
                note(f"the engine is loading: {waited_s:.0f} s")
