"""A curve in few points is still that curve."""

from __future__ import annotations

import pytest

from retrain_jobs.recipes.watch import Curve, thinned


def test_few_points_stay_and_many_become_means_of_neighbours() -> None:
    assert thinned([]) == []
    assert thinned([(1, 2.0), (2, 1.0)]) == [(1, 2.0), (2, 1.0)]
    points = [(step, 1.0 / step) for step in range(1, 1001)]
    few = thinned(points, 50)
    assert len(few) == 50
    assert few[0] == (20, pytest.approx(sum(1.0 / n for n in range(1, 21)) / 20, abs=1e-4))
    assert few[-1][0] == 1000
    assert [loss for _, loss in few] == sorted((loss for _, loss in few), reverse=True)


def test_both_losses_are_drawn() -> None:
    curve = Curve(train=[(1, 2.0)], heldout=[(1, 3.0)])
    assert curve.drawn() == {"train": [(1, 2.0)], "heldout": [(1, 3.0)]}
