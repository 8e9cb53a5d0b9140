"""Carries out the steps that `core.plan` asks for: each a write under the lease, with what else it needs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from service.control.gauges import Gauges
from service.control.launcher import Launcher
from service.control.starts import onset
from service.control.webhook import Webhook, asking
from service.core import steps
from service.core.cycle import CycleState, Trigger
from service.core.errors import Conflict
from service.core.names import job_name
from service.core.promotion import Ruling
from service.core.records import Alias, Cycle, Job, JobStatus, Lease
from service.drivers.failpoints import Failpoint, reach
from service.ports import Clock, Store
from service.settings import Settings

ACTOR = "controller"


class Executor:
    """One step at a time; whatever dies between two, the next controller goes on from the store."""

    def __init__(
        self, store: Store, settings: Settings, launcher: Launcher, gauges: Gauges, clock: Clock,
        webhook: Webhook | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._settings = settings
        self._launcher = launcher
        self._gauges = gauges
        self._clock = clock
        self._webhook = webhook

    async def execute(self, seen: steps.Observed, action: steps.Action, lease: Lease) -> steps.Observed:
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
                told = {**_shadow_evidence(ruling), "guards": [guard.reasons[0] for guard in guards]}
                cycle = await self._note(cycle, "shadow", told, lease)
            case steps.NoteCanary(ruling):
                step = cycle.evidence.get("canary", {})
                cycle = await self._note(cycle, "canary", {**step, **_shadow_evidence(ruling)}, lease)
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
            "onset": await onset(self._store, self._settings, alias, cycle),
            "until": self._clock.now(),
            **({"merge": cycle.evidence["merge"]} if "merge" in cycle.evidence else {}),
        }

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


def _shadow_evidence(ruling: Ruling) -> Mapping[str, Any]:
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
