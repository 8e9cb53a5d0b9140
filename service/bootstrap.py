"""Where concrete drivers are chosen: one run_* per process, the controller's in `controller.py`."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from service.control.app import create_control_app
from service.core.errors import ConfigError
from service.core.names import BASE
from service.core.records import Adapter, Scope
from service.drivers.adapter_files import register_adapter
from service.drivers.blobs import open_blobs
from service.drivers.clock import SystemClock
from service.drivers.notices import routing_notices
from service.drivers.store import open_store
from service.gateway.app import create_app
from service.gateway.gateway import Gateway
from service.gateway.server import Server
from service.gateway.shipping import ShippingProcess
from service.ports import Blobs, Store
from service.processes import check_port_free, lower_priority, note, stop_on_signals
from service.settings import Settings
from service.telemetry import GatewayMetrics

if TYPE_CHECKING:
    from service.gateway.spans import Spans

SHIP = (sys.executable, "-m", "service.ship")
REQUEST_ID_SECRET = "request-ids"
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextlib.asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The store; a SQLite one is brought up to date here, PostgreSQL waits for `trimtab db upgrade`."""
    url = settings.store_url
    if url.startswith("sqlite"):
        settings.state_dir.mkdir(parents=True, exist_ok=True)
    store = await open_store(url, migrate=url.startswith("sqlite"))
    try:
        yield store
    finally:
        await store.close()


def build_blobs(settings: Settings) -> Blobs:
    return open_blobs(settings.blobs_url, settings.state_dir / "cache" / "adapters")


async def declare_aliases(store: Store, settings: Settings) -> None:
    """Create the aliases that the settings name; those that exist keep what they serve."""
    now = SystemClock().now()
    for name, alias in settings.aliases.items():
        await store.add_alias(name, champion=alias.champion or BASE, now=now)


def spans_from_environment() -> Spans | None:
    """Spans to the endpoint that OpenTelemetry's own variables name; None, and its SDK is not loaded, without one."""
    if not any(os.environ.get(name) for name in OTLP_ENDPOINTS):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from service.gateway.spans import Spans

    return Spans(OTLPSpanExporter())


async def run_serve(settings: Settings) -> None:
    """The gateway with the control API and the console on one port, until a signal comes."""
    server = settings.server
    check_port_free(server.host, server.port, "server.port")
    async with opened_store(settings) as store:
        await declare_aliases(store, settings)
        await _warn_without_keys(store, settings)
        registry = CollectorRegistry()
        clock = SystemClock()
        shipping = ShippingProcess(
            SHIP, store_url=settings.store_url, interval_s=settings.capture.ship_interval_s,
            log_level=settings.log_level, clock=clock,
        )  # fmt: skip
        gateway = Gateway(
            settings,
            load_routing=store.routing,
            load_keys=store.keys,
            shipping=shipping,
            secret=await store.secret(REQUEST_ID_SECRET),
            metrics=GatewayMetrics(registry),
            registry=registry,
            clock=clock,
            spans=spans_from_environment(),
            notices=None if settings.store_url.startswith("sqlite") else lambda: routing_notices(settings.store_url),
        )
        blobs = build_blobs(settings)

        async def add_adapter(alias: str, folder: Path) -> Adapter:
            return await register_adapter(
                store, blobs, alias, folder, settings.model, max_rank=settings.engine.max_lora_rank, now=clock.now()
            )

        def authorize(headers: Mapping[str, str], scope: Scope) -> str | None:
            return gateway.authorize(headers, scope)

        control = create_control_app(
            store, settings, authorize=authorize, on_change=gateway.refresh, clock=clock, adapters=add_adapter
        )
        app = create_app(gateway, control=control)
        note(f"serving on http://{server.host}:{server.port} (console: /console, API: /docs)")
        await Server(app, gateway, settings).serve()


async def run_monitor_process(settings: Settings) -> None:
    """The drift worker, until a signal comes; niced, since clients share the machine."""
    os.environ["DO_NOT_TRACK"] = "1"
    lower_priority(5)
    from service.monitor.worker import run_monitor

    stop = stop_on_signals()
    async with opened_store(settings) as store:
        await run_monitor(store, settings, SystemClock(), stop)


async def run_replay(
    settings: Settings, alias: str, since: float | None, until: float | None, *, as_json: bool
) -> None:
    """Print what today's drift settings make of the stored traffic."""
    os.environ["DO_NOT_TRACK"] = "1"
    from service.monitor.embedders import build_embedder
    from service.monitor.replay import replay, tell

    async with opened_store(settings) as store:
        found = await replay(
            store, settings, build_embedder(settings), alias, since=since or 0.0, until=until or math.inf
        )  # fmt: skip
    tell(found, as_json=as_json)


async def run_reference(settings: Settings, alias: str, pinned: str | None) -> Mapping[str, Any]:
    """The versions of an alias's reference, after pinning one where that is asked for."""
    from service.monitor.reference import pin_named, versions_view

    async with opened_store(settings) as store:
        found = await store.alias(alias)
        if pinned is not None:
            await pin_named(store, settings, found, pinned, now=SystemClock().now())
        return await versions_view(store, settings, found)


async def run_engine_process(settings: Settings) -> None:
    """One supervised vLLM, until a signal comes."""
    from service.engine.supervisor import run_engine

    if settings.engines:
        raise ConfigError("'engines' names running engines, so there is none to start; remove it or this command.")
    await run_engine(settings, stop_on_signals())


async def _warn_without_keys(store: Store, settings: Settings) -> None:
    if settings.server.keys_required and not any(key.revoked_at is None for key in await store.keys()):
        note("keys are required and there is none yet: create one with `trimtab keys create NAME --scope infer`")
