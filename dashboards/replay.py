"""Every panel's queries as Grafana would send them, so that a test can ask a real Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

DEFAULTS: Mapping[str, str] = {"alias": ".*", "__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")


def panel_queries(dashboard: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query of every panel, top to bottom, with the variables filled in.

    `variables` overrides DEFAULTS: names as in the dashboard, without the dollar sign.
    Raises KeyError for a variable that neither knows.
    """
    values = {**DEFAULTS, **(variables or {})}
    return [
        (panel["title"], _fill(target["expr"], values))
        for panel in _panels(dashboard)
        for target in panel.get("targets", [])
    ]


def annotation_queries(dashboard: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, PromQL) of the dashboard's own annotations."""
    found = dashboard.get("annotations", {}).get("list", [])
    return [(entry["name"], _fill(entry["expr"], DEFAULTS)) for entry in found if "expr" in entry]


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in dashboard.get("panels", []):
        if panel["type"] == "row":
            yield from panel.get("panels") or []
        else:
            yield panel


def _fill(expr: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], expr)
