"""A registry in which every Trimtab metric has samples, served over HTTP; its counters grow at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry import ControllerMetrics, GatewayMetrics

_LABELS = {
    "alias": ("support", "sales"),
    "adapter": ("base",),
    "code": ("200", "429", "502"),
    "reason": ("queue_full",),
    "kind": ("expected",),
    "outcome": ("ok", "failed", "sent"),
    "engine": ("http://127.0.0.1:8001",),
    "detector": ("confidence",),
    "verdict": ("STABLE", "DRIFTED"),
    "state": ("training",),
}


def all_metrics() -> tuple[CollectorRegistry, list[MetricWrapperBase]]:
    """A fresh registry with every metric that telemetry declares, each touched once per label value."""
    registry = CollectorRegistry()
    metrics = [*vars(GatewayMetrics(registry)).values(), *vars(ControllerMetrics(registry)).values()]
    for metric in metrics:
        _touch(metric)
    return registry, metrics


@contextmanager
def serving() -> Iterator[str]:
    """Serve such a registry; yield `host:port`."""
    registry, metrics = all_metrics()
    registry.register(_Grow(metrics))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Grow:
    """Asked at each scrape, it moves every metric on and adds none of its own."""

    def __init__(self, metrics: list[MetricWrapperBase]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Any]:
        return []

    def collect(self) -> Iterable[Any]:
        for metric in self._metrics:
            _touch(metric)
        return []


def _touch(metric: MetricWrapperBase) -> None:
    for child in _children(metric):
        match child:
            case Counter():
                child.inc()
            case Histogram():
                child.observe(0.02)
            case Gauge():
                child.set(1)
            case _:
                raise TypeError(f"no way to touch a {type(child).__name__}")


def _children(metric: MetricWrapperBase) -> list[MetricWrapperBase]:
    combinations: list[dict[str, str]] = [{}]
    for label in metric._labelnames:
        combinations = [{**one, label: value} for one in combinations for value in _LABELS[label]]
    return [metric.labels(**one) if one else metric for one in combinations]
