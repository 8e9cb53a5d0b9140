"""Not every change is drift: what each kind of change should be called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from service.core.records import DriftCheck, Labelled
from service.core.season import Season
from service.core.window import Sizes, choose_windows
from service.monitor.check import Checker, Memory
from service.monitor.embedders import Embedder
from service.settings import AliasSettings, DriftSettings
from tests.service.monitor.test_check import NoReports
from tests.service.monitor.traffic import ALIAS, capture_of, later, traffic

SETTINGS = DriftSettings(reference_size=300, current_size=100)
HOUR_S = 3600.0


def check(
    reference: Sequence[Labelled],
    current: Sequence[Labelled],
    embedder: Embedder | None,
    settings: DriftSettings = SETTINGS,
) -> DriftCheck:
    checker, memory = Checker(settings, NoReports(), embedder), Memory()
    windows = choose_windows(reference, current, Sizes(settings.reference_size, settings.current_size))
    return checker.check(ALIAS, windows, AliasSettings(), memory, fresh=settings.current_size, now=5000.0)


def by(source: str, rows: Sequence[Labelled]) -> list[Labelled]:
    return [Labelled(replace(row.capture, source=source), row.feedback) for row in rows]


def mixed(seed: int, *parts: Sequence[Labelled]) -> list[Labelled]:
    """All rows in one order of time."""
    rows = [row for part in parts for row in part]
    at = sorted(row.capture.at for row in rows)
    Random(seed).shuffle(rows)
    return [Labelled(replace(row.capture, at=when), row.feedback) for row, when in zip(rows, at, strict=True)]


def test_ten_times_the_volume_is_stable(embedder: Embedder) -> None:
    reference = traffic(1, 300)
    rows = traffic(2, 100, start=later(reference))
    fast = [
        Labelled(replace(row.capture, at=later(reference) + 0.1 * i + 0.1), row.feedback) for i, row in enumerate(rows)
    ]
    assert check(reference, fast, embedder).verdict == "STABLE"


def test_one_noisy_client_is_stable_and_named(embedder: Embedder) -> None:
    reference = mixed(1, by("shop", traffic(1, 150)), by("app", traffic(2, 150)))
    calm = mixed(
        2, by("shop", traffic(3, 30, start=later(reference))), by("app", traffic(4, 30, start=later(reference)))
    )
    noise = by("crawler", traffic(5, 40, novel=1.0, labelled=0.0, start=later(reference)))
    found = check(reference, mixed(3, calm, noise), embedder)
    assert (found.verdict, found.retrain) == ("STABLE", False)
    assert "Only the requests of one client (crawler) look unlike the reference" in found.reasons[-1]


def test_one_client_who_says_that_all_is_wrong_is_stable_and_named(embedder: Embedder) -> None:
    reference = mixed(1, by("shop", traffic(1, 150)), by("app", traffic(2, 150)))
    calm = mixed(
        2, by("shop", traffic(3, 30, start=later(reference))), by("app", traffic(4, 30, start=later(reference)))
    )
    angry = traffic(5, 40, renamed=1.0, start=later(reference))
    found = check(reference, mixed(3, calm, by("grudge", angry)), embedder)
    assert (found.verdict, found.retrain) == ("STABLE", False)
    assert found.reasons[-1].startswith("Only the labels of one client (grudge) say that replies are worse")
    shared = [row for i, name in enumerate("abcd") for row in by(name, angry[10 * i : 10 * i + 10])]
    assert check(reference, mixed(3, calm, shared), embedder).verdict == "DRIFTED"


def test_the_same_drift_from_many_clients_is_drift(embedder: Embedder) -> None:
    reference = mixed(1, by("shop", traffic(1, 150)), by("app", traffic(2, 150)))
    parts = [by(name, traffic(i, 50, novel=0.6, start=later(reference))) for i, name in enumerate(("shop", "app"), 6)]
    found = check(reference, mixed(3, *parts), embedder)
    assert (found.verdict, found.retrain) == ("DRIFTED", True)


def test_a_new_client_version_is_drift_that_costs_nothing(embedder: Embedder) -> None:
    def renewed(row: Labelled) -> Labelled:
        capture = row.capture
        prompt = [{**message, "content": f"[app 2.0] {message['content']}"} for message in capture.prompt]
        return Labelled(replace(capture, prompt=prompt, prompt_tokens=capture.prompt_tokens + 5), row.feedback)

    reference = traffic(1, 300)
    found = check(reference, [renewed(row) for row in traffic(2, 100, start=later(reference))], embedder)
    assert (found.verdict, found.retrain) == ("DRIFTED", False)
    assert "is not credible" in found.reasons[-1]


@pytest.mark.parametrize(("season", "verdict"), [(Season.NONE, "DRIFTED"), (Season.DAY, "STABLE")])
def test_nights_are_compared_with_nights_where_that_is_asked_for(season: Season, verdict: str) -> None:
    random = Random(0)

    def at_hour(i: int, hour: float) -> Labelled:
        night = hour % 24 < 8
        text = (
            random.choice(["ping", "status of the batch"])
            if night
            else random.choice(["a long question " * 3, "hello there"])
        )
        capture = capture_of(f"r{i}", hour * HOUR_S, text, "ok" if night else "see below", confidence=-random.random())
        return Labelled(capture, None)

    reference = [at_hour(i, 0.08 * i) for i in range(600)]  # two days
    current = [at_hour(1000 + i, 48.0 + 0.08 * (i + 1)) for i in range(95)]  # a night
    settings = DriftSettings(reference_size=600, current_size=90, season=season)
    assert check(reference, current, None, settings).verdict == verdict


def test_clocks_that_differ_and_feedback_from_the_future_change_nothing(embedder: Embedder) -> None:
    reference = traffic(1, 300)
    odd = []
    for i, row in enumerate(traffic(2, 100, start=later(reference))):
        feedback = replace(row.feedback, at=9e9) if row.feedback is not None else None
        odd.append(Labelled(replace(row.capture, at=row.capture.at + (7200.0 if i % 2 else 0.0)), feedback))
    odd.sort(key=lambda row: row.capture.at)
    assert check(reference, odd, embedder).verdict == "STABLE"


def test_labels_of_one_class_only_are_no_drift(embedder: Embedder) -> None:
    reference = traffic(1, 300, right=1.0)
    found = check(reference, traffic(2, 100, right=1.0, start=later(reference)), embedder)
    assert found.verdict == "STABLE"
