"""What is asked in an evaluation: the sample, the slips, and what the base model need not be asked again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.encode import Encoded
from retrain_jobs.items import Item, sample
from retrain_jobs.known_replies import KEPT, KnownReplies, Said
from retrain_jobs.known_scores import KnownScores
from retrain_jobs.perturb import perturb
from service.settings import AliasSettings
from tests.jobs.rows import calm


def items(**groups: int) -> list[Item]:
    return [
        Item(Encoded((n, len(group)), (1,)), "x", group, f"{group}-{n}", [])
        for group, size in groups.items()
        for n in range(size)
    ]


def test_a_sample_holds_each_groups_share_and_is_the_same_again() -> None:
    rows = items(new=60, replay=30, golden=10)
    chosen = sample(rows, 20, seed=0)
    counts = {group: sum(rows[i].group == group for i in chosen) for group in ("new", "replay", "golden")}
    assert counts == {"new": 12, "replay": 6, "golden": 2}
    assert chosen == sample(rows, 20, seed=0) != sample(rows, 20, seed=1)
    assert sample(rows, 1000, seed=0) == list(range(100))
    assert sample([], 5, seed=0) == []


def test_slips_change_the_users_last_message_only_and_the_same_way_again() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is my order?"},
        {"role": "assistant", "content": "On its way."},
        {"role": "user", "content": "Please refund the second order now"},
    ]
    ways = {perturb(messages, key=str(n), seed=0)[-1]["content"] for n in range(60)}
    assert len(ways) > 10
    assert messages[-1]["content"] not in ways - {messages[-1]["content"]}
    found = perturb(messages, key="k", seed=3)
    assert found[:3] == messages[:3]
    assert found == perturb(messages, key="k", seed=3)


@calm
@given(st.text(max_size=200), st.integers(0, 50))
def test_any_text_can_be_perturbed_and_keeps_about_its_length(text: str, key: int) -> None:
    (found,) = perturb([{"role": "user", "content": text}], key=str(key), seed=0)
    assert len(found["content"]) <= 3 * len(text) + 4
    assert len(found["content"].strip()) >= len(text.strip()) // 2


def test_the_base_is_asked_for_what_is_new_only(tmp_path: Path) -> None:
    asked: list[int] = []

    def measure(missing: Sequence[Item]) -> list[float]:
        asked.append(len(missing))
        return [item.tokens.prompt[0] / 100 for item in missing]

    known = KnownScores(tmp_path / "scores", "b" * 64)
    rows, alias = items(golden=10), AliasSettings()
    assert known.of(rows[:6], alias, measure) == [n / 100 for n in range(6)]
    assert known.of(rows[4:], alias, measure) == [n / 100 for n in range(4, 10)]
    assert known.of(rows[4:], alias, measure)[0] == 0.04
    assert asked == [6, 4]
    known.of(rows[4:5], AliasSettings(scorer="chrf"), measure)
    KnownScores(tmp_path / "scores", "c" * 64).of(rows[4:5], alias, measure)
    assert asked == [6, 4, 1, 1]


@pytest.mark.parametrize("content", ["", "[]", '{"a": "much"}', "{"])
def test_a_file_that_cannot_be_read_costs_a_measurement(tmp_path: Path, content: str) -> None:
    (tmp_path / f"{'b' * 64}.json").write_text(content, "utf-8")
    known = KnownScores(tmp_path, "b" * 64)
    assert known.of(items(golden=2), AliasSettings(), lambda rows: [0.5] * len(rows)) == [0.5, 0.5]


def said(rows: Sequence[Item]) -> list[Said]:
    return [Said(f"reply to {item.key}", -0.25, 1.5) for item in rows]


def never(rows: Sequence[Item]) -> list[Said]:
    raise AssertionError(f"{len(rows)} were asked again")


def test_a_system_is_asked_the_golden_set_once(tmp_path: Path) -> None:
    known, rows = KnownReplies(tmp_path / "support"), items(golden=6)
    assert known.of("one", rows, 24, said) == said(rows) == known.of("one", rows[::-1], 24, never)[::-1]
    with pytest.raises(AssertionError, match="6 were"):
        known.of("another", rows, 24, never)
    with pytest.raises(AssertionError, match="6 were"):
        known.of("one", rows, 25, never)
    with pytest.raises(AssertionError, match="1 were"):
        known.of("one", items(golden=7), 24, never)


def test_the_replies_of_the_latest_systems_are_kept(tmp_path: Path) -> None:
    known, rows = KnownReplies(tmp_path), items(golden=2)
    for number in range(KEPT + 3):
        known.of(f"system-{number:02}", rows, 24, said)
    assert len(list(tmp_path.iterdir())) == KEPT
    known.of(f"system-{KEPT + 2:02}", rows, 24, never)


@pytest.mark.parametrize("content", ["", "[]", '{"a": "much"}', '{"a": ["x", 1]}', "{"])
def test_replies_that_cannot_be_read_are_asked_for_again(tmp_path: Path, content: str) -> None:
    (tmp_path / "one.json").write_text(content, "utf-8")
    rows = items(golden=2)
    assert KnownReplies(tmp_path).of("one", rows, 24, said) == said(rows)
