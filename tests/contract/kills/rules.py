"""What must hold again, seconds after any kill: found wrong, it is told in a sentence."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import httpx

from service.core.cycle import TERMINAL
from service.core.errors import NotFound, TrimtabError
from service.core.names import BASE
from service.core.records import JobStatus
from service.drivers.scratch import ADAPTER_NOTE, abandoned
from tests.contract.kills.world import ALIAS, RECENT, World

_ENDS = tuple(f"cycle.{state}" for state in TERMINAL)
_ARMS = {f"{role}.arm{end}" for role in ("serve", "ship", "controller", "job") for end in ("", ".new")}
_KNOWN = _ARMS | {
    "trimtab.yaml", "weights", "trimtab.db", "trimtab.db-shm", "trimtab.db-wal", "job-python", "adapters", "spool",
    "scratch", "logs", "cache", "engine.log", "serve.log", "controller.log", "job.log", "task.json", "task.json.new",
}  # fmt: skip


async def faults(world: World, since: float) -> list[str]:
    """Everything that does not hold now; `since` (Unix seconds) is when somebody died."""
    try:
        return [*await _served(world, since), *await ended_once(world, RECENT), *world.orphans(), *await _files(world)]
    except (TrimtabError, httpx.HTTPError, FileNotFoundError) as error:
        return [f"cannot look: {type(error).__name__} {error}"]


async def _served(world: World, since: float) -> list[str]:
    """The store names one champion, engines that are ready hold its digest and all others', gateways serve it."""
    table = await world.store.routing()
    alias = table.aliases.get(ALIAS)
    if alias is None:
        return ["the alias is not there"]
    found = []
    if not any(engine.ready for engine in table.engines):
        found.append("no engine is ready")
    held = (await world.http.get(f"{world.engine_url}/stats")).json()["digests"]
    for engine in table.engines:
        if engine.seen_at < since:
            found.append("no controller has looked after the engine")
        if engine.ready and not {alias.champion} - {BASE} <= engine.resident:
            found.append(f"{engine.url} does not hold the champion {alias.champion}")
        for name in engine.resident if engine.ready else ():
            digest = await world.digest(name)
            if held.get(name) != digest:
                found.append(f"{engine.url} holds {held.get(name)} as {name}, whose digest is {digest}")
    body = {"model": ALIAS, "messages": [{"role": "user", "content": "Who serves?"}]}
    reply = await world.http.post(f"{world.url}/v1/chat/completions", json=body)
    served = reply.headers.get("x-trimtab-adapter")
    if served != alias.champion and (await world.store.alias(ALIAS)).champion == alias.champion:
        found.append(f"the gateway answers {reply.status_code} by {served}; the champion is {alias.champion}")
    return found


async def ended_once(world: World, newest: int) -> list[str]:
    """Of the newest cycles those that have no end, or several."""
    cycles = await world.store.cycles(limit=newest)
    ends = await world.store.events(kinds=_ENDS, limit=10 * newest)
    counts = {cycle.id: 0 for cycle in cycles}
    for event in ends:
        counts[str(event.cycle_id)] = counts.get(str(event.cycle_id), 0) + 1
    found = [
        f"cycle {cycle.id} is {cycle.state} with {counts[cycle.id]} ends"
        for cycle in cycles
        if counts[cycle.id] != (not cycle.is_open) and (await world.store.cycle(cycle.id)).state is cycle.state
    ]
    if sum(cycle.is_open for cycle in cycles) > 1:
        found.append("two cycles are open")
    return found


async def _files(world: World) -> list[str]:
    found = [f"unknown file {path.name}" for path in world.state.iterdir() if path.name not in _KNOWN]
    adapters = world.state / "adapters"
    found += [f"draft {path.name}" for path in abandoned(adapters, ".draft-")]
    found += [f"spool {path.name}" for path in sorted((world.state / "spool").iterdir()) if _is_dead(path)]
    busy = any(job.status in {JobStatus.QUEUED, JobStatus.RUNNING} for job in await world.store.jobs(ALIAS))
    for path in abandoned(world.state / "scratch", ""):
        if not busy or not (path / ADAPTER_NOTE).exists():  # else the job's next attempt may publish the same
            found.append(f"folder {path.name}")
    if not busy:
        for path in sorted(adapters.glob(f"{ALIAS}@*")):
            try:
                await world.digest(path.name)
            except NotFound:
                found.append(f"the files of {path.name}, which nobody registered")
    return found


def _is_dead(spool: Path) -> bool:
    """Whether the spool's folder has no living owner."""
    if not spool.is_dir():
        return False
    try:
        handle = os.open(spool / "lock", os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
