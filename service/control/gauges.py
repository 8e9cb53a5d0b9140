"""Publishes what the reconciler sees as Prometheus metrics. Labels come from the registry only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.control.evidence import served_quality
from service.core.cycle import CycleState
from service.core.records import EngineView, Job, JobStatus
from service.core.steps import Observed
from service.ports import Traffic
from service.settings import Settings
from service.telemetry import ControllerMetrics

VERDICTS = ("STABLE", "INCONCLUSIVE", "DRIFTED")


class Gauges:
    def __init__(self, metrics: ControllerMetrics, traffic: Traffic, settings: Settings) -> None:
        self._m = metrics
        self._traffic = traffic
        self._settings = settings
        self._champions: dict[str, str] = {}
        self._checks: dict[str, str] = {}

    @contextmanager
    def tick(self) -> Iterator[None]:
        with self._m.tick_seconds.time():
            try:
                yield
            except Exception:
                self._m.ticks.labels("failed").inc()
                raise
        self._m.ticks.labels("ok").inc()

    def leader(self, leads: bool) -> None:
        self._m.is_leader.set(leads)

    def engines(self, engines: Sequence[EngineView]) -> None:
        for engine in engines:
            self._m.resident.labels(engine.url).set(len(engine.resident))

    def promoted(self, alias: str) -> None:
        self._m.promotions.labels(alias).inc()

    def rolled_back(self, alias: str) -> None:
        self._m.rollbacks.labels(alias).inc()

    def expired(self, requests: int) -> None:
        self._m.expired.inc(requests)

    def closed(self, alias: str, outcome: CycleState) -> None:
        self._m.cycles.labels(alias, outcome).inc()

    async def alias(self, seen: Observed) -> None:
        """Everything that one alias shows."""
        name = seen.alias.name
        self._declare(name)
        quality, labelled = await served_quality(self._traffic, seen.alias, self._settings)
        self._m.quality.labels(name).set(math.nan if quality is None else quality)
        self._m.quality_labelled.labels(name).set(labelled)
        self._champion(name, seen.alias.champion)
        self._m.latched.labels(name).set(seen.alias.latched)
        for state in CycleState:
            self._m.cycle_state.labels(name, state).set(seen.cycle is not None and seen.cycle.state is state)
        self._shadow(seen)
        self._job(name, seen.job)
        self._drift(seen)

    def _declare(self, name: str) -> None:
        """Counters start at zero, so that a rate sees their first step."""
        self._m.promotions.labels(name)
        self._m.rollbacks.labels(name)
        for outcome in (CycleState.DONE, CycleState.REJECTED, CycleState.FAILED, CycleState.ROLLED_BACK):
            self._m.cycles.labels(name, outcome)
        for verdict in VERDICTS:
            self._m.drift_checks.labels(name, verdict)

    def _champion(self, name: str, champion: str) -> None:
        before = self._champions.get(name)
        if before is not None and before != champion:
            self._m.champion.remove(name, before)
        self._champions[name] = champion
        self._m.champion.labels(name, champion).set(1)

    def _shadow(self, seen: Observed) -> None:
        ruling = seen.shadow
        self._m.shadow_pairs.labels(seen.alias.name).set(ruling.pairs if ruling else 0)
        ratio = ruling.evidence / ruling.needed if ruling else 0.0
        self._m.shadow_evidence.labels(seen.alias.name).set(ratio)

    def _job(self, name: str, job: Job | None) -> None:
        running = job is not None and job.status is JobStatus.RUNNING
        self._m.job_progress.labels(name).set(job.progress if job and running else 0.0)
        shown = {
            "loss": self._m.job_loss, "heldout_loss": self._m.job_heldout_loss,
            "tokens_per_s": self._m.job_speed, "eta_s": self._m.job_left,
        }  # fmt: skip
        for key, gauge in shown.items():
            value = job.detail.get(key) if job and running else None
            if isinstance(value, int | float):
                gauge.labels(name).set(value)
            else:
                gauge.remove(name)

    def _drift(self, seen: Observed) -> None:
        check, name = seen.drift, seen.alias.name
        for verdict in VERDICTS:
            self._m.drift_verdict.labels(name, verdict).set(check is not None and check.verdict == verdict)
        if check is None or self._checks.get(name) == check.id:
            return
        self._checks[name] = check.id
        self._m.drift_checks.labels(name, check.verdict).inc()
        expected = [entry["expected"] for entry in check.scores if isinstance(entry.get("expected"), int | float)]
        self._m.estimated_quality.labels(name).set(expected[0] if expected else math.nan)
        for entry in check.scores:
            score, threshold = entry.get("score"), entry.get("threshold")
            if isinstance(score, int | float) and isinstance(threshold, int | float) and threshold > 0:
                self._m.drift_score.labels(name, str(entry.get("detector"))).set(score / threshold)
