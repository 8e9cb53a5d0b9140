"""Metrics of finished requests, with their labels looked up once an alias and adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from service.gateway.reading import Said
from service.telemetry import GatewayMetrics

UNKNOWN = "unknown"
"""The label of requests that were refused before they were routed: names that clients invent make no series."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the request's first byte; None where it did not come so far or was not streamed."""

    total_s: float
    first_s: float | None = None
    last_s: float | None = None


class Tally:
    """Counts a request when it is over."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._codes: dict[tuple[str, str, int], Counter] = {}
        self._served: dict[tuple[str, str], _Served] = {}

    def refused(self, alias: str, adapter: str, status: int) -> None:
        """A request that no engine answered."""
        self._code(alias, adapter, status).inc()

    def shed(self, alias: str, reason: str) -> None:
        self._metrics.shed.labels(alias, reason).inc()

    def served(self, alias: str, adapter: str, status: int, timing: Timing, said: Said) -> None:
        self._code(alias, adapter, status).inc()
        served = self._served.get((alias, adapter))
        if served is None:
            served = self._served[alias, adapter] = _Served(self._metrics, alias, adapter)
        served.count(timing, said)

    def _code(self, alias: str, adapter: str, status: int) -> Counter:
        key = (alias, adapter, status)
        counter = self._codes.get(key)
        if counter is None:
            counter = self._codes[key] = self._metrics.requests.labels(alias, adapter, str(status))
        return counter


class _Served:
    """One alias and adapter's children."""

    def __init__(self, metrics: GatewayMetrics, alias: str, adapter: str) -> None:
        self._duration: Histogram = metrics.duration.labels(alias, adapter)
        self._ttft: Histogram = metrics.ttft.labels(alias, adapter)
        self._inter_token: Histogram = metrics.inter_token.labels(alias, adapter)
        self._prompt_tokens: Counter = metrics.prompt_tokens.labels(alias, adapter)
        self._completion_tokens: Counter = metrics.completion_tokens.labels(alias, adapter)
        self._confidence: Histogram = metrics.confidence.labels(alias, adapter)

    def count(self, timing: Timing, said: Said) -> None:
        self._duration.observe(timing.total_s)
        if timing.first_s is not None:
            self._ttft.observe(timing.first_s)
            if timing.last_s is not None and said.completion_tokens > 1:
                self._inter_token.observe((timing.last_s - timing.first_s) / (said.completion_tokens - 1))
        if said.prompt_tokens:
            self._prompt_tokens.inc(said.prompt_tokens)
        if said.completion_tokens:
            self._completion_tokens.inc(said.completion_tokens)
        if said.confidence is not None:
            self._confidence.observe(math.exp(min(said.confidence, 0.0)))
