"""How often tasks are drawn: by their size and the temperature, whole rows, the same for a seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_jobs.examples import Example, Origin, Slice, Turn
from retrain_jobs.recipes.order import batches
from retrain_jobs.tasks import MOST_REPEATS, draw_of, quotas, told_tasks
from tests.jobs.rows import calm


def row(number: int, system: str | None) -> Example:
    prompt = (Turn("user", f"question {number}"),)
    if system is not None:
        prompt = (Turn("system", system), *prompt)
    return Example(f"r{number}", 1.0, 2.0, prompt, "reply", Slice.NEW, Origin.EXPECTED)


def two_tasks(many: int, few: int) -> list[Example]:
    return [row(n, "Sort the request." if n < many else "Write a summary!") for n in range(many + few)]


@pytest.mark.parametrize(
    ("sizes", "temperature", "found"),
    [
        ([900, 100], 1.0, [900, 100]),
        ([900, 100], 2.0, [750, 250]),  # 30 to 10
        ([500, 500], 3.0, [500, 500]),
        ([900, 100], 100.0, [600, 400]),  # alike but for the bound on repeats
        ([1000, 10, 10], 100.0, [940, 40, 40]),
        ([7], 5.0, [7]),
        ([], 5.0, []),
    ],
)
def test_shares_follow_the_formula_and_the_bound(sizes: list[int], temperature: float, found: list[int]) -> None:
    assert quotas(sizes, temperature) == found


@calm
@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.floats(1.0, 100.0))
def test_an_epoch_is_as_long_and_no_task_is_left_out_or_learned_by_heart(sizes: list[int], temperature: float) -> None:
    found = quotas(sizes, temperature)
    assert sum(found) == sum(sizes)
    assert all(1 <= quota <= MOST_REPEATS * size for quota, size in zip(found, sizes, strict=True))
    by_size = [quota for _, quota in sorted(zip(sizes, found, strict=True))]
    assert all(later >= earlier - 1 for earlier, later in pairwise(by_size))


def test_without_need_every_row_comes_once() -> None:
    assert draw_of(two_tasks(9, 1), 1.0, seed=0) is None
    assert draw_of(two_tasks(10, 0), 5.0, seed=0) is None
    assert draw_of([row(1, None), row(2, None)], 5.0, seed=0) is None


def test_small_tasks_come_oftener_and_every_row_of_a_task_equally_often() -> None:
    draw = draw_of(two_tasks(90, 10), 2.0, seed=3)
    assert draw is not None
    epochs = [draw(epoch) for epoch in range(18)]
    assert [draw(epoch) for epoch in range(18)] == epochs, "a training that goes on from its checkpoint needs the same"
    assert all(len(epoch) == 100 for epoch in epochs)
    assert all(sum(place >= 90 for place in epoch) == 25 for epoch in epochs)
    times = Counter(place for epoch in epochs for place in epoch)
    assert {times[place] for place in range(90)} == {15}  # 75 of 90 in each of 18 epochs
    assert {times[place] for place in range(90, 100)} == {45}
    assert epochs[0] != epochs[1]
    other = draw_of(two_tasks(90, 10), 2.0, seed=4)
    assert other is not None
    assert other(0) != epochs[0]


def test_batches_hold_the_drawn_rows_and_without_any_the_order_is_what_it_was() -> None:
    lengths = [5, 3, 9, 1]
    drawn = batches(lengths, 2, seed=0, epoch=0, rows=[2, 2, 0, 2])
    assert sorted(place for batch in drawn for place in batch) == [0, 2, 2, 2]
    assert batches(lengths, 2, seed=0, epoch=0) == batches(lengths, 2, seed=0, epoch=0, rows=range(4))


def test_the_record_counts_and_holds_no_text() -> None:
    told = told_tasks(two_tasks(90, 10), 2.0)
    assert sorted((one["rows"], one["drawn"]) for one in told) == [(10, 25), (90, 75)]
    assert "sort" not in str(told).lower()
    assert told_tasks([row(1, "A"), row(2, "a ")], 2.0)[0]["rows"] == 2, "case and spaces make no other task"
