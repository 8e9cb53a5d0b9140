"""The table of a benchmark: targets, ratios and what is missing."""

from __future__ import annotations

import pytest

from benchmarks.gateway.table import Bound, Row, markdown, shown


@pytest.mark.parametrize(
    ("bound", "value", "missed_by"),
    [
        (Bound(0.4), 0.4, 0.0),
        (Bound(0.4), 0.5, 0.25),
        (Bound(0.4), -0.1, 0.0),
        (Bound(3000, at_least=True), 3000, 0.0),
        (Bound(3000, at_least=True), 2400, 0.2),
    ],
)
def test_a_bound_says_how_far_a_figure_is_beyond_it(bound: Bound, value: float, missed_by: float) -> None:
    assert bound.holds(value) == (missed_by == 0.0)
    assert bound.missed_by(value) == pytest.approx(missed_by)


def test_a_row_shows_target_verdict_and_ratio() -> None:
    rows = [
        Row("added", "ms", 0.5, Bound(0.4), {"nginx": 0.05, "LiteLLM": 12.5}),
        Row("requests", "/s", 3100, Bound(3000, at_least=True), {"direct": 12400.0, "LiteLLM": "not measured"}),
        Row("note only", "x", 0.9),
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(rows).splitlines()]
    assert cells[0] == ["", "target", "Trimtab", "holds", "nginx", "LiteLLM", "direct"]
    assert cells[2] == ["added", "≤ 0.400 ms", "0.500 ms", "no, by 25%", "0.050 ms (10.00x)", "12.500 ms (0.04x)", ""]
    assert cells[3] == ["requests", "≥ 3,000 /s", "3,100 /s", "yes", "", "not measured", "12,400 /s (0.25x)"]
    assert cells[4] == ["note only", "", "0.900x", "", "", "", ""]


def test_no_ratio_to_a_figure_that_is_not_above_zero() -> None:
    assert "(" not in markdown([Row("added", "ms", 0.2, None, {"nginx": -0.01, "other": 0.0})])


def test_all_lines_of_a_table_are_as_wide() -> None:
    table = markdown([Row("a", "ms", 1.0, Bound(2.0), {"x": "not measured"}), Row("longer name", "µs", 12345.6)])
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(2789.4, "/s", "2,789 /s"), (0.4121, "ms", "0.412 ms"), (0.9666, "x", "0.967x")]
)
def test_figures_are_shown_with_their_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text
