"""The controller's process, put together. Apart from the others': a gateway should not hold what it never runs."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from service.bootstrap import build_blobs, declare_aliases, opened_store
from service.control.gauges import Gauges
from service.control.launcher import KubernetesLauncher, Launcher, SubprocessLauncher
from service.control.reconciler import Reconciler
from service.control.residency import ResidencyKeeper
from service.control.retention import Retention
from service.control.sweeper import Sweeper
from service.control.webhook import Webhook
from service.drivers.clock import SystemClock
from service.drivers.golden_sets import check_golden_sets
from service.drivers.plugins import check_finders
from service.drivers.scorers import check_scorers
from service.drivers.vllm import VllmEngine
from service.processes import check_port_free, stop_on_signals
from service.settings import Settings
from service.telemetry import ControllerMetrics


async def run_controller(settings: Settings, config: Path | None) -> None:
    """The reconciler, until a signal comes."""
    stop = stop_on_signals()
    check_scorers(settings)
    if settings.retrain.launcher == "subprocess":  # elsewhere the jobs see other folders
        check_golden_sets(settings)
        check_finders(settings)
    async with opened_store(settings) as store:
        await declare_aliases(store, settings)
        registry = CollectorRegistry()
        gauges = Gauges(ControllerMetrics(registry), store, settings)
        if settings.server.controller_metrics_port:
            host = settings.server.host if not settings.server.is_loopback else "127.0.0.1"
            check_port_free(host, settings.server.controller_metrics_port, "server.controller_metrics_port")
            start_http_server(settings.server.controller_metrics_port, addr=host, registry=registry)
        engines = [VllmEngine(url, settings.engine_key) for url in settings.engine_urls]
        clock = SystemClock()
        blobs = build_blobs(settings)
        keeper = ResidencyKeeper(
            store, blobs, engines, clock,
            drain_s=settings.server.drain_s, warm=settings.promotion.warm,
        )  # fmt: skip
        launcher: Launcher
        if settings.retrain.launcher == "kubernetes":
            launcher = KubernetesLauncher(settings)
        else:
            launcher = SubprocessLauncher(settings, config)
        sweeper = Sweeper(store, blobs, settings.scratch_dir)
        retention = Retention(store, settings.retention, clock)
        address = settings.promotion.webhook
        webhook = Webhook(address, clock) if address else None
        await Reconciler(store, settings, keeper, launcher, gauges, clock, sweeper, retention, webhook).run(stop)
