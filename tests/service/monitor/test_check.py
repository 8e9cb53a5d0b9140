"""One check, end to end: clean traffic stays stable, a new domain is found with reasons, odd windows say nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from service.core.records import DriftCheck, Labelled
from service.core.window import Sizes, choose_windows
from service.monitor.check import Checker, Memory
from service.monitor.detectors import Detection
from service.monitor.embedders import Embedder
from service.monitor.report import Reports
from service.settings import AliasSettings, DriftSettings
from tests.service.monitor.traffic import ALIAS, capture_of, later, traffic

DEMO = DriftSettings(reference_size=300, current_size=100)
DEFAULT = DriftSettings()

Change = Callable[[int, Labelled], Labelled]


class NoReports(Reports):
    """Names reports and writes none: rendering one takes longer than a check."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), keep=1)
        self.written: list[str] = []

    def has(self, name: str) -> bool:
        return name in self.written

    def write(self, detection: Detection, check_id: str, *, alarm_of: str | None = None) -> str:
        self.written.append(f"{check_id}.html")
        return self.written[-1]


class Desk:
    """A checker with its memory of one alias."""

    def __init__(self, settings: DriftSettings, embedder: Embedder | None, reports: Reports | None = None) -> None:
        self.settings = settings
        self.reports = reports or NoReports()
        self.memory = Memory()
        self._checker = Checker(settings, self.reports, embedder)

    def check(self, reference: Sequence[Labelled], current: Sequence[Labelled]) -> DriftCheck:
        windows = choose_windows(reference, current, Sizes(self.settings.reference_size, self.settings.current_size))
        fresh = self.settings.current_size
        return self._checker.check(ALIAS, windows, AliasSettings(), self.memory, fresh=fresh, now=5000.0)

    def play(self, seed: int, *, labelled: float = 1.0, novel: float = 0.0, **answers: float) -> DriftCheck:
        reference = traffic(seed, self.settings.reference_size, labelled=labelled)
        size, start = self.settings.current_size, later(reference)
        return self.check(
            reference, traffic(seed + 10_000, size, novel=novel, labelled=labelled, start=start, **answers)
        )  # type: ignore[arg-type]


def alarms(check: DriftCheck) -> set[str]:
    return {entry["detector"] for entry in check.scores if entry["alarm"]}


@pytest.mark.parametrize("settings", [DEMO, DEFAULT], ids=["300 against 100", "500 against 200"])
def test_clean_traffic_stays_stable(settings: DriftSettings, embedder: Embedder) -> None:
    checks = [Desk(settings, embedder).play(seed) for seed in range(20)]
    assert [check.verdict for check in checks].count("STABLE") >= 19
    assert not any(check.retrain for check in checks)
    assert {entry["kind"] for entry in checks[0].scores} == {"input", "output", "quality", "estimated_quality"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [DEMO, DEFAULT], ids=["300 against 100", "500 against 200"])
def test_a_new_domain_in_half_of_a_window_is_found_with_its_reasons(
    settings: DriftSettings, seed: int, embedder: Embedder
) -> None:
    check = Desk(settings, embedder).play(seed, novel=0.5)
    assert (check.verdict, check.retrain) == ("DRIFTED", True)
    assert {"embedding", "confidence", "feedback_score"} <= alarms(check)
    told = " ".join(check.reasons)
    assert "Quality fell from 9" in told
    assert "% of requests since " in check.reasons[0]
    assert "are about *" in check.reasons[0]
    assert "of current requests lie beyond the reference's 99th percentile." in told
    assert "“" not in check.reasons[0]
    assert check.topics[0]["examples"]
    assert "The replies' confidence fell from 0." in told
    assert check.quality_reference is not None
    assert check.quality_current is not None
    assert check.quality_reference - check.quality_current > 0.3


def test_a_fifth_of_new_requests_is_found_within_one_window(embedder: Embedder) -> None:
    assert Desk(DEFAULT, embedder).play(1, novel=0.2).verdict == "DRIFTED"


def test_drift_without_a_loss_of_quality_does_not_ask_for_retraining(embedder: Embedder) -> None:
    check = Desk(DEFAULT, embedder).play(1, novel=0.5, novel_right=0.95, unsure=False)
    assert (check.verdict, check.retrain) == ("DRIFTED", False)
    assert "embedding" in alarms(check)
    assert "feedback_score" not in alarms(check)
    assert "is not credible" in check.reasons[-1]


def test_quality_that_falls_on_the_same_requests_is_drift(embedder: Embedder) -> None:
    check = Desk(DEFAULT, embedder).play(2, renamed=0.3)
    assert (check.verdict, check.retrain) == ("DRIFTED", True)
    assert {"feedback_score", "label_evidence"} <= alarms(check)
    assert "evidence" not in alarms(check)


def test_without_labels_confidence_estimates_the_loss(embedder: Embedder) -> None:
    check = Desk(DEFAULT, embedder).play(1, novel=0.6, labelled=0.0)
    assert (check.verdict, check.retrain, check.quality_current) == ("DRIFTED", True, None)
    assert any(told.startswith("Quality, estimated from the model's confidence, fell") for told in check.reasons)
    assert "estimated accuracy" in check.reasons[0]


def test_with_few_labels_now_the_estimate_is_calibrated_on_the_references(embedder: Embedder) -> None:
    reference = traffic(1, 500)
    current = traffic(2, 200, novel=0.6, labelled=0.02, start=later(reference))
    check = Desk(DEFAULT, embedder).check(reference, current)
    estimate = next(entry for entry in check.scores if entry["detector"] == "estimated_quality")
    assert estimate["alarm"]
    assert check.retrain
    assert "fell from 9" in estimate["detail"]


def test_the_check_goes_without_an_embedder() -> None:
    check = Desk(DEMO, None).play(1, novel=0.5)
    assert check.verdict == "DRIFTED"
    assert "embedding" not in {entry["detector"] for entry in check.scores}


def test_strong_drift_is_found_before_the_current_window_is_full(embedder: Embedder) -> None:
    reference = traffic(1, 300)
    check = Desk(DEMO, embedder).check(reference, traffic(2, 40, novel=1.0, start=later(reference)))
    assert (check.verdict, check.retrain, check.current_size) == ("DRIFTED", True, 40)
    assert "Single requests look unlike the reference: " in " ".join(check.reasons)


@pytest.mark.parametrize("sizes", [(0, 0), (5, 0), (300, 0), (300, 1), (300, 5)])
def test_small_windows_are_inconclusive_and_say_why(sizes: tuple[int, int], embedder: Embedder) -> None:
    reference = traffic(1, sizes[0])
    current = traffic(2, sizes[1], novel=1.0, start=later(reference) if reference else 0.0)
    check = Desk(DEMO, embedder).check(reference, current)
    assert (check.verdict, check.retrain, check.report) == ("INCONCLUSIVE", False, None)
    assert "still filling" in check.reasons[0]
    assert (check.reference_size, check.current_size) == sizes


def _constant(_: int, row: Labelled) -> Labelled:
    return Labelled(replace(capture_of("", row.capture.at, "same", "same", confidence=-0.1)), None)


def _empty(_: int, row: Labelled) -> Labelled:
    return Labelled(
        replace(row.capture, prompt=[], reply="", prompt_tokens=0, completion_tokens=0, confidence=None), None
    )


def _no_number(_: int, row: Labelled) -> Labelled:
    return Labelled(
        replace(row.capture, prompt=[], reply="", prompt_tokens=0, completion_tokens=0, confidence=math.nan), None
    )


@pytest.mark.parametrize("odd", [_constant, _empty, _no_number])
def test_windows_without_anything_that_varies_are_inconclusive(odd: Change, embedder: Embedder) -> None:
    reference = traffic(1, 300)
    current = traffic(2, 100, start=later(reference))
    check = Desk(DEMO, embedder).check(*([odd(i, row) for i, row in enumerate(rows)] for rows in (reference, current)))
    assert check.verdict == "INCONCLUSIVE"
    assert not alarms(check)


@pytest.mark.parametrize("odd", [_empty, _no_number])
def test_a_reference_of_nothing_never_alarms(odd: Change, embedder: Embedder) -> None:
    reference = [odd(i, row) for i, row in enumerate(traffic(1, 300))]
    check = Desk(DEMO, embedder).check(reference, traffic(2, 100, start=later(reference)))
    assert check.verdict == "INCONCLUSIVE"


def test_confidences_that_are_no_numbers_leave_their_detector_out(embedder: Embedder) -> None:
    def broken(i: int, row: Labelled) -> Labelled:
        return Labelled(replace(row.capture, confidence=math.nan if i % 5 else math.inf), row.feedback)

    reference = traffic(1, 300)
    current = [broken(i, row) for i, row in enumerate(traffic(2, 100, start=later(reference)))]
    check = Desk(DEMO, embedder).check(reference, current)
    assert check.verdict == "STABLE"
    assert "confidence" not in {entry["detector"] for entry in check.scores}


def test_one_extreme_request_is_no_drift(embedder: Embedder) -> None:
    reference = traffic(1, 300)
    current = traffic(2, 100, start=later(reference))
    huge = capture_of("huge", current[50].capture.at, "kettle " * 20_000, "order_status", confidence=-0.1)
    current[50] = Labelled(huge, None)
    assert Desk(DEMO, embedder).check(reference, current).verdict == "STABLE"


def test_the_report_shows_the_columns_and_stays_until_the_verdict_changes(tmp_path: Path, embedder: Embedder) -> None:
    desk = Desk(DEMO, embedder, Reports(tmp_path / "reports", keep=2))
    reference = traffic(1, 300)
    calm = desk.check(reference, traffic(2, 100, start=later(reference)))
    again = desk.check(reference, traffic(3, 100, start=later(reference)))
    wild = desk.check(reference, traffic(4, 100, novel=0.5, start=later(reference)))
    assert (calm.report, again.report, wild.report) == (f"{calm.id}.html", f"{calm.id}.html", f"{wild.id}.html")
    page = (tmp_path / "reports" / f"{wild.id}.html").read_text("utf-8")
    assert page.lstrip().startswith("<")
    for column in ("prompt_words", "reply_chars", "confidence", "embedding", "reply"):
        assert column in page
    assert "Jensen-Shannon distance" in page
    (tmp_path / "reports" / ".draft-of-a-killed-worker").write_text("half")
    desk.check(traffic(9, 300), traffic(10, 100, start=later(traffic(9, 300))))
    assert len(list((tmp_path / "reports").iterdir())) == 2


def test_an_alarm_has_two_reports_at_most_however_often_its_loss_of_quality_comes_and_goes(embedder: Embedder) -> None:
    desk = Desk(DEFAULT, embedder)
    reference = traffic(1, 500)

    def check(seed: int, **answers: float) -> DriftCheck:
        return desk.check(reference, traffic(seed, 200, novel=0.5, start=later(reference), **answers))  # type: ignore[arg-type]

    harmless = {"novel_right": 0.95, "unsure": False}
    checks = [check(2, **harmless), check(3), check(4, **harmless), check(5), check(6, **harmless)]
    assert [found.verdict for found in checks] == ["DRIFTED"] * 5
    assert [found.retrain for found in checks] == [False, True, False, True, False]
    mild, grave = checks[0].report, checks[1].report
    assert mild != grave
    assert [found.report for found in checks] == [mild, grave, mild, grave, mild]


def test_a_check_of_200_against_500_takes_less_than_2_seconds_of_one_core(embedder: Embedder) -> None:
    desk = Desk(DEFAULT, embedder)
    reference = traffic(1, 500)
    windows = [traffic(seed, 200, start=later(reference)) for seed in (2, 3)]
    took = []
    with threadpool_limits(1):
        for current in windows:
            began = time.process_time()
            desk.check(reference, current)
            took.append(time.process_time() - began)
    assert took[0] < 2.0, "with the calibration of a new reference"
    assert took[1] < 0.5, "with a known reference"
