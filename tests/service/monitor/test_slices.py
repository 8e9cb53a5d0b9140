"""Slices: each has its own reference, verdict and share of the declared rate; one that is too small says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.control.drift import newest_check, slice_checks
from service.core.records import Alias, DriftCheck, Labelled
from service.drivers.slices import slices_of
from service.drivers.store import SqlStore
from service.monitor.check import Checker
from service.monitor.declared import Declared
from service.monitor.rounds import Rounds
from service.monitor.views import DriftStore
from service.monitor.worker import Watch
from service.settings import AliasSettings, DriftSettings, Settings
from tests.service.monitor.traffic import ALIAS, later, traffic

WEB, APP, OLD = "channel=web", "channel=app", "channel=old"


class Clock:
    time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits")


def tagged(rows: list[Labelled], channel: str) -> list[Labelled]:
    return [replace(row, capture=replace(row.capture, tags={"channel": channel})) for row in rows]


async def send(store: SqlStore, rows: list[Labelled]) -> None:
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback is not None])


def settings_of(*slices: str) -> Settings:
    return Settings(drift=DriftSettings(reference_size=60, current_size=40, slices=slices))


def rounds_on(store: SqlStore, settings: Settings, clock: Clock, seen: list[DriftSettings] | None = None) -> Rounds:
    def watch_of(view: DriftStore, own: Settings) -> Watch:
        if seen is not None:
            seen.append(own.drift)
        return Watch(view, own, clock, Checker(own.drift, None, None))

    return Rounds(store, settings, watch_of, Declared(settings.drift, store, clock))


async def test_a_slice_drifts_while_another_does_not_and_a_small_one_says_so(store: SqlStore) -> None:
    calm = traffic(1, 200)
    await send(store, tagged(calm[::2], "web") + tagged(calm[1:195:2], "app") + tagged(calm[195::2], "old"))
    later_on = later(calm)
    # The two directions together are half new: the alias drifts too, but only one of its slices does.
    await send(store, tagged(traffic(2, 40, novel=0.9, start=later_on), "web"))
    await send(store, tagged(traffic(3, 40, start=later_on), "app"))
    clock, settings = Clock(), settings_of("channel")
    clock.time = later_on + 50
    alias = await store.alias(ALIAS)
    await rounds_on(store, settings, clock).check(alias)
    told = {check.slice: check for check in await slice_checks(store, settings, ALIAS)}
    assert {tag: check.verdict for tag, check in told.items()} == {WEB: "DRIFTED", APP: "STABLE", OLD: "INCONCLUSIVE"}
    assert told[OLD].reasons[0].startswith("The slice channel=old is too small to say. The reference is still filling")
    assert told[WEB].reasons[0].startswith("channel=web: ")
    assert told[WEB].retrain
    assert told[WEB].reference_size == 60
    references = {(await store.drift_references(ALIAS, slice=tag))[0].id for tag in (None, WEB, APP)}
    assert len(references) == 3
    assert {told[WEB].reference, told[APP].reference} < references


async def test_a_slice_that_costs_quality_asks_for_a_cycle(store: SqlStore) -> None:
    settings = settings_of(WEB)

    def check(name: str, at: float, **changes: object) -> DriftCheck:
        return replace(DriftCheck(name, ALIAS, at, "STABLE", [], [], 1, 1), **changes)  # type: ignore[arg-type]

    assert await newest_check(store, settings, ALIAS) is None
    await store.add_drift_check(check("own", 1.0))
    await store.add_drift_check(check("slice", 2.0, slice=WEB, verdict="DRIFTED", retrain=True))
    await store.add_drift_check(check("unlisted", 3.0, slice=APP, verdict="DRIFTED", retrain=True))
    newest = await newest_check(store, settings, ALIAS)
    assert newest is not None
    assert newest.id == "slice"
    await store.add_drift_check(check("own too", 4.0, verdict="DRIFTED", retrain=True))
    newest = await newest_check(store, settings, ALIAS)
    assert newest is not None
    assert newest.id == "own too"


async def test_the_declared_rate_is_shared(store: SqlStore) -> None:
    await send(store, tagged(traffic(1, 10), "web"))
    seen: list[DriftSettings] = []
    rounds = rounds_on(store, settings_of("channel", "tier=gold"), Clock(), seen)
    alias = await store.alias(ALIAS)
    await rounds.check(alias)
    assert [drift.false_alarm_every for drift in seen] == [30_000] * 3
    await rounds.check(alias)
    assert len(seen) == 3, "the watches stay"
    await send(store, tagged(traffic(2, 10, start=2000.0), "app"))
    await rounds.check(alias)
    assert [drift.false_alarm_every for drift in seen[3:]] == [40_000] * 4


async def test_a_rate_in_days_follows_the_traffic(store: SqlStore) -> None:
    rows = traffic(1, 120)
    await send(store, rows)
    clock, seen = Clock(), list[DriftSettings]()
    began, ended = rows[0].capture.at, rows[-1].capture.at
    clock.time = ended
    settings = Settings(drift=DriftSettings(reference_size=60, current_size=40, false_alarm_days=7.0))
    rounds, alias = rounds_on(store, settings, clock, seen), await store.alias(ALIAS)
    await rounds.check(alias)
    a_day = 120 * 86_400 / (ended - began)
    assert [drift.false_alarm_every for drift in seen] == [pytest.approx(7 * a_day, rel=0.05)]
    clock.time += 3_599.0
    await rounds.check(alias)
    assert len(seen) == 1, "an hour has not passed"
    clock.time = ended + 20 * (ended - began) + 3_600.0
    await rounds.check(alias)
    assert seen[1].false_alarm_every < seen[0].false_alarm_every / 10
    assert seen[1].false_alarm_every >= 100


async def test_listed_slices(store: SqlStore) -> None:
    await send(store, [*tagged(traffic(1, 3), "web"), *tagged(traffic(2, 3, start=9.0), "app")])
    assert await slices_of(store, ALIAS, ["tier=gold", "channel", "channel=web"]) == ["tier=gold", APP, WEB]
    assert await slices_of(store, ALIAS, []) == []
    settings = Settings(
        drift=DriftSettings(slices=("channel",)),
        aliases={"a": AliasSettings(slices=("tier=gold", "region")), "b": AliasSettings(slices=())},
    )
    assert [settings.slices(name) for name in ("a", "b", "c")] == [("tier=gold", "region"), (), ("channel",)]
    assert settings.slice_keys("a") == {"tier", "region"}
    for wrong in ("=web", " x", ""):
        with pytest.raises(ValueError, match="slices"):
            DriftSettings(slices=(wrong,))


async def test_a_faulty_slice_keeps_the_others_from_nothing(store: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    judged: list[int] = []

    class Faulty:
        def __init__(self, n: int) -> None:
            self._n = n

        async def check_alias(self, alias: Alias) -> DriftCheck | None:
            judged.append(self._n)
            raise RuntimeError("a fault of ours")

    made: list[Faulty] = []

    def watch_of(view: DriftStore, own: Settings) -> Faulty:
        made.append(Faulty(len(made)))
        return made[-1]

    settings = settings_of(WEB, APP)
    await Rounds(store, settings, watch_of, Declared(settings.drift, store, Clock())).check(await store.alias(ALIAS))
    assert judged == [0, 1, 2]
    assert "slice channel=app, could not be checked" in caplog.text
