"""When the demo says that quality recovered: its exit code."""

from __future__ import annotations

import pytest

from demo.story import Outcome


def outcome(before: float, after: float, *, judged: int = 400, failed: int = 0) -> Outcome:
    return Outcome(
        before=before, trough=0.4, after=after, judged=judged, cycles=1, seconds={}, requests={}, sent=1000,
        failed=failed, slowest_swap_s=0.1, slowest_s=0.1, errors=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "recovered"),
    [
        (0.95, 0.97, True),
        (0.97, 0.92, True),
        (0.97, 0.91, True),  # a point below, of which chance has three
        (0.97, 0.88, False),
        (0.97, 0.4, False),
        (1.0, 1.0, True),
    ],
)
def test_a_loss_of_five_points_is_allowed_and_chance_is_not_taken_for_loss(
    before: float, after: float, recovered: bool
) -> None:
    assert outcome(before, after).recovered is recovered


def test_more_requests_leave_less_to_chance() -> None:
    assert outcome(0.97, 0.91).noise == pytest.approx(0.0327, abs=1e-4)
    assert not outcome(0.97, 0.91, judged=40_000).recovered


def test_a_failed_request_is_no_recovery() -> None:
    assert not outcome(0.95, 0.97, failed=1).recovered
