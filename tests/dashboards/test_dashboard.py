"""The committed dashboard is the generated one, tells what to look at, and every query finds data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.build import OUTPUT, render
from dashboards.replay import annotation_queries, panel_queries
from tests.dashboards.prometheus import query, running_prometheus, wait_scraped
from tests.dashboards.synthetic import serving

DASHBOARD: dict[str, Any] = json.loads(OUTPUT.read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
FAST = {"__rate_interval": "10s", "__range": "30s"}
_PATIENCE_S = 30.0


def test_committed_dashboard_is_the_generated_one() -> None:
    assert OUTPUT.read_text("utf-8") == render(), "run `python -m dashboards.build` and commit the result"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_is_complete(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"


def test_ids_and_titles_are_unique() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_alias_is_filled_in_and_an_unknown_variable_is_an_error() -> None:
    exprs = [expr for _, expr in panel_queries(DASHBOARD, {"alias": "support"})]
    assert any('alias=~"support"' in expr for expr in exprs)
    assert not any("$" in expr for expr in exprs)
    with pytest.raises(KeyError, match="nobody"):
        panel_queries({"panels": [{"type": "stat", "title": "t", "targets": [{"expr": "up{a=~'$nobody'}"}]}]})


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    with serving() as address, running_prometheus({"trimtab": address}) as url:
        wait_scraped(url, {"trimtab": address}, times=4)
        yield url


QUERIES = [*panel_queries(DASHBOARD, FAST), *annotation_queries(DASHBOARD)]


@pytest.mark.parametrize(("title", "expr"), QUERIES, ids=[f"{n} {title}" for n, (title, _) in enumerate(QUERIES)])
def test_query_finds_data(prometheus: str, title: str, expr: str) -> None:
    """A number that is neither NaN nor the zero that stands for nothing counted yet."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        values = [float(entry["value"][1]) for entry in query(prometheus, expr)]
        if any(not math.isnan(value) and value != 0 for value in values):
            return
        assert time.monotonic() < deadline, f"{title}: {expr} gives {values}"
        time.sleep(0.2)
