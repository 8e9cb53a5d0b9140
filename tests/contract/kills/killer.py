"""Kills, one after another: arms a failpoint, waits for the death, and then until every rule holds again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

from service.core.errors import TrimtabError
from service.core.names import BASE
from service.drivers.failpoints import Failpoint
from tests.contract.kills.light_job import Outcome
from tests.contract.kills.rules import faults
from tests.contract.kills.world import ALIAS, World

RECOVERS_S = 10.0 if os.environ.get("TRIMTAB_SOAK") else 20.0
"""The short form runs beside whatever else a machine does; the long one holds to what is promised."""

REACHED_S = 60.0

SELF, ENGINE, DATABASE = "self", "engine", "database"

_OUTCOMES = {
    Failpoint.ROLLED_BACK: Outcome.TWO_FACED,
    Failpoint.CANDIDATE_CLEARED: Outcome.WORSE,
    Failpoint.LATCHED: Outcome.FORGETS,
    Failpoint.JOB_FAILING: Outcome.BREAKS,
}
"""How a cycle must go to come by."""


@dataclass(frozen=True)
class Kill:
    """Whoever passes `point` for the `nth` time while it works as `role` kills `victim`."""

    point: Failpoint
    role: str
    victim: str = SELF
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.role} kills {self.victim} at {self.point}, passage {self.nth}"


@dataclass(frozen=True)
class Database:
    """A server that can be killed by its id; `restart` returns once it can be used again."""

    pid: Callable[[], int]
    restart: Callable[[], None]


@dataclass
class Tally:
    """What came of the kills; `recovered_s` holds the seconds from each death until all rules held."""

    kills: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "none")

    def __str__(self) -> str:
        times = sorted(self.recovered_s) or [0.0]
        middle, late = times[len(times) // 2], times[int(0.99 * (len(times) - 1))]
        whom = ", ".join(f"{victim} {n}" for victim, n in self.kills.most_common())
        return (
            f"{self.kills.total()} kills ({whom}), {len(self.violations)} violations, {len(self.missed)} not reached; "
            f"sound again after {middle:.2f} s (median), {late:.2f} s (99%), {times[-1]:.2f} s (longest: "
            f"{self.slowest[1]})"
        )


_numbers = count()


async def kill(world: World, one: Kill, tally: Tally, database: Database | None = None) -> None:
    """Carry out one kill and judge what follows."""
    mark = world.state.parent / f"mark-{next(_numbers)}"
    victim = world.roles["engine"].pid if one.victim == ENGINE else None
    if one.victim == DATABASE and database is not None:
        victim = database.pid()
    if one.role in {"controller", "job"}:
        world.will(_OUTCOMES.get(one.point, Outcome.GOOD))
    world.arm(one.role, f"{one.point}:{one.nth}:{mark}" + (f":{victim}" if victim else ""))
    nudging = asyncio.create_task(_nudge(world, one))
    try:
        reached = await _exists(mark.exists, REACHED_S)
    finally:
        nudging.cancel()
        world.arm(one.role, "")
        with contextlib.suppress(asyncio.CancelledError):
            await nudging
    if not reached:
        tally.missed.append(str(one))
        return
    tally.kills[one.role if one.victim == SELF else one.victim] += 1
    if one.victim == DATABASE and database is not None:
        await asyncio.to_thread(database.restart)
    died = time.time()
    found = await judged(world, died)
    if found:
        tally.violations.append(f"{one}: {'; '.join(found)}")
    else:
        tally.recovered_s.append(time.time() - died)
        tally.slowest = max(tally.slowest, (tally.recovered_s[-1], str(one)))


async def judged(world: World, since: float) -> Sequence[str]:
    """What did not hold even `RECOVERS_S` after `since` (Unix seconds); waits no longer than it must."""
    seen: dict[str, float] = {}
    while found := await faults(world, since):
        seen |= dict.fromkeys(found, time.time() - since)
        if time.time() - since > RECOVERS_S:
            break
        await asyncio.sleep(0.05)
    took_s = time.time() - since
    if took_s <= RECOVERS_S:
        return ()
    return [f"{fault} (seen last after {at:.1f} s of {took_s:.1f})" for fault, at in seen.items()]


async def _nudge(world: World, one: Kill) -> None:
    """What has to be done for the point to be passed at all."""
    while one.point in _NUDGES:
        with contextlib.suppress(httpx.HTTPError, TrimtabError):
            await _NUDGES[one.point](world)
        await asyncio.sleep(0.5)


async def _restart_gateway(world: World) -> None:
    """Kill it once it has something in its spool; one that is just starting has no shipper yet that would come by."""
    started = world.roles["serve"].starts
    await _exists(lambda: _has_spooled(world), REACHED_S)
    world.kill("serve")
    await _exists(lambda: world.roles["serve"].starts > started, REACHED_S)


def _has_spooled(world: World) -> bool:
    with contextlib.suppress(FileNotFoundError):  # shippers remove folders as we look
        return any((world.state / "spool").glob(f"{world.roles['serve'].pid}-*/0*"))
    return False


async def _promote_by_hand(world: World) -> None:
    alias = await world.store.alias(ALIAS)
    body = {"adapter": alias.candidate or alias.previous or BASE, "reason": "a person wants it"}
    await world.call("POST", f"/aliases/{ALIAS}/promote", body)


async def _lose_a_job(world: World) -> None:
    mark = world.state.parent / f"mark-{next(_numbers)}"
    world.arm("job", f"{Failpoint.JOB_READ}:1:{mark}")
    try:
        await _exists(mark.exists, REACHED_S)
    finally:
        world.arm("job", "")


async def _lose_an_adapter(world: World) -> None:
    """A job stores its adapter and dies; its cycle is ended by hand before another attempt can register it."""
    mark = world.state.parent / f"mark-{next(_numbers)}"
    world.arm("job", f"{Failpoint.DRAFT_PLACED}:1:{mark}")
    try:
        if await _exists(mark.exists, REACHED_S):
            await world.call("POST", f"/aliases/{ALIAS}/rollback", {"reason": "it shall not go on"})
            await asyncio.sleep(3.0)  # the controller clears up every two
    finally:
        world.arm("job", "")


_NUDGES: dict[Failpoint, Callable[[World], Awaitable[None]]] = {
    Failpoint.SPOOL_LOCKED: _restart_gateway,
    Failpoint.TAKEN_OVER: _restart_gateway,
    Failpoint.PERSON_MADE_WAY: _promote_by_hand,
    Failpoint.PERSON_FLIPPED: _promote_by_hand,
    Failpoint.RELAUNCH_TOLD: _lose_a_job,
    Failpoint.FILES_HIDDEN: _lose_an_adapter,
}


async def _exists(condition: Callable[[], bool], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True
