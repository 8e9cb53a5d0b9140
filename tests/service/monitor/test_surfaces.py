"""Evidently's surfaces: descriptors and presets by name, one's own by import path, alarms in a workspace that opens."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from evidently.ui.workspace import Workspace

from service.core.drift import Kind
from service.core.errors import ConfigError
from service.core.records import DriftCheck, Labelled
from service.core.window import Sizes, choose_windows
from service.drivers.clock import SystemClock
from service.drivers.store import open_store
from service.monitor.check import Checker, Memory
from service.monitor.detectors import Detection
from service.monitor.features import measure
from service.monitor.report import Reports
from service.monitor.surfaces import Descriptors, kind_of, presets
from service.monitor.worker import run_monitor
from service.monitor.workspace import Alarms
from service.settings import AliasSettings, DescriptorSettings, DriftSettings, PresetSettings, Settings, load_settings
from tests.service.monitor.traffic import ALIAS, later, traffic

SIZES = Sizes(60, 40)
MINE = """
from evidently.descriptors import TextLength
from evidently.presets import DatasetStats

def shouts(text, sign="!"):
    return text.count(sign)

class Length(TextLength):
    pass

def stats():
    return DatasetStats()

def broken(text):
    raise RuntimeError("it does not work")

def words(text):
    return text.split()

number = 7
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the operator's."""
    (tmp_path / "my_surfaces.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_surfaces", raising=False)
    return "my_surfaces"


def named(*names: str | dict[str, Any]) -> list[DescriptorSettings]:
    return [DescriptorSettings.model_validate(name) for name in names]


def check(
    drift: DriftSettings, reference: Sequence[Labelled], current: Sequence[Labelled], reports: Reports | None = None
) -> DriftCheck:
    checker = Checker(drift, reports, None, Descriptors(drift.descriptors))
    windows = choose_windows(reference, current, SIZES)
    return checker.check(ALIAS, windows, AliasSettings(), Memory(), fresh=40, now=5000.0)


def test_descriptors_by_name_and_by_import_path_are_columns(mine: str) -> None:
    listed = named(
        "SentenceCount",
        {"name": "Contains", "of": "reply", "options": {"items": ["refund"]}},
        {"name": f"{mine}:shouts", "options": {"sign": "?"}},
        f"{mine}:Length",
    )
    found = Descriptors(listed).add_to(measure(traffic(1, 30), "exact", None))
    prompts, replies = found.prompts, found.replies
    assert set(found.columns) >= {"prompt.SentenceCount", "reply.Contains", "prompt.shouts", "prompt.Length"}
    np.testing.assert_array_equal(found.columns["reply.Contains"], ["refund" in reply for reply in replies])
    np.testing.assert_array_equal(found.columns["prompt.Length"], [len(prompt) for prompt in prompts])
    assert found.columns["prompt.shouts"].tolist() == [0.0] * 30
    assert (kind_of("prompt.Length"), kind_of("reply.Contains")) == (Kind.INPUT, Kind.OUTPUT)
    assert kind_of("reply_chars") is Kind.OUTPUT


def test_what_a_descriptor_sees_move_is_drift(mine: str) -> None:
    def shouting(row: Labelled, i: int) -> Labelled:
        content = "where is my kettle" + "!" * (i % 3)
        return replace(row, capture=replace(row.capture, prompt=[{"role": "user", "content": content}]))

    drift = DriftSettings(reference_size=60, current_size=40, descriptors=tuple(named(f"{mine}:shouts")))
    reference = [shouting(row, i) for i, row in enumerate(traffic(1, 60))]
    calm = [shouting(row, i) for i, row in enumerate(traffic(2, 40, start=later(reference)))]
    wild = [shouting(row, 2) for row in traffic(3, 40, start=later(reference))]
    assert check(drift, reference, calm).verdict == "STABLE"
    told = check(drift, reference, wild)
    assert "prompt.shouts" in {entry["detector"] for entry in told.scores if entry["alarm"]}
    assert "prompt.shouts rose from " in " ".join(told.reasons)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Sentence", "Evidently has no 'Sentence', but .*SentenceCount"),
        ("generated_descriptors", "Evidently has no 'generated_descriptors'"),
        ("RegExp", r"'RegExp' cannot be used \(.*reg_exp"),
        ("nowhere:thing", "drift.descriptors nowhere:thing cannot be imported .*PYTHONPATH"),
        ("my_surfaces:absent", "my_surfaces has no function 'absent'"),
        ("my_surfaces:number", "my_surfaces has no function 'number'"),
        ("my_surfaces:broken", r"cannot be used \(it does not work\)"),
        ("my_surfaces:words", "cannot be used"),
    ],
)
def test_descriptors_that_cannot_be_used_are_one_clear_error(mine: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Descriptors(named(name))
    assert "\n" not in caught.value.message
    assert caught.value.param == "drift.descriptors"


def test_the_same_descriptor_twice() -> None:
    with pytest.raises(ConfigError, match=r"'prompt\.SentenceCount' twice"):
        Descriptors(named("SentenceCount", "SentenceCount"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Drift", "Evidently has no 'Drift', but .*DataSummaryPreset"),
        ("ClassificationPreset", r"cannot be used \(Cannot use ClassificationPreset without"),
        ("ValueStats", r"cannot be used \(.*'column'"),
        ("my_surfaces:shouts", "cannot be used"),
        ("my_surfaces:Length", "cannot be used"),
    ],
)
def test_presets_that_cannot_be_used_are_one_clear_error(mine: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        presets([PresetSettings(name=name)])


def test_presets_by_name_and_by_import_path_are_part_of_the_report(mine: str, tmp_path: Path) -> None:
    listed = [PresetSettings(name="DataSummaryPreset"), PresetSettings(name=f"{mine}:stats")]
    drift, reference = DriftSettings(reference_size=60, current_size=40), traffic(1, 60)
    pages = []
    for chosen in ([], listed[:1], listed):
        reports = Reports(tmp_path / "reports", keep=3, presets=presets(chosen))
        told = check(drift, reference, traffic(2, 40, start=1060.0), reports)
        pages.append((tmp_path / "reports" / str(told.report)).read_text("utf-8"))
    assert len(pages[0]) + 10_000 < len(pages[1]) < len(pages[2]) - 1000, "each preset adds its widgets"


def test_a_report_that_fails_costs_no_verdict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Full(Reports):
        def write(self, detection: Detection, check_id: str, *, alarm_of: str | None = None) -> str:
            raise OSError(28, "No space left on device")

    reference = traffic(1, 60)
    drift = DriftSettings(reference_size=60, current_size=40)
    told = check(drift, reference, traffic(2, 40, start=1060.0), Full(tmp_path, keep=1))
    assert (told.verdict, told.report) == ("STABLE", None)
    assert "could not be written" in caplog.text


def alarmed(folder: Path, n: int, *, keep: int = 2) -> list[DriftCheck]:
    """`n` alarms of an alias, each against another reference."""
    reports = Reports(folder / "reports", keep=keep, alarms=Alarms(folder / "evidently", keep=keep))
    drift = DriftSettings(reference_size=60, current_size=40)
    found = []
    for i in range(n):
        reference = traffic(i, 60)
        found.append(check(drift, reference, traffic(50 + i, 40, novel=0.8, start=later(reference)), reports))
    return found


def test_alarms_are_snapshots_in_a_workspace_and_calm_checks_are_not(tmp_path: Path) -> None:
    checks = alarmed(tmp_path, 3)
    assert {one.verdict for one in checks} == {"DRIFTED"}
    check(
        DriftSettings(reference_size=60, current_size=40), traffic(1, 60), traffic(2, 40, start=1060.0),
        Reports(tmp_path / "reports", keep=9, alarms=Alarms(tmp_path / "evidently", keep=2)),
    )  # fmt: skip
    workspace = Workspace(str(tmp_path / "evidently"))
    (project,) = workspace.search_project(ALIAS)
    runs = workspace.list_runs(project.id)
    assert len(runs) == 2, "the newest two are kept"
    snapshots = [workspace.get_run(project.id, run) for run in runs]
    assert {snapshot.name for snapshot in snapshots} == {one.id for one in checks[1:]}
    kept = "".join(path.read_text() for path in (tmp_path / "evidently").glob("*/snapshots/*.json"))
    assert "confidence" in kept
    assert "kettle" not in kept, "no prompts leave the worker"


def test_a_half_written_snapshot_of_a_killed_worker_is_removed(tmp_path: Path) -> None:
    alarmed(tmp_path, 1)
    (project,) = Workspace(str(tmp_path / "evidently")).search_project(ALIAS)
    torn = tmp_path / "evidently" / str(project.id) / "snapshots" / "01a1ff28-bc8f-7dd6-9669-a0de5671c4fc.json"
    torn.write_text('{"id": "01a1ff28-')
    alarmed(tmp_path, 1, keep=5)
    assert not torn.exists()
    assert len(Workspace(str(tmp_path / "evidently")).list_runs(project.id)) == 2


def test_evidently_ui_opens_the_workspace(tmp_path: Path) -> None:
    (alarm,) = alarmed(tmp_path, 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = str(Path(sys.executable).with_name("evidently"))
    argv = [command, "ui", "--workspace", str(tmp_path / "evidently"), "--port", str(port)]
    log = tmp_path / "ui.log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, "DO_NOT_TRACK": "1"}, cwd=tmp_path)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30.0) as http:
            projects = _once_up(http, process, log)
            assert [project["name"] for project in projects] == [ALIAS]
            reports = http.get(f"/api/projects/{projects[0]['id']}/reports").json()
            assert len(reports) == 1, alarm.id
    finally:
        process.terminate()
        process.wait(30)


def _once_up(http: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> Any:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            return http.get("/api/projects").json()
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_settings_take_names_or_names_with_options(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.yaml"
    path.write_text(
        "drift: {descriptors: [SentenceCount, {name: Contains, of: reply, options: {items: [refund]}}], "
        "presets: [DataSummaryPreset]}"
    )
    drift = load_settings(path).drift
    assert [(one.name, one.of) for one in drift.descriptors] == [("SentenceCount", "prompt"), ("Contains", "reply")]
    assert drift.descriptors[1].options == {"items": ["refund"]}
    assert drift.presets[0].name == "DataSummaryPreset"
    path.write_text("drift: {descriptors: [{name: SentenceCount, side: reply}]}")
    with pytest.raises(ConfigError, match=r"Unknown setting 'drift\.descriptors\.0\.side'"):
        load_settings(path)


async def test_the_worker_refuses_to_start_with_what_it_cannot_use(tmp_path: Path) -> None:
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    drift = DriftSettings(descriptors=tuple(named("Sentence")))
    with pytest.raises(ConfigError, match="Evidently has no 'Sentence'"):
        await run_monitor(store, Settings(state_dir=tmp_path, drift=drift), SystemClock(), asyncio.Event())
    await store.close()
