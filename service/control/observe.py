"""What the store and the engines say about one alias, gathered for `core.plan`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from service.control.drift import newest_check
from service.control.evaluated import evaluation_doubts, evaluation_gates
from service.control.evidence import (
    canary_ruling,
    golden_ruling,
    guard_rulings,
    heldout_ruling,
    plan_policy,
    promotion_policy,
    shadow_ruling,
    watch_ruling,
)
from service.control.residency import Residency
from service.control.starts import newly_labelled, onset, opened_today, without_room
from service.core import steps
from service.core.cycle import CycleState
from service.core.errors import NotFound
from service.core.promotion import Ruling
from service.core.records import Alias, Cycle, Job, JobStatus
from service.ports import Store
from service.settings import Settings


async def observe(store: Store, settings: Settings, alias: Alias, residency: Residency, now: float) -> steps.Observed:
    """All that the next step depends on, and nothing that its state does not ask for."""
    recent = await store.cycles(alias.name, limit=2)
    cycle = next((c for c in recent if c.is_open), None)
    last = next((c for c in recent if not c.is_open), None)
    drift = await newest_check(store, settings, alias.name)
    job = await store.job(cycle.job_id) if cycle and cycle.job_id else None
    policy = promotion_policy(settings)
    golden = heldout = shadow = canary = watch = locked = None
    guards: Sequence[Ruling] = ()
    gates: Sequence[tuple[str, Ruling]] = ()
    doubts: Sequence[str] = ()
    busy: Sequence[str] = ()
    examples = today = 0
    if cycle is None:
        starting = plan_policy(settings)
        today = await opened_today(store, recent, alias.name, starting, now)
        examples = await newly_labelled(store, alias, last, starting)
    if cycle and cycle.state is CycleState.OPEN:
        examples = await _new_examples(store, settings, alias, cycle)
        busy = await without_room(store, settings.retrain.max_jobs)
    if cycle and cycle.state is CycleState.EVALUATING and job and job.status is JobStatus.SUCCEEDED:
        golden, heldout = golden_ruling(job, policy), heldout_ruling(job)
        gates, doubts = evaluation_gates(job, settings, alias.name), evaluation_doubts(job, settings)
        locked = await _why_locked(store, job)
    if cycle and cycle.state is CycleState.CANARY:
        canary = await canary_ruling(store, alias, cycle, settings, now)
    if cycle and cycle.state is CycleState.SHADOWING:
        judged = settings.alias(alias.name)
        shadow = await shadow_ruling(store, alias, cycle, judged, policy, now)
        guards = await guard_rulings(store, alias, cycle, judged, policy, now)
    if cycle and cycle.state is CycleState.WATCHING:
        watch = await watch_ruling(store, alias, cycle, settings, now)
    resident = bool(cycle and cycle.candidate and residency.everywhere(cycle.candidate))
    return steps.Observed(
        alias, cycle, last, drift, job, resident, locked, examples, today, busy,
        golden, heldout, shadow, guards, canary, watch, gates, doubts,
    )  # fmt: skip


async def _why_locked(store: Store, job: Job) -> str | None:
    made = job.result.get("adapter")
    with contextlib.suppress(NotFound):
        return (await store.adapter(str(made))).locked
    return None


async def _new_examples(store: Store, settings: Settings, alias: Alias, cycle: Cycle) -> int:
    """How many examples since the onset are labelled or imported; counted no further than is asked for."""
    needed = settings.retrain.min_new_examples
    since = await onset(store, settings, alias, cycle)
    labelled = await store.window(alias.name, since=since, limit=needed, labelled_only=True)
    return len(labelled) + len(await store.imported(alias.name, since=since, limit=needed))
