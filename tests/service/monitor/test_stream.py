"""A stream weighs each request once and each label once, and remembers no more than it must."""

from __future__ import annotations

import pytest

from service.core.records import Labelled
from service.core.season import Season
from service.monitor import stream as streams
from service.monitor.features import measure
from service.monitor.stream import Stream
from tests.service.monitor.traffic import later, traffic


def stream_of(reference: list[Labelled]) -> Stream:
    features = measure(reference, "exact", None)
    return Stream(reference, features, None, every=10_000, least=20, season=Season.NONE)


def take(stream: Stream, rows: list[Labelled]) -> int:
    unseen = stream.unseen(rows)
    if unseen:
        stream.take(unseen, measure(unseen, "exact", None), None)
    return len(unseen)


def seen(stream: Stream) -> tuple[int, int]:
    assert stream.requests is not None
    assert stream.labels is not None
    return stream.requests.seen, stream.labels.seen


def test_requests_and_late_labels_are_weighed_once() -> None:
    reference = traffic(1, 100)
    stream = stream_of(reference)
    told = traffic(2, 40, start=later(reference))
    untold = [Labelled(row.capture, None) for row in told]
    assert take(stream, [*untold, *untold]) == 40
    assert seen(stream) == (40, 0)
    assert take(stream, untold) == 0
    assert take(stream, told) == 40
    assert seen(stream) == (40, 40)
    assert take(stream, told) == 0


def test_what_is_forgotten_is_not_weighed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_KNOWN", 30)
    reference = traffic(1, 100)
    stream = stream_of(reference)
    rows = traffic(2, 80, start=later(reference))
    assert take(stream, rows) == 80
    assert take(stream, rows) == 0
    assert seen(stream) == (80, 80)


def test_labels_are_ranked_once_the_reference_has_enough() -> None:
    reference = traffic(1, 100, labelled=0.0)
    stream = stream_of(reference)
    assert stream.labels is None
    stream.label(measure(traffic(1, 100, labelled=1.0), "exact", None))
    assert stream.labels is not None
    before = stream.labels
    stream.label(measure(traffic(1, 100, labelled=1.0), "exact", None))
    assert stream.labels is before


def test_falling_scores_raise_an_alarm_on_labels_alone() -> None:
    reference = traffic(2, 300)
    stream = stream_of(reference)
    take(stream, traffic(3, 100, renamed=0.4, start=later(reference)))
    assert {score.detector for score in stream.scores() if score.alarm} == {"label_evidence"}
