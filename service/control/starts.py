"""What opens a cycle besides drift and people: labels, the calendar, Prometheus's alerts. And what holds it, or its
job, back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from service.control.context import Control
from service.control.evidence import plan_policy
from service.control.views import View
from service.core.cycle import Trigger
from service.core.errors import Conflict, NotFound
from service.core.records import Alias, Cycle, Job, JobStatus
from service.core.starts import held_back, quiet_since
from service.core.steps import PlanPolicy
from service.ports import Store
from service.settings import Settings

_DAY_S = 86_400.0
_MAX_ALERTS = 1_000


async def opened_today(store: Store, recent: Sequence[Cycle], alias: str, policy: PlanPolicy, now: float) -> int:
    """Cycles of the last 24 hours, no more than matter; `recent` are the newest two, which mostly suffice."""
    if len(recent) == 2 and now - recent[-1].opened_at < _DAY_S:
        recent = await store.cycles(alias, limit=policy.max_cycles_per_day)
    return sum(now - cycle.opened_at < _DAY_S for cycle in recent)


async def jobs_of(store: Store, cycles: Sequence[Cycle]) -> list[Job]:
    """The jobs of those that have no candidate yet."""
    return [await store.job(cycle.job_id) for cycle in cycles if cycle.job_id is not None and cycle.candidate is None]


async def without_room(store: Store, max_jobs: int) -> Sequence[str]:
    """The aliases whose jobs are as many as may be at a time; none where there is room for another job."""
    jobs = await jobs_of(store, await store.cycles(open_only=True))
    going = [job.alias for job in jobs if job.status in {JobStatus.QUEUED, JobStatus.RUNNING}]
    return going if len(going) >= max_jobs else []


async def newly_labelled(store: Store, alias: Alias, last: Cycle | None, policy: PlanPolicy) -> int:
    """Labelled requests since the alias was last changed or trained for; 0 where no setting asks."""
    if policy.labels is None and policy.every_s is None:
        return 0
    return await store.count(alias.name, since=quiet_since(alias, last), labelled_only=True)


async def onset(store: Store, settings: Settings, alias: Alias, cycle: Cycle) -> float:
    """Where the window that was judged as drifted began, in Unix seconds.

    A cycle that follows a fruitless one goes on with its onset: the drift is the same, its examples count.
    """
    for before in await store.cycles(alias.name, limit=5):
        if before.id != cycle.id and before.opened_at > alias.reference_since and before.job_id is not None:
            job = await store.job(before.job_id)
            if job is not None and job.spec.get("champion") == alias.champion and "onset" in job.spec:
                return float(job.spec["onset"])
    size = settings.drift.current_size
    rows = await store.window(alias.name, since=alias.reference_since, until=cycle.opened_at, limit=size, newest=True)
    return rows[0].capture.at if rows else cycle.opened_at


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alert(_Lenient):
    """One alert as Alertmanager sends it; the label `alias` says whom it is about."""

    status: str
    labels: dict[str, str] = {}


class Alerts(_Lenient):
    """Alertmanager's webhook, https://prometheus.io/docs/alerting/latest/configuration/#webhook_config."""

    alerts: Annotated[list[Alert], Field(max_length=_MAX_ALERTS)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one alias's alerts: the cycle that was opened, or why none was."""

    alias: str
    alert: str
    cycle: str | None
    reason: str


def alert_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/alerts", tags=["alerts"])

    @routes.post("")
    async def alerts(body: Alerts, request: Request) -> View:
        """Alertmanager's webhook: a firing alert with the label `alias` opens a cycle of that alias, if one may open.

        Always 200 for what could be read, since Alertmanager would send a refusal again and again.
        """
        names: dict[str, str] = {}
        for alert in body.alerts:
            if alert.status == "firing" and "alias" in alert.labels:
                names.setdefault(alert.labels["alias"], alert.labels.get("alertname", "an alert"))
        answers = [await _answer(control, alias, name, request.state.actor) for alias, name in names.items()]
        return {"data": [{"alias": a.alias, "alert": a.alert, "cycle": a.cycle, "reason": a.reason} for a in answers]}

    return routes


async def _answer(control: Control, alias: str, alert: str, actor: str) -> Answer:
    try:
        cycle = await _open(control, await control.store.alias(alias), alert, actor)
    except (NotFound, Conflict) as error:
        return Answer(alias, alert, None, error.message)
    return Answer(alias, alert, cycle.id, cycle.reason)


async def _open(control: Control, alias: Alias, alert: str, actor: str) -> Cycle:
    """Raises Conflict where a cycle is open already or something holds the next one back."""
    store, policy, now = control.store, plan_policy(control.settings), control.clock.now()
    recent = await store.cycles(alias.name, limit=2)
    last = next((cycle for cycle in recent if not cycle.is_open), None)
    today = await opened_today(store, recent, alias.name, policy, now)
    if (why := held_back(alias, last, today, policy, now)) is not None:
        raise Conflict(why)
    return await store.open_cycle(
        secrets.token_hex(6), alias.name, Trigger.ALERT, reason=f"The alert {alert} fired.",
        evidence={"alert": {"name": alert, "by": actor}}, now=now, actor=actor,
    )  # fmt: skip
