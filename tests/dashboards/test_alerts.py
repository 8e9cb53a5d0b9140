"""Every alert fires on the series that it is for and stays silent on those next to it: `promtool test rules`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dashboards.alert_cases import CASES, Case, Series

ROOT = Path(__file__).parents[2]
RULES = ROOT / "dashboards" / "rules.yaml"
ALERTS = ROOT / "dashboards" / "alerts.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"


def _rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text("utf-8"))["groups"] for rule in group["rules"]]


ALERT_RULES = {rule["alert"]: rule for rule in _rules(ALERTS)}


def _promtool(*arguments: str | Path) -> None:
    result = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules() -> None:
    _promtool("check", "rules", RULES, ALERTS)


def test_every_alert_has_a_case() -> None:
    assert sorted(case.alert for case in CASES) == sorted(ALERT_RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires_and_stays_silent(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    tests = [_test(case, case.fires, [_expected(case)]), _test(case, case.silent, [])]
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES), str(ALERTS)], "tests": tests}), "utf-8")
    _promtool("test", "rules", file)


def test_promtool_would_notice_a_wrong_expectation(tmp_path: Path) -> None:
    case = CASES[0]
    file = tmp_path / "test.yaml"
    wrong = {"rule_files": [str(RULES), str(ALERTS)], "tests": [_test(case, case.fires, [])]}
    file.write_text(yaml.safe_dump(wrong), "utf-8")
    with pytest.raises(AssertionError, match="FAILED"):
        _promtool("test", "rules", file)


@pytest.mark.parametrize("name", ALERT_RULES)
def test_alert_tells_what_to_do(name: str) -> None:
    rule = ALERT_RULES[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys()
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_runbook_has_one_section_per_alert_and_no_other() -> None:
    sections = re.findall(r"^### (Trimtab\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sections == list(ALERT_RULES), "the runbook's sections follow alerts.yaml, one each, in its order"


def test_recording_rules_are_named_by_level_metric_operations() -> None:
    for rule in _rules(RULES):
        assert re.fullmatch(r"[a-z_]+:trimtab_[a-z0-9_]+:[a-z0-9_]+", rule["record"]), rule["record"]


def _test(case: Case, series: Series, expected: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{case.at_min}m", "alertname": case.alert, "exp_alerts": expected}],
    }


def _expected(case: Case) -> Mapping[str, Any]:
    written = ALERT_RULES[case.alert]["annotations"]
    return {
        "exp_labels": {"severity": case.severity, **case.labels},
        "exp_annotations": {**written, "summary": case.summary},
    }
