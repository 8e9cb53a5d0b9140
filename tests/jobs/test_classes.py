"""Classes and calibration of an evaluation, against values worked out by hand."""

from __future__ import annotations

import pytest

from retrain_jobs.classes import OTHER, by_class, confusion
from retrain_jobs.score import Answer, are_classes, reliability


def answers(*replies: str, target: str) -> list[Answer]:
    return [Answer(reply, float(reply == target), 0.9, 0.5) for reply in replies]


def test_each_class_is_compared_and_the_losses_come_first() -> None:
    targets = ["a"] * 4 + ["b"] * 4
    champion = [*answers("a", "a", "a", "b", target="a"), *answers("b", "a", "a", "a", target="b")]
    candidate = [*answers("a", "b", "b", "b", target="a"), *answers("b", "b", "b", "b", target="b")]
    lost, won = by_class(targets, champion, candidate, seed=0)
    assert (lost["name"], lost["n"], lost["champion"], lost["candidate"]) == ("a", 4, 0.75, 0.25)
    assert lost["ci"][0] <= -0.5 <= lost["ci"][1] <= 0.0
    assert (won["name"], won["champion"], won["candidate"]) == ("b", 0.25, 1.0)


def test_confusion_counts_what_is_taken_for_what_and_keeps_no_free_text() -> None:
    replies = ["b", " b ", "a", "my name is Ada", "b"]
    found = confusion(["a", "a", "a", "a", "b"], [Answer(r, 0.0, 0.5, 1.0) for r in replies])
    assert found == [["a", "b", 2], ["a", OTHER, 1]]


def test_texts_are_no_classes() -> None:
    assert are_classes(["a", "a", "b", "b"])
    assert not are_classes(["one", "two", "three"])
    assert not are_classes([])


def test_the_reliability_curve_holds_every_row_once() -> None:
    curve = reliability([0.95, 0.91, 0.15, 1.0], [1, 0, 1, 1])
    assert [point["n"] for point in curve] == [1, 3]
    assert curve[0] == {"confidence": 0.15, "score": 1.0, "n": 1}
    assert curve[1]["score"] == pytest.approx(2 / 3)
