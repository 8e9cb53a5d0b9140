"""The loop: observe → core.plan → execute → record, under a fenced lease. Any tick may be the last."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

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
from service.control.gauges import Gauges
from service.control.launcher import Launcher
from service.control.residency import Residency, ResidencyKeeper
from service.control.retention import Retention
from service.control.starts import jobs_of, newly_labelled, opened_today, without_room
from service.control.sweeper import Sweeper
from service.control.webhook import Webhook, asking
from service.core import steps
from service.core.cycle import CycleState, Trigger
from service.core.errors import Conflict, NotFound, StaleWrite, TrimtabError
from service.core.names import job_name
from service.core.plan import plan
from service.core.promotion import Ruling
from service.core.records import Alias, Cycle, Job, JobStatus, Lease
from service.drivers.failpoints import Failpoint, reach
from service.ports import Clock, Store
from service.processes import note
from service.settings import Settings

LEASE = "controller"
ACTOR = "controller"

SWEEP_EVERY_S = 2.0


class Reconciler:
    """Carries every alias one step further at each tick, while it holds the lease."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        residency: ResidencyKeeper,
        launcher: Launcher,
        gauges: Gauges,
        clock: Clock,
        sweeper: Sweeper | None = None,
        retention: Retention | None = None,
        webhook: Webhook | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._residency = residency
        self._launcher = launcher
        self._gauges = gauges
        self._clock = clock
        self._sweeper = sweeper
        self._retention = retention
        self._webhook = webhook
        self._swept_at = -math.inf
        self._holder = secrets.token_hex(8)

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`; a failed tick is told and the next one starts from the store again."""
        while not stop.is_set():
            try:
                with self._gauges.tick():
                    await self.tick()
            except TrimtabError as error:
                note(f"controller: {error.message}")
            except Exception:
                note(f"controller: a tick failed\n{traceback.format_exc()}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.controller.interval_s)
        await self._launcher.stop()

    async def tick(self) -> bool:
        """One pass over engines and aliases; False when another controller leads."""
        lease = await self._store.acquire(
            LEASE, self._holder, ttl_s=self._settings.controller.lease_s, now=self._clock.now()
        )
        self._gauges.leader(lease is not None)
        if lease is None:
            return False
        reach(Failpoint.LEASE_TAKEN)
        aliases = await self._store.aliases()
        cycles = await self._store.cycles(open_only=True)
        residency = await self._residency.converge(aliases, cycles, lease, await jobs_of(self._store, cycles))
        self._gauges.engines(residency.engines)
        opened = {cycle.alias: cycle.opened_at for cycle in cycles}
        for alias in sorted(aliases, key=lambda alias: opened.get(alias.name, math.inf)):  # first come, first trained
            await self._step(alias, residency, lease)
        await self._sweep()
        return True

    async def _step(self, alias: Alias, residency: Residency, lease: Lease) -> None:
        seen = await self._observe(alias, residency)
        await self._gauges.alias(seen)
        for action in plan(seen, plan_policy(self._settings), self._clock.now()):
            try:
                seen = await self._execute(seen, action, lease)
                reach(Failpoint.ACTION_DONE)
            except StaleWrite:
                raise
            except Conflict as error:
                note(f"{alias.name}: {error.message}")
                return

    async def _sweep(self) -> None:
        now = self._clock.now()
        if self._sweeper is not None and now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            await self._sweeper.sweep()
        if self._retention is not None:
            self._gauges.expired(await self._retention.expire())

    async def _observe(self, alias: Alias, residency: Residency) -> steps.Observed:
        recent = await self._store.cycles(alias.name, limit=2)
        cycle = next((c for c in recent if c.is_open), None)
        last = next((c for c in recent if not c.is_open), None)
        drift = await newest_check(self._store, self._settings, alias.name)
        job = await self._store.job(cycle.job_id) if cycle and cycle.job_id else None
        policy, now = promotion_policy(self._settings), self._clock.now()
        golden = heldout = shadow = canary = watch = locked = None
        guards: Sequence[Ruling] = ()
        gates: Sequence[tuple[str, Ruling]] = ()
        doubts: Sequence[str] = ()
        busy: Sequence[str] = ()
        examples = today = 0
        if cycle is None:
            starting = plan_policy(self._settings)
            today = await opened_today(self._store, recent, alias.name, starting, now)
            examples = await newly_labelled(self._store, alias, last, starting)
        if cycle and cycle.state is CycleState.OPEN:
            examples = await self._new_examples(alias, cycle)
            busy = await without_room(self._store, self._settings.retrain.max_jobs)
        if cycle and cycle.state is CycleState.EVALUATING and job and job.status is JobStatus.SUCCEEDED:
            golden, heldout = golden_ruling(job, policy), heldout_ruling(job)
            gates, doubts = evaluation_gates(job, self._settings, alias.name), evaluation_doubts(job, self._settings)
            locked = await self._why_locked(job)
        if cycle and cycle.state is CycleState.CANARY:
            canary = await canary_ruling(self._store, alias, cycle, self._settings, now)
        if cycle and cycle.state is CycleState.SHADOWING:
            judged = self._settings.alias(alias.name)
            shadow = await shadow_ruling(self._store, alias, cycle, judged, policy, now)
            guards = await guard_rulings(self._store, alias, cycle, judged, policy, now)
        if cycle and cycle.state is CycleState.WATCHING:
            watch = await watch_ruling(self._store, alias, cycle, self._settings, now)
        resident = bool(cycle and cycle.candidate and residency.everywhere(cycle.candidate))
        return steps.Observed(
            alias, cycle, last, drift, job, resident, locked, examples, today, busy,
            golden, heldout, shadow, guards, canary, watch, gates, doubts,
        )  # fmt: skip

    async def _why_locked(self, job: Job) -> str | None:
        made = job.result.get("adapter")
        with contextlib.suppress(NotFound):
            return (await self._store.adapter(str(made))).locked
        return None

    async def _execute(self, seen: steps.Observed, action: steps.Action, lease: Lease) -> steps.Observed:
        """Carry out one action; return what is seen now, so that the next one starts from there."""
        alias, cycle, now, store = seen.alias, seen.cycle, self._clock.now(), self._store
        match action:
            case steps.OpenCycle(trigger, reason, evidence):
                cycle = await store.open_cycle(
                    secrets.token_hex(6),
                    alias.name,
                    trigger,
                    reason=reason,
                    evidence=evidence,
                    now=now,
                    actor=ACTOR,
                    fence=lease,
                )
                reach(Failpoint.CYCLE_OPENED)
                await self._launcher.expect(job_name(cycle.id), cycle.id)
            case steps.Latch(reason):
                alias = await store.set_health(alias.name, failures=alias.failures, latched=True, now=now, fence=lease)
                reach(Failpoint.LATCHED)
                await store.add_event("latched", actor=ACTOR, message=reason, now=now, alias=alias.name, fence=lease)
            case _ if cycle is not None:
                alias, cycle = await self._execute_in_cycle(alias, cycle, seen, action, lease)
            case _:
                raise Conflict(f"{type(action).__name__} needs an open cycle.")
        return steps.Observed(alias, cycle, seen.last, seen.drift, seen.job, seen.resident)

    async def _execute_in_cycle(
        self, alias: Alias, cycle: Cycle, seen: steps.Observed, action: steps.Action, lease: Lease
    ) -> tuple[Alias, Cycle]:
        store, now = self._store, self._clock.now()
        match action:
            case steps.NoteExamples(labelled, needed):
                cycle = await self._note(cycle, "examples", {"labelled": labelled, "needed": needed}, lease)
            case steps.StartJob():
                cycle = await self._start_job(alias, cycle, lease)
            case steps.RelaunchJob(reason) if seen.job is not None:
                job = await store.requeue(seen.job, reason=reason, actor=ACTOR, now=now, fence=lease)
                reach(Failpoint.RELAUNCH_TOLD)
                await self._launcher.launch(job)
            case steps.Advance(to, reason):
                cycle = await store.advance(cycle, to, reason=reason, now=now, evidence=_verdict(cycle), fence=lease)
            case steps.StartShadow(candidate, reason, doubts):
                evidence: dict[str, Any] = {"job": dict(seen.job.result)} if seen.job else {}
                if doubts:
                    evidence["doubts"] = list(doubts)
                alias = await store.set_candidate(
                    alias.name, candidate, mirror_ratio=self._mirror_ratio(cycle), now=now, fence=lease
                )
                reach(Failpoint.CANDIDATE_SET)
                cycle = await store.advance(
                    cycle,
                    CycleState.SHADOWING,
                    reason=reason,
                    now=now,
                    evidence=evidence,
                    candidate=candidate,
                    fence=lease,
                )
                reach(Failpoint.SHADOW_STARTED)
            case steps.NoteShadow(ruling, guards):
                told = {**shadow_evidence(ruling), "guards": [guard.reasons[0] for guard in guards]}
                cycle = await self._note(cycle, "shadow", told, lease)
            case steps.NoteCanary(ruling):
                step = cycle.evidence.get("canary", {})
                cycle = await self._note(cycle, "canary", {**step, **shadow_evidence(ruling)}, lease)
            case steps.SetCanary(step, share, reason):
                told = {"step": step, "share": share, "since": now, "reason": reason}
                cycle = await store.note_evidence(cycle, {"canary": told}, now=now, fence=lease)
                alias = await store.set_candidate(
                    alias.name, cycle.candidate, mirror_ratio=self._mirror_ratio(cycle), canary_ratio=share, now=now,
                    fence=lease,
                )  # fmt: skip
            case steps.AskPerson(reason):
                cycle = await self._ask_person(alias, cycle, reason, lease)
            case steps.NoteWait(reason):
                cycle = await self._note(cycle, "waiting", {"state": cycle.state, "reason": reason}, lease)
            case steps.Flip(candidate, reason):
                alias = await store.promote(
                    alias.name, candidate, actor=ACTOR, reason=reason, now=now,
                    reverse_ratio=self._settings.promotion.watch_mirror_ratio, fence=lease,
                )  # fmt: skip
                reach(Failpoint.FLIPPED)
                cycle = await store.advance(cycle, CycleState.WATCHING, reason=reason, now=now, fence=lease)
                reach(Failpoint.WATCH_STARTED)
                self._gauges.promoted(alias.name)
            case steps.RollBack(reason):
                alias = await store.rollback(alias.name, actor=ACTOR, reason=reason, now=now, lock=True, fence=lease)
                reach(Failpoint.ROLLED_BACK)
                self._gauges.rolled_back(alias.name)
                self._gauges.closed(alias.name, CycleState.ROLLED_BACK)
                cycle = await store.cycle(cycle.id)
            case steps.Close(to, reason):
                alias, cycle = await self._close(alias, cycle, to, reason, lease)
        return alias, cycle

    def _mirror_ratio(self, cycle: Cycle) -> float:
        """After an alarm more is worth asking, so that a verdict comes soon; the mirror's own gates bound the cost."""
        mirror = self._settings.mirror
        return mirror.alarm_ratio if cycle.trigger in {Trigger.DRIFT, Trigger.ALERT} else mirror.ratio

    async def _start_job(self, alias: Alias, cycle: Cycle, lease: Lease) -> Cycle:
        """Queue before launching: a crash between the two leaves a queued job that the next tick finds silent."""
        now = self._clock.now()
        job = Job(
            id=job_name(cycle.id), cycle_id=cycle.id, alias=alias.name, status=JobStatus.QUEUED,
            created_at=now, updated_at=now, spec=await self._job_spec(alias, cycle),
        )  # fmt: skip
        await self._store.enqueue(job, fence=lease)
        reach(Failpoint.JOB_QUEUED)
        cycle = await self._store.advance(
            cycle, CycleState.TRAINING, reason="A retraining job was queued.", now=now, job_id=job.id, fence=lease
        )
        reach(Failpoint.JOB_NAMED)
        await self._launcher.launch(job)
        reach(Failpoint.JOB_LAUNCHED)
        return cycle

    async def _job_spec(self, alias: Alias, cycle: Cycle) -> Mapping[str, Any]:
        """Rows before `onset` are replay, rows after it are new."""
        return {
            "alias": alias.name,
            "champion": alias.champion,
            "drift_check": cycle.evidence.get("drift", {}).get("check"),
            "window_since": alias.reference_since,
            "onset": await self._onset(alias, cycle),
            "until": self._clock.now(),
            **({"merge": cycle.evidence["merge"]} if "merge" in cycle.evidence else {}),
        }

    async def _onset(self, alias: Alias, cycle: Cycle) -> float:
        """Where the window that was judged as drifted began, in Unix seconds.

        A cycle that follows a fruitless one goes on with its onset: the drift is the same, its examples count.
        """
        for before in await self._store.cycles(alias.name, limit=5):
            if before.id != cycle.id and before.opened_at > alias.reference_since and before.job_id is not None:
                job = await self._store.job(before.job_id)
                if job is not None and job.spec.get("champion") == alias.champion and "onset" in job.spec:
                    return float(job.spec["onset"])
        size = self._settings.drift.current_size
        rows = await self._store.window(
            alias.name, since=alias.reference_since, until=cycle.opened_at, limit=size, newest=True
        )
        return rows[0].capture.at if rows else cycle.opened_at

    async def _new_examples(self, alias: Alias, cycle: Cycle) -> int:
        """How many examples since the onset are labelled or imported; counted no further than is asked for."""
        needed = self._settings.retrain.min_new_examples
        onset = await self._onset(alias, cycle)
        labelled = await self._store.window(alias.name, since=onset, limit=needed, labelled_only=True)
        return len(labelled) + len(await self._store.imported(alias.name, since=onset, limit=needed))

    async def _ask_person(self, alias: Alias, cycle: Cycle, reason: str, lease: Lease) -> Cycle:
        """Once into the log, whatever dies meanwhile; by the webhook until it has taken it, also after a restart."""
        asked = cycle.evidence.get("asked")
        if asked is None:
            message = f"{cycle.candidate} is proven and waits for a person: `trimtab approve {alias.name}`. {reason}"
            now = self._clock.now()
            cycle = await self._store.note_evidence(
                cycle, {"asked": {"at": now, "told": False}}, now=now, kind="cycle.asks", message=message, actor=ACTOR,
                fence=lease,
            )  # fmt: skip
        elif not asked["told"] and self._webhook is not None:
            told = await self._webhook.told(cycle.id, asking(alias, cycle, reason))
            cycle = await self._note(cycle, "asked", {**asked, "told": told}, lease)
        return cycle

    async def _note(self, cycle: Cycle, key: str, told: Mapping[str, Any], lease: Lease) -> Cycle:
        if cycle.evidence.get(key) == told:
            return cycle
        return await self._store.note_evidence(cycle, {key: told}, now=self._clock.now(), fence=lease)

    async def _close(
        self, alias: Alias, cycle: Cycle, to: CycleState, reason: str, lease: Lease
    ) -> tuple[Alias, Cycle]:
        now = self._clock.now()
        if alias.candidate is not None:
            alias = await self._store.set_candidate(alias.name, None, mirror_ratio=0.0, now=now, fence=lease)
            reach(Failpoint.CANDIDATE_CLEARED)
        cycle = await self._store.advance(cycle, to, reason=reason, now=now, evidence=_verdict(cycle), fence=lease)
        reach(Failpoint.CYCLE_CLOSED)
        self._gauges.closed(alias.name, to)
        return await self._store.alias(alias.name), cycle


def _verdict(cycle: Cycle) -> Mapping[str, Any]:
    """The comparison that a step out of the shadow rests on, for the audit log."""
    if cycle.state not in {CycleState.SHADOWING, CycleState.CANARY}:
        return {}
    return {key: cycle.evidence[key] for key in ("shadow", "canary") if key in cycle.evidence}


def shadow_evidence(ruling: Ruling) -> Mapping[str, Any]:
    """The running comparison as the cycle keeps it and the console shows it."""
    reasons: Sequence[str] = ruling.reasons
    return {
        "pairs": ruling.pairs,
        "champion_mean": ruling.champion_mean,
        "candidate_mean": ruling.candidate_mean,
        "evidence": ruling.evidence,
        "needed": ruling.needed,
        "decision": str(ruling.decision),
        "reason": reasons[0],
        "reasons": list(reasons),
    }
