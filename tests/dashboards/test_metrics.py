"""Names and units follow Prometheus's conventions, and every metric is both declared and looked at."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest

from dashboards.promql import CYCLE_STATES, VERDICTS
from dashboards.replay import annotation_queries, panel_queries
from service.control.gauges import VERDICTS as PUBLISHED_VERDICTS
from service.core.cycle import TERMINAL, CycleState
from tests.dashboards.synthetic import all_metrics

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
_ENDINGS = ("", "_total", "_bucket", "_sum", "_count")
_NAME = re.compile(r"(?<![\w:])trimtab_\w+(?![\w:]*:)")


def test_promtool_has_no_complaint() -> None:
    registry, _ = all_metrics()
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_promtool_would_complain() -> None:
    bad = b"# HELP trimtab_wait_ms Wait.\n# TYPE trimtab_wait_ms counter\ntrimtab_wait_ms 1\n"
    result = subprocess.run(["promtool", "check", "metrics"], input=bad, capture_output=True, timeout=60)
    assert result.returncode == 3
    assert b"_total" in result.stderr


def test_panels_and_rules_use_declared_metrics_only() -> None:
    assert _used() <= _exposed()


def test_every_metric_is_looked_at() -> None:
    _, metrics = all_metrics()
    used = _used()
    unseen = {m._name for m in metrics if used.isdisjoint(m._name + end for end in _ENDINGS)}
    assert unseen == set()


def test_recorded_series_that_alerts_read_are_recorded() -> None:
    recorded = {rule["record"] for rule in _rules("rules.yaml")}
    read = set(re.findall(r"\b[a-z_]+:trimtab_\w+:\w+", " ".join(rule["expr"] for rule in _rules("alerts.yaml"))))
    assert read <= recorded


def test_states_and_verdicts_are_those_of_the_core() -> None:
    assert set(CYCLE_STATES) == set(CycleState) - TERMINAL
    assert VERDICTS == PUBLISHED_VERDICTS


def _exposed() -> set[str]:
    registry, _ = all_metrics()
    return {sample.name for family in registry.collect() for sample in family.samples}


def _used() -> set[str]:
    dashboard = json.loads((DASHBOARDS / "grafana" / "trimtab.json").read_text("utf-8"))
    exprs = [expr for _, expr in [*panel_queries(dashboard), *annotation_queries(dashboard)]]
    exprs += [rule["expr"] for name in ("rules.yaml", "alerts.yaml") for rule in _rules(name)]
    return {name for expr in exprs for name in _NAME.findall(expr)}


def _rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((DASHBOARDS / name).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]
