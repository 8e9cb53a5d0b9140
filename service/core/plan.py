"""What to do now: the desired and the observed state of one alias → actions. The reconciler only carries them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from service.core.cycle import CycleState, Trigger
from service.core.freeze import in_freeze
from service.core.names import BASE
from service.core.promotion import Decision, worst
from service.core.records import Alias, Cycle, Job, JobPhase, JobStatus
from service.core.starts import between_cycles
from service.core.steps import (
    Action,
    Advance,
    AskPerson,
    Close,
    Flip,
    Mode,
    NoteCanary,
    NoteExamples,
    NoteShadow,
    NoteWait,
    Observed,
    PlanPolicy,
    RelaunchJob,
    RollBack,
    SetCanary,
    StartJob,
    StartShadow,
)

_AT_ONCE = frozenset({Trigger.PERSON, Trigger.SCHEDULE, Trigger.LABELS})
"""What they learn from is there already; a drift's examples are only about to be labelled."""


def plan(seen: Observed, policy: PlanPolicy, now: float) -> Sequence[Action]:
    """The next steps for one alias; empty when there is nothing to do but wait."""
    if seen.cycle is None:
        return between_cycles(seen, policy, now)
    match seen.cycle.state:
        case CycleState.OPEN:
            return _gathering(seen, seen.cycle, policy, now)
        case CycleState.TRAINING:
            return _training(seen.job, policy, now)
        case CycleState.EVALUATING:
            return _evaluating(seen, policy, now)
        case CycleState.SHADOWING:
            return _shadowing(seen, policy, now)
        case CycleState.CANARY:
            return _canary(seen, seen.cycle, policy, now)
        case CycleState.PROMOTING:
            return _promoting(seen)
        case CycleState.WATCHING:
            return _watching(seen)
        case _:
            return []


def _gathering(seen: Observed, cycle: Cycle, policy: PlanPolicy, now: float) -> Sequence[Action]:
    """A candidate learns from what changed: drift is noticed on fewer examples than a model can learn from."""
    enough = seen.new_examples >= policy.min_new_examples or now - cycle.opened_at >= policy.max_wait_s
    noted = NoteExamples(seen.new_examples, policy.min_new_examples)
    if not enough and cycle.trigger not in _AT_ONCE:
        return [noted]
    if seen.busy:
        return [noted, NoteWait(f"It waits until the job of {', '.join(seen.busy)} has ended (retrain.max_jobs).")]
    return [noted, StartJob()]


def _training(job: Job | None, policy: PlanPolicy, now: float) -> Sequence[Action]:
    ended = _ended_badly(job, policy, now)
    if ended is not None or job is None:
        return ended or []
    if job.status is JobStatus.SUCCEEDED or job.phase in {JobPhase.EVALUATING, JobPhase.PUBLISHING}:
        return [Advance(CycleState.EVALUATING, "The adapter is trained.")]
    return []


def _evaluating(seen: Observed, policy: PlanPolicy, now: float) -> Sequence[Action]:
    job = seen.job
    ended = _ended_badly(job, policy, now)
    if ended is not None or job is None:
        return ended or []
    if job.status is not JobStatus.SUCCEEDED:
        return []
    candidate = job.result.get("adapter")
    if not isinstance(candidate, str):
        return [Close(CycleState.FAILED, "The job reported success without an adapter.")]
    gates = (("golden", seen.golden), ("held-out", seen.heldout), *seen.gates)
    for name, gate in gates:
        if gate is None or gate.decision is Decision.HOLD:
            why = gate.reasons[0] if gate else "It was not evaluated."
            return [Close(CycleState.FAILED, f"No {name} evidence, so nothing is promoted. {why}")]
        if gate.decision is Decision.REJECT:
            return [Close(CycleState.REJECTED, gate.reasons[0])]
    if seen.locked is not None:
        return [Close(CycleState.REJECTED, f"{candidate} was rolled back before and is locked out: {seen.locked}")]
    reasons = " ".join(gate.reasons[0] for _, gate in gates if gate)
    return [StartShadow(candidate, reasons, seen.doubts)]


def _shadowing(seen: Observed, policy: PlanPolicy, now: float) -> Sequence[Action]:
    ruling = seen.shadow
    if ruling is None:
        return []
    note = NoteShadow(ruling, seen.guards)
    for judged in (ruling, *seen.guards):
        if judged.decision is Decision.REJECT:
            return [note, Close(CycleState.REJECTED, judged.reasons[0])]
    if worst([ruling, *seen.guards]) is not Decision.PROMOTE:
        return [note]
    told = seen.cycle.evidence if seen.cycle else {}
    doubts = told.get("doubts", ())
    if (policy.mode is not Mode.AUTO or doubts) and not told.get("approved"):
        return [note, AskPerson(" ".join((ruling.reasons[0], *doubts)))]
    if (freeze := in_freeze(policy.freezes, now)) is not None:
        return [note, NoteWait(f"Proven; it is promoted once the freeze {freeze} is over (promotion.freezes).")]
    return [note, Advance(CycleState.CANARY if policy.canary else CycleState.PROMOTING, ruling.reasons[0])]


def _canary(seen: Observed, cycle: Cycle, policy: PlanPolicy, now: float) -> Sequence[Action]:
    """One share of the clients after another; each is guarded before the next."""
    if not policy.canary:
        return [Advance(CycleState.PROMOTING, "promotion.canary names no steps any more.")]
    if not seen.resident:
        return []
    step = min(int(cycle.evidence.get("canary", {}).get("step", 0)), len(policy.canary) - 1)
    if seen.alias.canary_ratio != policy.canary[step]:
        return [_canary_step(step, policy, "The candidate meets its first clients.")]
    ruling = seen.canary
    if ruling is None:
        return []
    if ruling.decision is Decision.HOLD:
        return [NoteCanary(ruling)]
    if ruling.decision is Decision.REJECT:
        return [NoteCanary(ruling), Close(CycleState.REJECTED, ruling.reasons[0])]
    if step + 1 < len(policy.canary):
        return [NoteCanary(ruling), _canary_step(step + 1, policy, ruling.reasons[0])]
    if (freeze := in_freeze(policy.freezes, now)) is not None:
        return [NoteWait(f"Proven; it is promoted once the freeze {freeze} is over (promotion.freezes).")]
    return [NoteCanary(ruling), Advance(CycleState.PROMOTING, ruling.reasons[0])]


def _canary_step(step: int, policy: PlanPolicy, reason: str) -> SetCanary:
    return SetCanary(step, policy.canary[step], reason)


def _promoting(seen: Observed) -> Sequence[Action]:
    cycle = seen.cycle
    if cycle is None or cycle.candidate is None:
        return [Close(CycleState.FAILED, "There is no candidate to promote.")]
    if seen.alias.champion == cycle.candidate:
        return [Advance(CycleState.WATCHING, "The alias already serves the candidate.")]
    if not seen.resident:
        return []
    return [Flip(cycle.candidate, str(cycle.evidence.get("shadow", {}).get("reason", "The shadow evidence sufficed.")))]


def _watching(seen: Observed) -> Sequence[Action]:
    if seen.cycle and seen.alias.champion != seen.cycle.candidate:
        return [Close(CycleState.DONE, f"{seen.alias.champion} took its place by hand.")]
    ruling = seen.watch
    if ruling is None or ruling.decision is Decision.HOLD:
        return []
    if ruling.decision is Decision.REJECT:
        return [RollBack(ruling.reasons[0])]
    return [Close(CycleState.DONE, ruling.reasons[0])]


def _ended_badly(job: Job | None, policy: PlanPolicy, now: float) -> Sequence[Action] | None:
    """What to do about a job that is gone, failed, or silent; None for one that is well."""
    if job is None:
        return [Close(CycleState.FAILED, "The cycle's job is not in the store.")]
    if job.status in {JobStatus.FAILED, JobStatus.CANCELLED}:
        return [Close(CycleState.FAILED, job.error or f"The job was {job.status}.")]
    if job.status is JobStatus.SUCCEEDED:
        return None
    queued_s = now - job.queued_at if job.status is JobStatus.QUEUED else 0.0
    if queued_s > policy.start_timeout_s:
        waited = f"Nobody began the job within {queued_s:.0f} s (retrain.start_timeout_s)"
        return [Close(CycleState.FAILED, f"{waited}; see its log, or for a Kubernetes Job its events.")]
    silent_s = now - max(job.updated_at, job.heartbeat_at or 0.0)
    if silent_s <= policy.stale_after_s:
        return None
    if job.attempts >= policy.max_attempts:
        return [Close(CycleState.FAILED, f"The job died {job.attempts} times (silent for {silent_s:.0f} s).")]
    if job.status is JobStatus.QUEUED:
        return [RelaunchJob(f"Nobody began the job for {silent_s:.0f} s; it is launched unless it is on its way.")]
    return [RelaunchJob(f"The job was silent for {silent_s:.0f} s.")]


def desired_adapters(aliases: Iterable[Alias], cycles: Iterable[Cycle], jobs: Iterable[Job] = ()) -> frozenset[str]:
    """The adapters that every engine should hold: champions, previous ones, open cycles' candidates, and what running
    `jobs` have made and want to ask."""
    wanted: set[str | None] = set()
    for alias in aliases:
        wanted |= {alias.champion, alias.previous, alias.candidate}
    wanted |= {cycle.candidate for cycle in cycles if cycle.is_open}
    made = (job.detail.get("adapter") for job in jobs if job.status is JobStatus.RUNNING)
    wanted |= {name for name in made if isinstance(name, str)}
    return frozenset(name for name in wanted if name is not None and name != BASE)


def load_order(missing: Iterable[str], aliases: Iterable[Alias]) -> list[str]:
    """What to load first on an engine that has lost its adapters: champions come last.

    An engine has slots, and memory, for some adapters only, and gives up those used longest ago: so not the ones that
    clients are waiting for.
    """
    champions = {alias.champion for alias in aliases}
    return sorted(missing, key=lambda name: (name in champions, name))


def removable(
    resident: Iterable[str],
    desired: frozenset[str],
    undesired_since: Mapping[str, float],
    *,
    now: float,
    drain_s: float,
) -> frozenset[str]:
    """Adapters to unload: nobody wants them, and requests that were pinned to them have had `drain_s` to end."""
    return frozenset(
        name for name in resident if name not in desired and now - undesired_since.get(name, now) >= drain_s
    )
