"""Writes grafana/trimtab.json (`python -m dashboards.build`); the result is committed, a test fails when it differs."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import BLUE, DATASOURCE, RED, annotation
from dashboards.promql import ALIAS
from dashboards.rows import rows

OUTPUT = Path(__file__).parent / "grafana" / "trimtab.json"


def render() -> str:
    """The dashboard as Grafana imports it: the same text on every run."""
    dashboard = (
        builders.Dashboard("Trimtab")
        .uid("trimtab")
        .description("Serving, quality, drift and the loop that answers it. Alerts link to docs/runbook.md.")
        .tags(["trimtab", "llm"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            builders.QueryVariable("alias")
            .label("Alias")
            .query("label_values(trimtab_champion_info, alias)")
            .datasource(DATASOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(models.VariableOption(text="All", value="$__all", selected=True))
        )
        .annotation(_event("Promotions", "trimtab_promotions_total", BLUE, "{{alias}} promoted"))
        .annotation(_event("Rollbacks", "trimtab_rollbacks_total", RED, "{{alias}} rolled back"))
    )
    for title, panels in rows().items():
        dashboard.with_row(builders.Row(title))
        for panel in panels:
            dashboard.with_panel(panel)
    text = json.dumps(dashboard.build(), cls=JSONEncoder, indent=2, ensure_ascii=False)
    return _numbered(text)


def _event(name: str, counter: str, color: str, title: str) -> builders.AnnotationQuery:
    return annotation(name, f"sum by (alias) (increase({counter}{{{ALIAS}}}[30s])) > 0", color, title)


def _numbered(text: str) -> str:
    """Panels get ids in reading order, so that links to a panel survive a rebuild."""
    dashboard = json.loads(text)
    for number, panel in enumerate(dashboard["panels"], 1):
        panel["id"] = number
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(render(), "utf-8")
