"""What a running job shows as metrics, and that nothing of it stays once it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from service.control.gauges import Gauges
from service.core.cycle import Trigger
from service.core.records import Alias, Cycle, Job, JobPhase, JobStatus
from service.core.steps import Observed
from service.drivers.store import open_store
from service.settings import Settings
from service.telemetry import ControllerMetrics

SHOWN = ("loss", "heldout_loss", "tokens_per_second", "remaining_seconds")
DETAIL = {"step": 3, "loss": 0.75, "heldout_loss": 0.9, "tokens_per_s": 5400, "eta_s": 40.5, "curve": {"train": []}}


async def test_a_running_jobs_training_is_shown_until_it_ends(tmp_path: Path) -> None:
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    registry = CollectorRegistry()
    gauges = Gauges(ControllerMetrics(registry), store, Settings(state_dir=tmp_path))
    alias = await store.add_alias("support", now=0.0)
    cycle = await store.open_cycle("c1", "support", Trigger.PERSON, reason="r", evidence={}, now=1.0, actor="a")

    async def shown(status: JobStatus, detail: dict[str, Any]) -> list[float | None]:
        await gauges.alias(_seen(alias, cycle, status, detail))
        return [registry.get_sample_value(f"trimtab_job_{name}", {"alias": "support"}) for name in SHOWN]

    assert await shown(JobStatus.QUEUED, {}) == [None] * 4
    assert await shown(JobStatus.RUNNING, {"loss": 1.5, "tokens_per_s": None}) == [1.5, None, None, None]
    assert await shown(JobStatus.RUNNING, DETAIL) == [0.75, 0.9, 5400.0, 40.5]
    assert await shown(JobStatus.SUCCEEDED, DETAIL) == [None] * 4
    await store.close()


def _seen(alias: Alias, cycle: Cycle, status: JobStatus, detail: dict[str, Any]) -> Observed:
    job = Job("j1", cycle.id, alias.name, status, 1.0, 1.0, phase=JobPhase.TRAINING, progress=0.4, detail=detail)
    return Observed(alias, cycle, None, None, job, False)
