"""The worker on a real store: what it records, what it skips, and that nothing ends it but its stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.core.errors import Unavailable
from service.core.records import Alias, DriftCheck, Labelled
from service.drivers.store import SqlStore
from service.monitor.check import Checker
from service.monitor.report import Reports
from service.monitor.worker import Watch, run_monitor
from service.monitor.workspace import Alarms
from service.settings import DriftSettings, Settings
from tests.service.monitor.traffic import ALIAS, later, traffic

SMALL = DriftSettings(reference_size=60, current_size=40, interval_s=0.01)


class HandClock:
    """Hours pass at once."""

    def __init__(self) -> None:
        self.time = 10_000.0
        self.paused = asyncio.Event()

    def now(self) -> float:
        self.time += 1.0
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.paused.set()
        await asyncio.sleep(0)


def settings_in(folder: Path, drift: DriftSettings = SMALL) -> Settings:
    return Settings(model="not/here", state_dir=folder, drift=drift)


def watch_on(store: SqlStore, folder: Path) -> Watch:
    settings = settings_in(folder)
    return Watch(store, settings, HandClock(), Checker(SMALL, Reports(folder / "reports", keep=5), None))


async def send(store: SqlStore, rows: Sequence[Labelled]) -> None:
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback is not None])


async def test_it_records_the_windows_filling_then_calm_then_drift_with_its_report(
    store: SqlStore, tmp_path: Path
) -> None:
    watch = watch_on(store, tmp_path)
    alias = await store.alias(ALIAS)
    assert await watch.check_alias(alias) is None
    reference = traffic(1, 60)
    calm = traffic(2, 40, start=later(reference))
    wild = traffic(3, 40, novel=0.7, start=later(calm))
    verdicts = []
    for rows in (reference[:30], reference[30:], calm, wild):
        await send(store, rows)
        check = await watch.check_alias(alias)
        assert check is not None
        verdicts.append((check.verdict, check.reference_size, check.current_size))
    assert verdicts == [("INCONCLUSIVE", 30, 0), ("INCONCLUSIVE", 60, 0), ("STABLE", 60, 40), ("DRIFTED", 60, 40)]
    kept = await store.drift_checks(ALIAS)
    assert [check.verdict for check in kept] == ["DRIFTED", "STABLE", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert kept[0].retrain
    assert (tmp_path / "reports" / str(kept[0].report)).is_file()
    assert set(kept[0].scores[0]) == {"detector", "kind", "score", "threshold", "ratio", "alarm", "detail"}


async def test_it_waits_for_a_tenth_of_a_window_and_late_labels_count(store: SqlStore, tmp_path: Path) -> None:
    watch = watch_on(store, tmp_path)
    alias = await store.alias(ALIAS)
    reference = traffic(1, 60)
    calm = traffic(2, 40, labelled=0.0, start=later(reference))
    await send(store, [*reference, *calm])
    assert await watch.check_alias(alias) is not None
    assert await watch.check_alias(alias) is None
    more = traffic(4, 4, labelled=0.0, start=later(calm))
    await send(store, more[:3])
    assert await watch.check_alias(alias) is None
    await send(store, more[3:])
    assert await watch.check_alias(alias) is not None
    labels = [row.feedback for row in traffic(2, 40, start=later(reference)) if row.feedback is not None]
    await store.add_feedback(labels)
    check = await watch.check_alias(alias)
    assert check is not None
    assert check.quality_current is not None


async def test_a_new_reference_starts_anew(store: SqlStore, tmp_path: Path) -> None:
    watch = watch_on(store, tmp_path)
    alias = await store.alias(ALIAS)
    reference = traffic(1, 60)
    await send(store, [*reference, *traffic(2, 40, start=later(reference))])
    assert await watch.check_alias(alias) is not None
    moved = Alias(ALIAS, reference_since=later(reference))
    check = await watch.check_alias(moved)
    assert check is None or check.verdict == "INCONCLUSIVE"
    await send(store, traffic(5, 5, start=later(reference) + 100))
    check = await watch.check_alias(moved)
    assert check is not None
    assert (check.verdict, check.reference_size) == ("INCONCLUSIVE", 45)


class Faulty:
    """A store that is away at first, then fails for one alias, then works."""

    def __init__(self, store: SqlStore, stop: asyncio.Event) -> None:
        self._store = store
        self._stop = stop
        self.rounds = 0
        self.troubled = asyncio.Event()

    async def aliases(self) -> Sequence[Alias]:
        self.rounds += 1
        if self.rounds == 4:
            self.troubled.set()
        if self.rounds == 1:
            raise Unavailable("The store cannot be reached.")
        return [Alias("broken"), *await self._store.aliases()]

    async def window(self, alias: str, **chosen: float) -> Sequence[Labelled]:
        if alias == "broken":
            raise RuntimeError("a fault of ours") if self.rounds == 2 else Unavailable("It went away in between.")
        return await self._store.window(alias, **chosen)  # type: ignore[arg-type]

    async def drift_checks(self, alias: str, **chosen: object) -> Sequence[DriftCheck]:
        return await self._store.drift_checks(alias, **chosen)  # type: ignore[arg-type]

    async def add_drift_check(self, check: object) -> None:
        await self._store.add_drift_check(check)  # type: ignore[arg-type]
        self._stop.set()


async def test_neither_a_store_that_is_away_nor_a_faulty_alias_ends_it(
    store: SqlStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    faulty = Faulty(store, stop)
    clock = HandClock()
    running = asyncio.create_task(run_monitor(faulty, settings_in(tmp_path), clock, stop))  # type: ignore[arg-type]
    await asyncio.wait_for(faulty.troubled.wait(), 60)
    await send(store, traffic(1, 20))
    await asyncio.wait_for(running, 60)
    assert [check.verdict for check in await store.drift_checks(ALIAS)] == ["INCONCLUSIVE"]
    assert "The store is away" in caplog.text
    assert "Alias 'broken' could not be checked" in caplog.text
    assert "Alias 'broken' was not checked this time" in caplog.text


async def test_stop_ends_a_pause_at_once(store: SqlStore, tmp_path: Path) -> None:
    class Endless(HandClock):
        async def sleep(self, seconds: float) -> None:
            self.paused.set()
            await asyncio.Event().wait()

    stop, clock = asyncio.Event(), Endless()
    running = asyncio.create_task(run_monitor(store, settings_in(tmp_path), clock, stop))
    await asyncio.wait_for(clock.paused.wait(), 60)
    stop.set()
    await asyncio.wait_for(running, 60)


async def test_switched_off_it_only_waits(store: SqlStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = asyncio.Event()
    await send(store, traffic(1, 20))
    off = settings_in(tmp_path, DriftSettings(enabled=False))
    with caplog.at_level(logging.INFO):
        running = asyncio.create_task(run_monitor(store, off, HandClock(), stop))
        stop.set()
        await asyncio.wait_for(running, 60)
    assert await store.drift_checks(ALIAS) == []
    assert "Drift detection is off" in caplog.text


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from service.drivers.store import open_store
from service.monitor import report, workspace
from service.monitor.check import Checker
from service.monitor.report import Reports
from service.monitor.worker import Watch
from service.monitor.workspace import Alarms
from tests.service.monitor.test_worker import SMALL, HandClock, settings_in
from tests.service.monitor.traffic import ALIAS

def killed(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(folder):
    store = await open_store(f"sqlite+aiosqlite:///{folder / 'trimtab.db'}")
    reports = Reports(folder / "reports", keep=5, alarms=Alarms(folder / "evidently", keep=5))
    watch = Watch(store, settings_in(folder), HandClock(), Checker(SMALL, reports, None))
    report.os.replace = killed
    await watch.check_alias(await store.alias(ALIAS))

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_worker_killed_in_mid_report_leaves_nothing_half_done(store: SqlStore, tmp_path: Path) -> None:
    reference = traffic(1, 60)
    await send(store, [*reference, *traffic(3, 40, novel=0.7, start=later(reference))])
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _KILLED, str(tmp_path)], capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert await store.drift_checks(ALIAS) == []
    assert [path.name.startswith(".draft-") for path in (tmp_path / "reports").iterdir()] == [True]
    reports = Reports(tmp_path / "reports", keep=5, alarms=Alarms(tmp_path / "evidently", keep=5))
    watch = Watch(store, settings_in(tmp_path), HandClock(), Checker(SMALL, reports, None))
    check = await watch.check_alias(await store.alias(ALIAS))
    assert check is not None
    assert await store.drift_checks(ALIAS) == [check]
    assert check.verdict == "DRIFTED"
    assert [path.name for path in (tmp_path / "reports").iterdir()] == [check.report]


async def test_a_worker_that_starts_in_a_drift_knows_since_when_it_lasts(store: SqlStore, tmp_path: Path) -> None:
    reference = traffic(1, 60)
    first = traffic(3, 40, novel=0.7, start=later(reference))
    await send(store, [*reference, *first])
    alias = await store.alias(ALIAS)
    began = await watch_on(store, tmp_path).check_alias(alias)
    assert began is not None
    assert began.since is not None
    await send(store, traffic(4, 40, novel=0.7, start=later(first)))
    check = await watch_on(store, tmp_path).check_alias(alias)
    assert check is not None
    assert (check.verdict, check.since) == ("DRIFTED", began.since)


async def test_an_alarm_survives_the_worker_and_counts_no_request_twice(store: SqlStore, tmp_path: Path) -> None:
    alias = await store.alias(ALIAS)
    reference = traffic(1, 60)
    calm = traffic(2, 60, start=later(reference))
    await send(store, [*reference, *calm, *traffic(3, 25, novel=1.0, start=later(calm))])
    before, after = watch_on(store, tmp_path), watch_on(store, tmp_path)
    first = await before.check_alias(alias)
    assert await before.check_alias(alias) is None
    again = await after.check_alias(alias)
    assert first is not None
    assert again is not None
    assert (first.verdict, again.verdict) == ("DRIFTED", "DRIFTED")
    found = [[e for e in check.scores if e["detector"] in ("evidence", "label_evidence")] for check in (first, again)]
    assert found[0] == found[1]


async def test_an_alarm_is_told_before_a_tenth_of_the_window_is_new(store: SqlStore, tmp_path: Path) -> None:
    drift = DriftSettings(reference_size=200, current_size=400)
    settings = settings_in(tmp_path, drift)
    watch = Watch(store, settings, HandClock(), Checker(drift, Reports(tmp_path / "reports", keep=5), None))
    alias = await store.alias(ALIAS)
    reference = traffic(1, 200)
    calm = traffic(2, 400, start=later(reference))
    await send(store, [*reference, *calm])
    check = await watch.check_alias(alias)
    assert check is not None
    assert check.verdict == "STABLE"
    await send(store, traffic(3, 30, novel=1.0, start=later(calm)))
    check = await watch.check_alias(alias)
    assert check is not None
    assert check.verdict == "DRIFTED"
