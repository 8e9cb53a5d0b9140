"""Rows that are learned rest for an epoch, no longer, and are told of with the loss that they had."""

from __future__ import annotations

import math

import pytest

from retrain_jobs.recipes.rests import Rests


def test_a_learned_row_rests_for_one_epoch_and_then_has_its_turn() -> None:
    rests = Rests(below=0.1)
    turns = []
    for epoch in range(6):
        awake = rests.awake([4, 7], epoch)
        turns.append(awake)
        rests.computed(awake, [0.01 if row == 4 else 0.5 for row in awake], epoch)
    assert turns == [[4, 7], [7], [4, 7], [7], [4, 7], [7]]


def test_a_row_that_was_forgotten_meanwhile_has_every_turn_again() -> None:
    rests = Rests(below=0.1)
    rests.computed([3], [0.05], 0)
    assert rests.awake([3], 1) == []
    rests.computed(rests.awake([3], 2), [0.4], 2)
    assert rests.awake([3], 3) == [3]


def test_a_row_that_is_drawn_twice_in_an_epoch_is_learned_once() -> None:
    rests = Rests(below=0.1)
    assert rests.awake([1, 1], 0) == [1, 1]
    rests.computed([1, 1], [0.2, 0.05], 0)
    assert rests.awake([1], 0) == []


@pytest.mark.parametrize(("below", "loss"), [(0.0, 0.0), (0.1, 0.1), (0.1, math.nan), (0.1, math.inf)])
def test_who_has_not_learned_does_not_rest(below: float, loss: float) -> None:
    rests = Rests(below)
    rests.computed([1], [loss], 0)
    assert rests.awake([1], 1) == [1]


def test_the_batchs_loss_is_that_of_all_its_rows() -> None:
    rests = Rests(below=0.1)
    rests.computed([1, 2], [0.02, 0.4], 0)
    rests.computed(rests.awake([1, 2], 1), [0.2], 1)
    assert rests.mean([1, 2]) == pytest.approx(0.11)
    rests.computed([2], [math.nan], 2)
    assert math.isnan(rests.mean([1, 2]))


def test_it_goes_on_where_it_was() -> None:
    rests, later = Rests(below=0.1), Rests(below=0.1)
    rests.computed([1, 2], [0.02, 0.4], 3)
    later.load(rests.state())
    assert later == rests
    assert later.awake([1, 2], 4) == [2]
