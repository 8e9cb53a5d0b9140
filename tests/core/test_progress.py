"""A training's progress in one line: all that is known, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from service.core.progress import lasting, told, told_of_cycle

DETAIL = {
    "step": 40, "steps": 320, "eta_s": 41.6, "loss": 0.8123, "heldout_loss": 0.9, "heldout_exact": 0.5,
    "tokens_per_s": 5400, "curve": {"train": [[1, 2.0]]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        (DETAIL, "step 40 of 320, loss 0.812 (held out 0.9), 5,400 tokens/s, about 42 s left"),
        ({"step": 1, "steps": 2, "loss": 3.0}, "step 1 of 2, loss 3"),
        ({"doing": "loading libraries"}, "loading libraries"),
        ({"doing": "trial 2", "loss": 1.5}, "trial 2, loss 1.5"),
        ({"loss": None, "heldout_loss": 1.0, "step": 3, "eta_s": "soon"}, ""),
        ({}, ""),
    ],
)
def test_it_tells_what_is_known(detail: dict[str, Any], line: str) -> None:
    assert told(detail) == line


@pytest.mark.parametrize(
    ("cycle", "line"),
    [
        (
            {"state": "training", "job": {"status": "running", "phase": "training", "progress": 0.3, "detail": DETAIL}},
            "training, 30% done: step 40 of 320, loss 0.812 (held out 0.9), 5,400 tokens/s, about 42 s left",
        ),
        ({"state": "training", "job": {"status": "running", "progress": None}}, "starting, 0% done"),
        ({"state": "training", "job": {"status": "queued"}}, "training"),
        (
            {"state": "open", "job": None, "evidence": {"examples": {"labelled": 12, "needed": 200}}},
            "open: 12 of 200 labelled requests",
        ),
        ({"state": "open", "job": None}, "open"),
    ],
)
def test_a_cycle_says_where_it_stands(cycle: dict[str, Any], line: str) -> None:
    assert told_of_cycle(cycle) == line


def test_a_time_is_told_as_exactly_as_an_estimate_deserves() -> None:
    assert [lasting(seconds) for seconds in (0.4, 89, 91, 600, 5399, 9000)] == [
        "0 s", "89 s", "2 min", "10 min", "90 min", "2.5 h",
    ]  # fmt: skip
