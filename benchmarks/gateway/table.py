"""Figures against their targets and against the peers', as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = "Trimtab"

_DECIMALS = {"ms": 3, "µs": 1, "/s": 0, "MiB": 1, "x": 3, "%": 1}


@dataclass(frozen=True, slots=True)
class Bound:
    """A target: the figure is at most, or at least, the limit."""

    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def missed_by(self, value: float) -> float:
        """How far the figure is beyond the limit, as a share of it; 0 where it holds."""
        return 0.0 if self.holds(value) else abs(value - self.limit) / self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """`others` are the same figure of whoever else was measured, or the reason why it is missing."""

    what: str
    unit: str
    ours: float
    bound: Bound | None = None
    others: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the benchmark found: rows, and what a reader must know beside them."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()


def markdown(rows: Sequence[Row]) -> str:
    """A line a row; behind another's figure stands ours divided by it."""
    names = list(dict.fromkeys(name for row in rows for name in row.others))
    lines = [["", "target", OURS, "holds", *names]]
    lines += [[row.what, _target(row), shown(row.ours, row.unit), _verdict(row), *_others(row, names)] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def shown(value: float, unit: str) -> str:
    """A figure with its unit: `2,789 /s`, `0.412 ms`, `0.97x`."""
    number = f"{value:,.{_DECIMALS[unit]}f}"
    return number + unit if unit in {"x", "%"} else f"{number} {unit}"


def _target(row: Row) -> str:
    if row.bound is None:
        return ""
    return f"{'≥' if row.bound.at_least else '≤'} {shown(row.bound.limit, row.unit)}"


def _verdict(row: Row) -> str:
    if row.bound is None:
        return ""
    return "yes" if row.bound.holds(row.ours) else f"no, by {row.bound.missed_by(row.ours):.0%}"


def _others(row: Row, names: Sequence[str]) -> list[str]:
    return [_other(row, row.others[name]) if name in row.others else "" for name in names]


def _other(row: Row, value: float | str) -> str:
    if isinstance(value, str):
        return value
    ratio = f" ({row.ours / value:.2f}x)" if value > 0 else ""
    return shown(value, row.unit) + ratio
