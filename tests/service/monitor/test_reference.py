"""References: versions with an id; pinned ones stay, rolling ones move on and never take in what they should detect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.core.errors import BadRequest, Conflict
from service.core.records import DriftCheck, DriftReference, Labelled
from service.core.window import Sizes
from service.drivers.store import SqlStore
from service.monitor.check import Checker
from service.monitor.reference import References, pin_named, versions_view
from service.monitor.worker import Watch
from service.settings import DriftSettings, ReferenceMode, Settings
from tests.service.monitor.traffic import ALIAS, later, promote, traffic

SMALL = DriftSettings(reference_size=60, current_size=40)


class Desk:
    """A worker on the store, whose clock is the last request's."""

    def __init__(self, store: SqlStore, mode: ReferenceMode) -> None:
        self.store = store
        self.settings = Settings(model="none", drift=SMALL.model_copy(update={"reference": mode}))
        self.time = 0.0
        self.sent: list[Labelled] = []
        self.watch = Watch(store, self.settings, self, Checker(self.settings.drift, None, None))

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits")

    async def play(self, seed: int, n: int, novel: float = 0.0) -> list[DriftCheck]:
        """Send `n` requests, four at a time, and judge after each."""
        rows = traffic(seed, n, novel=novel, start=later(self.sent) if self.sent else 1000.0)
        self.sent += rows
        checks = []
        for start in range(0, n, 4):
            some = rows[start : start + 4]
            await send(self.store, some)
            self.time = some[-1].capture.at + 0.5
            check = await self.watch.check_alias(await self.store.alias(ALIAS))
            checks += [check] if check is not None else []
        return checks

    def held(self, version: DriftReference) -> list[Labelled]:
        return [row for row in self.sent if version.since < row.capture.at <= version.until]


async def send(store: SqlStore, rows: Sequence[Labelled]) -> None:
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback is not None])


async def test_each_check_names_its_reference_which_begins_anew_at_a_promotion(store: SqlStore) -> None:
    desk = Desk(store, ReferenceMode.PROMOTION)
    first = {check.reference for check in await desk.play(1, 120)}
    await promote(store, desk.time)
    second = {check.reference for check in await desk.play(2, 120)}
    assert len(first - {None}) == len(second - {None}) == 1
    assert first != second
    versions = await store.drift_references(ALIAS)
    assert {one.id for one in versions} == (first | second) - {None}
    assert [one.size for one in versions] == [60, 60]
    assert [row.capture.at for row in desk.held(versions[1])] == [row.capture.at for row in desk.sent[:60]]


async def test_a_pinned_reference_outlives_promotions_and_the_window_is_the_new_champions(store: SqlStore) -> None:
    desk = Desk(store, ReferenceMode.PINNED)
    (first,) = {check.reference for check in await desk.play(1, 120)} - {None}
    await promote(store, desk.time)
    early = await desk.play(2, 20)
    assert {(check.verdict, check.reference, check.current_size <= 20) for check in early} == {
        ("INCONCLUSIVE", first, True)
    }
    full = await desk.play(3, 40)
    assert {check.reference for check in full} == {first}
    assert full[-1].verdict == "STABLE"


async def test_a_person_pins_a_moment_or_an_earlier_version(store: SqlStore) -> None:
    desk = Desk(store, ReferenceMode.PINNED)
    await desk.play(1, 200)
    alias = await store.alias(ALIAS)
    (first,) = await store.drift_references(ALIAS)
    moved = await pin_named(store, desk.settings, alias, "1970-01-01T00:18:00+00:00", now=desk.time)
    assert (moved.since, moved.until, moved.made_by) == (1080.0, 1140.0, "person")
    (check, *_) = await desk.play(2, 40)
    assert check.reference == moved.id
    back = await pin_named(store, desk.settings, alias, first.id, now=desk.time + 1)
    assert back == replace(first, made_at=desk.time + 1, made_by="person")
    shown = (await versions_view(store, desk.settings, alias))["references"]
    assert [(one["id"], one["in_force"]) for one in shown] == [(first.id, True), (moved.id, False)]
    with pytest.raises(BadRequest, match="Only 10 requests came after"):
        await pin_named(store, desk.settings, alias, "1970-01-01T00:20:30+00:00", now=desk.time)
    with pytest.raises(BadRequest, match="neither a reference of 'support'"):
        await pin_named(store, desk.settings, alias, "yesterday", now=desk.time)
    unpinned = Settings(drift=SMALL)
    with pytest.raises(Conflict, match="set it to pinned"):
        await pin_named(store, unpinned, alias, first.id, now=desk.time)


async def test_a_rolling_reference_moves_on_and_never_takes_in_an_alarmed_period(store: SqlStore) -> None:
    desk = Desk(store, ReferenceMode.ROLLING)
    calm = await desk.play(1, 320)
    assert {check.verdict for check in calm} == {"INCONCLUSIVE", "STABLE"}
    before = await store.drift_references(ALIAS)
    assert len(before) >= 2, "it rolled while traffic was calm"
    drifted = await desk.play(2, 200, novel=0.5)
    assert drifted[-1].verdict == "DRIFTED"
    assert {check.reference for check in drifted if check.verdict == "DRIFTED"} == {before[0].id}
    await desk.play(3, 160)
    versions = await store.drift_references(ALIAS)
    travel = {row.capture.request_id for row in desk.sent[320:520]}
    for version in versions:
        held = desk.held(version)
        assert len(held) == version.size == 60
        assert not travel & {row.capture.request_id for row in held}


async def test_after_an_alarm_a_rolling_reference_leaves_a_window_out(store: SqlStore) -> None:
    rows = traffic(1, 400)
    await send(store, rows)
    alias, references = await store.alias(ALIAS), References(store, ReferenceMode.ROLLING, Sizes(60, 40))

    def judged(verdict: str, i: int) -> DriftCheck:
        return DriftCheck(f"c{i}", ALIAS, rows[i].capture.at + 0.5, verdict, [], [], 60, 40)

    await store.add_drift_check(judged("DRIFTED", 99))
    now = rows[-1].capture.at
    assert await references.roll(alias, judged("DRIFTED", 150), now=now) is None
    assert await references.roll(alias, judged("INCONCLUSIVE", 150), now=now) is None
    version = await references.roll(alias, judged("STABLE", 150), now=now)
    assert version is not None
    assert (version.since, version.until) == (rows[139].capture.at, rows[199].capture.at)
    again = await references.roll(alias, judged("STABLE", 300), now=now + 1)
    assert again is not None
    assert (again.since, again.until) == (rows[199].capture.at, rows[259].capture.at)
    await references.roll(alias, judged("STABLE", 301), now=now + 2)
    assert await references.roll(alias, judged("STABLE", 302), now=now + 3) is None, "two windows are not judged yet"
    assert (await store.drift_references(ALIAS))[0].until == rows[319].capture.at
    kept = References(store, ReferenceMode.PINNED, Sizes(60, 40))
    assert await kept.roll(alias, judged("STABLE", 300), now=now) is None


async def test_what_a_drift_turns_out_to_have_begun_in_is_given_up(store: SqlStore) -> None:
    desk = Desk(store, ReferenceMode.ROLLING)
    await desk.play(1, 320)
    newest, older = (await store.drift_references(ALIAS))[:2]
    references = References(store, ReferenceMode.ROLLING, Sizes(60, 40))
    alias = await store.alias(ALIAS)
    assert await references.since(alias) == newest.since
    late = DriftCheck("late", ALIAS, desk.time + 1, "DRIFTED", [], [], 60, 40, since=newest.since + 1)
    await store.add_drift_check(late)
    assert await references.since(alias) == older.since
    await promote(store, desk.time + 2)
    promoted = await store.alias(ALIAS)
    assert await references.since(promoted) == promoted.reference_since
