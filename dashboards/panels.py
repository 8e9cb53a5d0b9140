"""Panels in one style: a title, what to look at, a unit, queries. The SDK's builders are touched only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = kinds.DataSourceRef("prometheus", "${datasource}")
GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#808080"


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Steps:
    """Colours by value: `low` below the first bound, then each bound's own."""

    low: str
    bounds: tuple[tuple[float, str], ...] = ()

    def build(self) -> builders.ThresholdsConfig:
        steps = [models.Threshold(None, self.low), *(models.Threshold(at, color) for at, color in self.bounds)]
        return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def chart(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    width: int = 8,
    ceiling: float | None = None,
    limit: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time; `limit` draws a dashed red line at the value above which something is wrong."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .height(8)
        .span(width)
        .min(0)
        .datasource(DATASOURCE)
        .line_width(2)
        .fill_opacity(30 if stacked else 8)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if ceiling is not None:
        panel.max(ceiling)
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if limit is not None:
        panel.thresholds(Steps("transparent", ((limit, RED),)).build())
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    return panel.targets(_targets(queries))


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    steps: Steps,
    *,
    width: int = 3,
    decimals: int | None = None,
    by_name: bool = False,
    mappings: Mapping[int, tuple[str, str]] | None = None,
) -> stat.Panel:
    """The value now, coloured; `by_name` shows the series' name instead of its value."""
    text = kinds.BigValueTextMode.NAME if by_name else kinds.BigValueTextMode.AUTO
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .height(5)
        .span(width)
        .datasource(DATASOURCE)
        .thresholds(steps.build())
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE if by_name or mappings else kinds.BigValueGraphMode.AREA)
        .text_mode(text)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(_targets([query], instant=by_name))
    )
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        panel.mappings(_value_maps(mappings))
    return panel


def timeline(
    title: str, description: str, query: Query, names: Mapping[int, tuple[str, str]], *, width: int = 12
) -> statetimeline.Panel:
    """One band per series, coloured by what its number means: number → (text, colour)."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .unit("none")
        .height(7)
        .span(width)
        .datasource(DATASOURCE)
        .merge_values(True)
        .show_value(kinds.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(80)
        .legend(common.VizLegendOptions().show_legend(False).placement(kinds.LegendPlacement.BOTTOM))
        .mappings(_value_maps(names))
        .targets(_targets([query]))
    )


def annotation(name: str, expr: str, color: str, title: str) -> builders.AnnotationQuery:
    """A mark on every panel wherever `expr` returns something."""
    query = builders.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(color)
    return query.expr(expr).title_format(title).step("15s")


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[Any]:
    targets = []
    for ref, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(DATASOURCE)
        targets.append(target.instant() if instant else target.range())
    return targets


def _value_maps(names: Mapping[int, tuple[str, str]]) -> list[Any]:
    options = {
        str(value): models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(names.items())
    }
    return [models.ValueMap(options)]
