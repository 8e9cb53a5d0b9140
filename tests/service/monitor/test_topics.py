"""Reasons: the new topic is found, named, dated and judged, in a sentence; calm windows have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.core.records import Labelled
from service.core.window import Sizes, choose_windows
from service.monitor.change_point import mean_changed, share_changed
from service.monitor.check import Checker, Memory
from service.monitor.embedders import Embedder
from service.monitor.features import measure
from service.monitor.neighbours import Neighbours
from service.monitor.reasons import clock_time
from service.monitor.topics import Topic, Window, find_topics, telling_words, topics_of
from service.settings import AliasSettings, DriftSettings
from tests.service.monitor.test_check import NoReports
from tests.service.monitor.traffic import ALIAS, later, traffic

TRAVEL = frozenset(
    word
    for words in (
        "toronto osaka lima lisbon oslo nairobi flight hotel airport visa trip luggage book layover between travelling",
        "vaccination lost find near before needed long",
    )
    for word in words.split()
)


def half_new(seed: int, novel: float = 0.7) -> tuple[list[Labelled], list[Labelled]]:
    """A reference, and a window whose second half is new in part."""
    reference = traffic(seed, 500)
    calm = traffic(seed + 100, 100, start=later(reference))
    return reference, [*calm, *traffic(seed + 200, 100, novel=novel, start=later(calm))]


def topics(reference: list[Labelled], current: list[Labelled], embedder: Embedder) -> tuple[Topic, ...]:
    before, after = (measure(rows, "exact", None) for rows in (reference, current))
    return topics_of(
        Neighbours(embedder.embed(before.prompts)), embedder.embed(after.prompts), before, after, seed=0
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_new_topic_is_found_with_its_share_its_start_and_its_words(seed: int, embedder: Embedder) -> None:
    reference, current = half_new(seed)
    found = topics(reference, current, embedder)
    members = np.any([topic.members for topic in found], axis=0)
    is_novel = np.array([row.feedback is not None and row.feedback.expected == "travel" for row in current])
    assert (members & is_novel).sum() >= 0.8 * members.sum()
    assert (members & is_novel).sum() >= 0.5 * is_novel.sum()
    assert sum(topic.share for topic in found) == pytest.approx(0.7, abs=0.2)
    for topic in found:
        assert abs(topic.began - 100) <= 15
        assert topic.before < 0.11
        assert topic.chance < 1e-6
        assert set(topic.words) & TRAVEL
        assert topic.examples


def test_calm_windows_have_no_topic(embedder: Embedder) -> None:
    found = [topics(*half_new(seed, novel=0.0), embedder) for seed in range(20)]
    assert sum(bool(one) for one in found) <= 1


def test_topics_of_nothing() -> None:
    some = Window(["a"] * 30, np.ones((30, 4), np.float32))
    none = Window([], np.zeros((0, 4), np.float32))
    holes = Window(["a"] * 30, np.full((30, 4), np.nan, np.float32))
    assert find_topics(some, none, seed=0) == ()
    assert find_topics(none, some, seed=0) == ()
    assert find_topics(some, holes, seed=0) == ()
    assert find_topics(some, some, seed=0) == ()


def test_telling_words_are_those_far_more_frequent_than_before() -> None:
    known = ["where is my order", "please cancel the order", "how do i reset my password"] * 50
    new = [
        "book a flight to lima",
        "is my flight on time",
        "cancel the flight",
        "how late is the flight to oslo 12345",
    ] * 10
    assert telling_words(new, known)[0] == "flight"
    assert not set(telling_words(new, known)) & {"the", "how", "my", "cancel", "12345", "number"}
    assert telling_words([], known) == ()
    assert telling_words(new, new) == ()


@pytest.mark.parametrize("at", [0, 30, 70, 90])
def test_the_change_of_a_share_is_dated(at: int) -> None:
    rng = np.random.default_rng(at)
    row = np.concatenate([rng.random(at) < 0.05, rng.random(100 - at) < 0.9])
    assert abs(share_changed(row, 0.05) - at) <= 3
    values = np.concatenate([rng.normal(size=at), rng.normal(4.0, 1.0, size=100 - at)])
    values[::7] = np.nan
    assert abs(mean_changed(values, 0.0) - at) <= 3


def test_times_of_day_are_told_with_their_date_when_long_ago() -> None:
    assert clock_time(1_763_733_900.0, 1_763_740_000.0) == "14:05 UTC"
    assert clock_time(1_763_733_900.0, 1_764_740_000.0) == "2025-11-21 14:05 UTC"


def test_the_sentence_and_what_is_kept(embedder: Embedder) -> None:
    settings = DriftSettings()
    checker, memory = Checker(settings, NoReports(), embedder), Memory()
    reference, current = half_new(2)
    windows = choose_windows(reference, current, Sizes(500, 200))
    check = checker.check(ALIAS, windows, AliasSettings(), memory, fresh=200, now=5000.0)
    assert check.verdict == "DRIFTED"
    topic = check.topics[0]
    assert check.reasons[0].startswith(f"{topic['share']:.0%} of requests since ")
    assert " labelled); over 99.9% sure." in check.reasons[0]
    assert topic["unseen"] == ("unseen in the reference" in check.reasons[0])
    assert check.since == pytest.approx(current[100].capture.at, abs=12)
    assert topic["accuracy"] < 0.4
    assert not topic["accuracy_is_estimate"]
    unlabelled = [replace(row, feedback=None) for row in current]
    later_on = replace(windows, current=tuple(unlabelled[100:] * 2))
    again = checker.check(ALIAS, later_on, AliasSettings(), memory, fresh=100, now=5000.0)
    assert "estimated accuracy " in again.reasons[0]
    assert again.since == check.since, "the onset is remembered once it has left the window"
    assert again.topics[0]["accuracy_is_estimate"]


def test_examples_are_scrubbed_and_short(embedder: Embedder) -> None:
    def private(row: Labelled) -> Labelled:
        message = {
            "role": "user",
            "content": f"ann@example.org wants a flight, call 020 7946 0958 {'x' * 300}",
        }
        return replace(row, capture=replace(row.capture, prompt=[message]))

    reference = traffic(1, 300)
    current = [private(row) for row in traffic(2, 100, start=later(reference))]
    (found,) = topics(reference, current, embedder)
    assert all("ann@" not in text and "7946" not in text and len(text) <= 80 for text in found.examples)
    assert not set(found.words) & {"ann", "example", "org", "mail", "phone"}
