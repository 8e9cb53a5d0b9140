"""What a person may do to an alias. Each step leaves a state that the reconciler can go on from."""

from __future__ import annotations

import contextlib
import secrets

from service.control.context import Control
from service.control.views import missing_on
from service.core.cycle import CycleState, Trigger
from service.core.errors import Conflict, locked_out
from service.core.merging import Merge, require_alike
from service.core.names import BASE
from service.core.records import Alias, Cycle
from service.drivers.failpoints import Failpoint, reach
from service.settings import PromotionMode

_IN_PROOF = frozenset({CycleState.SHADOWING, CycleState.CANARY})
_SUPERSEDED = {
    CycleState.OPEN: CycleState.FAILED,
    CycleState.TRAINING: CycleState.REJECTED,
    CycleState.EVALUATING: CycleState.REJECTED,
    CycleState.SHADOWING: CycleState.REJECTED,
    CycleState.CANARY: CycleState.REJECTED,
    CycleState.PROMOTING: CycleState.FAILED,
    CycleState.WATCHING: CycleState.DONE,
}
"""How a cycle ends when a person promotes something else meanwhile."""


async def open_cycle_of(control: Control, alias: str) -> Cycle | None:
    found = await control.store.cycles(alias, open_only=True, limit=1)
    return found[0] if found else None


async def promote(control: Control, name: str, adapter: str, *, reason: str, actor: str, force: bool = False) -> Alias:
    """Flip the alias to `adapter`; an open cycle goes on to watching it, or ends if it was about another one.

    `force` promotes what was rolled back before, too.
    """
    store = control.store
    alias = await store.alias(name)
    await _check_promotable(control, alias, adapter, force=force)
    cycle = await open_cycle_of(control, name)
    if cycle is not None:
        cycle = await _make_way(control, cycle, adapter, reason=reason, actor=actor)
    reach(Failpoint.PERSON_MADE_WAY)
    ratio = control.settings.promotion.watch_mirror_ratio if cycle is not None else 0.0
    alias = await store.promote(
        name, adapter, actor=actor, reason=reason, now=control.clock.now(), reverse_ratio=ratio, force=force
    )
    reach(Failpoint.PERSON_FLIPPED)
    if cycle is not None:
        # The controller takes the same step when it sees the flip; whoever comes first does it.
        with contextlib.suppress(Conflict):
            await store.advance(cycle, CycleState.WATCHING, reason=reason, now=control.clock.now(), actor=actor)
    await control.on_change()
    return alias


async def rollback(control: Control, name: str, *, reason: str, actor: str) -> Alias:
    """Back to the previous adapter, or only out of an open cycle that has not promoted yet."""
    alias = await control.store.rollback(name, actor=actor, reason=reason, now=control.clock.now())
    await control.on_change()
    return alias


async def retrain(control: Control, name: str, *, reason: str, actor: str, merge: Merge | None = None) -> Cycle:
    """Open a cycle, whose candidate is merged where `merge` says so.

    Raises Conflict where one is open, or the adapters cannot become one; NotFound where one of them is not there.
    """
    await control.store.alias(name)
    if merge is not None:
        require_alike([await control.store.adapter(parent) for parent in merge.adapters], merge.method)
    return await control.store.open_cycle(
        secrets.token_hex(6),
        name,
        Trigger.PERSON,
        reason=reason,
        evidence={"person": {"by": actor}, **({"merge": merge.told()} if merge else {})},
        now=control.clock.now(),
        actor=actor,
    )


async def unlatch(control: Control, name: str, *, actor: str) -> Alias:
    """Forget the failures, so that drift may open cycles again."""
    now = control.clock.now()
    await control.store.alias(name)
    alias = await control.store.set_health(name, failures=0, latched=False, now=now)
    message = "Unlatched: cycles may open again."
    await control.store.add_event("alias.unlatched", actor=actor, message=message, now=now, alias=name)
    await control.on_change()
    return alias


async def approve(control: Control, name: str, *, actor: str) -> Cycle:
    """Say yes to the candidate in shadow; it is promoted once the evidence suffices."""
    await control.store.alias(name)
    cycle = await open_cycle_of(control, name)
    if control.settings.promotion.mode is PromotionMode.AUTO and not (cycle and cycle.evidence.get("doubts")):
        raise Conflict("promotion.mode is auto: candidates are promoted by themselves and none waits for a person.")
    if cycle is None or cycle.state not in _IN_PROOF:
        stands = f"its cycle is {cycle.state}" if cycle else "no cycle is open"
        raise Conflict(f"{name} has no candidate in shadow to approve ({stands}); try again when there is one.")
    now = control.clock.now()
    approved = {"by": actor, "at": now}
    cycle = await control.store.note_evidence(cycle, {"approved": approved}, now=now)
    await control.store.add_event(
        "cycle.approved",
        actor=actor,
        message=f"{cycle.candidate} may be promoted once its evidence suffices.",
        now=now,
        alias=name,
        cycle_id=cycle.id,
        evidence={"approved": approved},
    )
    return cycle


async def stage(control: Control, name: str, adapter: str | None, *, actor: str) -> Alias:
    """Have every engine load `adapter` as the alias's candidate, without shadow traffic, so that it can be promoted."""
    store, now = control.store, control.clock.now()
    alias = await store.alias(name)
    cycle = await open_cycle_of(control, name)
    if cycle is not None:
        raise Conflict(
            f"Cycle {cycle.id} of {name} is {cycle.state} and owns the candidate; wait, or roll it back first."
        )
    if adapter is not None:
        await _check_belongs(control, alias, adapter)
    alias = await store.set_candidate(name, adapter, mirror_ratio=0.0, now=now)
    message = f"{adapter} is to be loaded on every engine." if adapter else "The candidate was taken away."
    await store.add_event("alias.staged", actor=actor, message=message, now=now, alias=name)
    await control.on_change()
    return alias


async def _check_belongs(control: Control, alias: Alias, adapter: str) -> None:
    if adapter == alias.champion:
        raise Conflict(f"{alias.name} serves {adapter} already.")
    if adapter != BASE and (found := await control.store.adapter(adapter)).alias != alias.name:
        raise Conflict(f"{adapter} was made for {found.alias!r}; upload it for {alias.name!r} to serve it there.")


async def _check_promotable(control: Control, alias: Alias, adapter: str, *, force: bool) -> None:
    await _check_belongs(control, alias, adapter)
    if adapter != BASE and not force and (why := (await control.store.adapter(adapter)).locked) is not None:
        raise locked_out(alias.name, adapter, why)
    engines = (await control.store.routing()).engines
    if not any(engine.ready for engine in engines):
        raise Conflict("No engine is ready, so nothing can be promoted; see /ready and the engine's log.")
    if missing := missing_on(adapter, engines):
        raise Conflict(
            f"{adapter} is not loaded on {', '.join(missing)}. Load it first (console: Load; or POST /api/v1/aliases/"
            f'{alias.name}/candidate {{"adapter": "{adapter}"}}) and promote it once every engine holds it.',
            code="adapter_not_resident",
        )


async def _make_way(control: Control, cycle: Cycle, adapter: str, *, reason: str, actor: str) -> Cycle | None:
    """The open cycle at `promoting`, if it is about this adapter; None after ending any other."""
    store, now = control.store, control.clock.now()
    if cycle.candidate == adapter and cycle.state in _IN_PROOF:
        return await store.advance(cycle, CycleState.PROMOTING, reason=f"By hand: {reason}", now=now, actor=actor)
    if cycle.candidate == adapter and cycle.state is CycleState.PROMOTING:
        return cycle
    ended = f"{adapter} was promoted by hand: {reason}"
    await store.advance(cycle, _SUPERSEDED[cycle.state], reason=ended, now=now, actor=actor)
    return None
