"""Replay: the worker's own checks over the past, as it was then; nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from service.core.errors import NotFound
from service.core.records import Labelled
from service.drivers.store import SqlStore
from service.monitor import replay as replaying
from service.monitor.check import Checker
from service.monitor.embedders import Embedder
from service.monitor.replay import Replayed, replay, tell
from service.monitor.views import Recorded
from service.monitor.worker import Watch
from service.settings import DriftSettings, Settings
from tests.service.monitor.traffic import ALIAS, later, promote, traffic

SMALL = DriftSettings(reference_size=60, current_size=40, interval_s=0.5)


async def send(store: SqlStore, rows: Sequence[Labelled]) -> None:
    await store.add_captures([row.capture for row in rows])
    await store.add_feedback([row.feedback for row in rows if row.feedback is not None])


def a_day() -> list[Labelled]:
    """Calm, then travel for a while, then calm again; one request a second."""
    rows = traffic(1, 140)
    rows += traffic(2, 60, novel=0.7, start=later(rows))
    return [*rows, *traffic(3, 100, start=later(rows))]


def settings_in(folder: Path, **drift: object) -> Settings:
    return Settings(model="not/here", state_dir=folder, drift=SMALL.model_copy(update=drift))


async def test_it_tells_when_it_would_have_fired_and_why(
    store: SqlStore, tmp_path: Path, embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    await send(store, a_day())
    heard: list[float] = []
    settings = settings_in(tmp_path)
    found = await replay(store, settings, embedder, ALIAS, progress=lambda _, at: heard.append(at))
    assert found.requests == 300
    assert [1140 < alarm.at < 1200 for alarm in found.alarms] == [True]
    alarm = found.alarms[0]
    assert alarm.retrain_at is not None
    assert alarm.since == pytest.approx(1140.0, abs=15)
    assert "about *" in " ".join(alarm.reasons)
    assert heard == sorted(heard)
    assert await store.drift_checks(ALIAS) == []
    assert await store.drift_references(ALIAS) == []
    assert not (tmp_path / "reports").exists()
    tell(found, as_json=False)
    told = capsys.readouterr().out
    assert "support: 300 requests" in told
    assert "It would have fired 1 times" in told
    assert "It would have asked for retraining at 1970-01-01 00:1" in told
    tell(found, as_json=True)
    assert json.loads(capsys.readouterr().out)["alarms"][0]["detectors"]


async def test_it_says_what_the_worker_said(store: SqlStore, tmp_path: Path, embedder: Embedder) -> None:
    """The same requests, once as they come and once from the store, get the same verdicts at the same moments."""
    rows, settings = a_day(), settings_in(tmp_path)
    past = Recorded(store)

    class Clock:
        def now(self) -> float:
            return past.moment

        async def sleep(self, seconds: float) -> None:
            raise AssertionError("nobody waits")

    alias = await store.alias(ALIAS)
    live = Watch(store, settings, Clock(), Checker(SMALL, None, embedder))
    said = []
    for start in range(0, len(rows), 2):
        await send(store, rows[start : start + 2])
        past.moment = rows[start + 1].capture.at
        if (check := await live.check_alias(alias)) is not None and check.verdict != "INCONCLUSIVE":
            said.append((check.at, check.verdict, check.retrain, check.reasons, check.scores, check.since))
    heard = []

    class Listening(replaying.Watch):
        async def check_alias(self, alias: object) -> object:  # type: ignore[override]
            check = await super().check_alias(alias)  # type: ignore[arg-type]
            if check is not None and check.verdict != "INCONCLUSIVE":
                heard.append((check.at, check.verdict, check.retrain, check.reasons, check.scores, check.since))
            return check

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replaying, "Watch", Listening)
        await replay(store, settings, embedder, ALIAS)
    assert len(said) > 40
    assert heard == said


async def test_labels_that_came_later_were_not_known(store: SqlStore, tmp_path: Path) -> None:
    rows = [replace(row, feedback=row.feedback and replace(row.feedback, at=9000.0)) for row in a_day()]
    await send(store, rows)
    recorded = Recorded(store)
    recorded.moment = rows[200].capture.at
    seen = await recorded.window(ALIAS, since=0.0, limit=1000)
    assert [row.capture.request_id for row in seen] == [row.capture.request_id for row in rows[:201]]
    assert all(row.feedback is None for row in seen)
    assert await recorded.window(ALIAS, since=0.0, limit=1000, labelled_only=True) == []
    assert len(await recorded.window(ALIAS, since=0.0, limit=60)) == 60
    recorded.moment = 9000.0
    assert all(row.feedback is not None for row in await recorded.window(ALIAS, since=0.0, limit=60))
    assert (await recorded.window(ALIAS, since=0.0, until=1000.5, limit=9)) == []


async def test_from_and_to_bound_what_is_judged_and_promotions_begin_references(
    store: SqlStore, tmp_path: Path
) -> None:
    rows = a_day()
    await send(store, rows)
    calm = await replay(store, settings_in(tmp_path), None, ALIAS, until=rows[139].capture.at)
    assert (calm.requests, calm.alarms) == (140, [])
    during = await replay(store, settings_in(tmp_path), None, ALIAS, since=rows[170].capture.at, until=1200.0)
    assert during.requests == 29
    assert len(during.alarms) == 1, "the reference is what it was, though --from lies after it"
    await promote(store, rows[139].capture.at)
    promoted = await replay(store, settings_in(tmp_path), None, ALIAS)
    assert not any(alarm.at < rows[199].capture.at for alarm in promoted.alarms), "travel is the new reference"


async def test_nothing_stored_and_nobody_known(store: SqlStore, tmp_path: Path) -> None:
    assert await replay(store, settings_in(tmp_path), None, ALIAS) == Replayed(ALIAS, every=10_000)
    with pytest.raises(NotFound, match="no alias 'nobody'"):
        await replay(store, settings_in(tmp_path), None, "nobody")


async def test_the_commands(store: SqlStore, tmp_path: Path) -> None:
    await send(store, a_day()[:140])
    drift = {"reference_size": 60, "current_size": 40, "reference": "pinned"}
    (tmp_path / "trimtab.yaml").write_text(
        yaml.safe_dump({"model": "none", "state_dir": str(tmp_path), "drift": drift})
    )

    def trimtab(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", "drift", *argv], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    replayed = trimtab("replay", ALIAS, "--from", "1970-01-01T00:16:00+00:00", "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["requests"] == 140
    pinned = trimtab("reference", ALIAS, "--pin", "1970-01-01T00:17:20+00:00", "--json")
    assert pinned.returncode == 0, pinned.stderr
    (version,) = json.loads(pinned.stdout)["references"]
    assert (version["in_force"], version["since"], version["size"]) == (True, 1040.0, 60)
    assert version["until"] == 1100.0
    assert (await store.events(ALIAS))[0].kind == "drift.pinned"
    late = trimtab("reference", ALIAS, "--pin", "1970-01-01T00:18:20+00:00")
    assert late.returncode == 1
    assert "Only 40 requests came after" in late.stderr
