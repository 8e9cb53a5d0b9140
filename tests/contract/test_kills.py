"""Kill -9 at every step: of the controller, its jobs, the gateway, the shipper beside it, and of engine and database
while others work.

The processes are real and so are the stores (SQLite, PostgreSQL). Stand-ins: the engine, which reads and holds adapters
as vLLM does but has no model; a job's training, which is two files by hand (tests/contract/kills/light_job.py); and all
but jobs are forked from a process that has imported their code, which spares each the second that importing takes.

Ten seconds after each kill, at the latest (twenty in the short form): the alias has one champion and gateways serve it,
a controller looks after the engines, they hold the digests that the registry names, each cycle that has ended has one
end, and no process and no file is left of who died.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.drivers.failpoints import Failpoint
from tests.contract.conftest import copied, emptied
from tests.contract.kills.killer import DATABASE, ENGINE, Database, Kill, Tally, judged, kill
from tests.contract.kills.rules import ended_once
from tests.contract.kills.world import World, processes

F = Failpoint


def _named(*rooms: str) -> list[Failpoint]:
    return [point for point in F if point.value.partition(".")[0] in rooms]


CONTROLLER = [Kill(point, "controller") for point in [*_named("controller"), F.FILES_HIDDEN]]
JOB = [Kill(point, "job") for point in [*_named("job"), F.DRAFT_WRITTEN, F.DRAFT_PLACED]]
SERVE = [Kill(point, "serve") for point in _named("gateway", "spool", "person")]
SHIP = [Kill(point, "ship") for point in _named("ship", "store")]
LATEST = {"job": 5}
"""Passages: on a fast machine a job writes hardly more often."""

KILLS = int(os.environ.get("TRIMTAB_KILLS", "1040"))
STARTS_S = 10.0
WRITES = [F.STORE_BEGUN, F.STORE_WRITTEN, F.STORE_COMMITTED]


def test_every_failpoint_is_killed_at() -> None:
    assert {one.point for one in (*CONTROLLER, *JOB, *SERVE, *SHIP)} == set(F)


def database(server: Any) -> Database:
    """The PostgreSQL of the tests, which whoever is killed at a failpoint takes along."""

    def restart() -> None:
        while Path(f"/proc/{server.get_pid()}").exists() or any(
            str(server.pgdata) in line for _, _, line in processes()
        ):
            time.sleep(0.02)
        until = time.monotonic() + STARTS_S
        while True:
            try:
                server.ensure_postgres_running()
                return
            except subprocess.CalledProcessError:  # while backends of the one that was killed still hold its memory
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    return Database(server.get_pid, restart)


async def played(world: World, kills: Sequence[Kill], tally: Tally, server: Database | None = None) -> None:
    for one in kills:
        before = len(tally.violations)
        await kill(world, one, tally, server)
        if len(tally.violations) > before:
            print(tally.violations[-1], flush=True)


async def settled(world: World) -> World:
    assert not await judged(world, time.time())
    return world


async def test_nothing_is_wrong_after_a_kill_at_any_step(
    migrated_sqlite: Path, migrated_postgres: str, postgres_server: Any, tmp_path: Path
) -> None:
    """Each failpoint once: the controller's over SQLite, all others over PostgreSQL."""
    one, two, tally = tmp_path / "one", tmp_path / "two", Tally()
    one.mkdir()
    two.mkdir()
    server = database(postgres_server)
    others = [Kill(F.FLIPPED, "controller", ENGINE), Kill(F.STORE_WRITTEN, "controller", DATABASE)]
    async with (
        World(one, copied(migrated_sqlite, one / "trimtab.db")).running() as lite,
        World(two, emptied(migrated_postgres)).running() as full,
    ):
        await asyncio.gather(settled(lite), settled(full))
        await asyncio.gather(
            played(lite, CONTROLLER, tally), played(full, [*JOB, *SERVE, *SHIP, *others], tally, server)
        )
        for world in (lite, full):
            assert (await world.store.verify_audit()).fault is None
    print(f"\n{tally}")
    assert not tally.violations
    assert not tally.missed


@pytest.mark.soak
async def test_a_thousand_kills(
    migrated_sqlite: Path, migrated_postgres: str, postgres_server: Any, tmp_path: Path, soaking: bool
) -> None:
    """Every step again and again, at its first passage or a later one; one kill in four hits engine or database."""
    if not soaking:
        pytest.skip("half an hour: make soak")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    chance = random.Random(os.environ.get("TRIMTAB_SEED", "0"))
    tallies = {"SQLite": Tally(), "PostgreSQL": Tally()}

    async def go_on(name: str, world: World, victims: Sequence[str], server: Database | None) -> None:
        await settled(world)
        while tallies[name].kills.total() < KILLS / 2:
            kills = _shuffled(chance, victims)
            for at in range(0, len(kills), 20):
                await played(world, kills[at : at + 20], tallies[name], server)
                print(f"{name}: {tallies[name]}", flush=True)
        assert not await ended_once(world, 10_000)
        assert (await world.store.verify_audit()).fault is None

    async with (
        World(one, copied(migrated_sqlite, one / "trimtab.db")).running() as lite,
        World(two, emptied(migrated_postgres)).running() as full,
    ):
        await asyncio.gather(
            go_on("SQLite", lite, [ENGINE], None),
            go_on("PostgreSQL", full, [ENGINE, DATABASE], database(postgres_server)),
        )
    for tally in tallies.values():
        assert not tally.violations
        assert len(tally.missed) <= 0.02 * tally.kills.total(), tally.missed


def _shuffled(chance: random.Random, victims: Sequence[str]) -> list[Kill]:
    """All kills in the order in which a cycle comes by them, and between them later passages and other victims."""
    found = [*CONTROLLER, *JOB, *SERVE, *SHIP]
    for role in ("controller", "controller", "job", "ship", "ship"):
        for point in WRITES * 3:
            found.insert(chance.randrange(len(found)), Kill(point, role, nth=chance.randint(1, LATEST.get(role, 9))))
    for victim in victims:
        for one in chance.sample([*CONTROLLER, *JOB], 8):
            found.insert(chance.randrange(len(found)), Kill(one.point, one.role, victim))
    return found
