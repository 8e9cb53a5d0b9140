"""Reading what a job told, of which any part may be missing, and writing it as a card has it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from service.control.document import Table

Facts = Mapping[str, Any]

SLICES = (
    ("new", "held out, new traffic"),
    ("replay", "held out, replay"),
    ("all", "held out, all"),
    ("golden", "golden set"),
)


def facts_table(rows: Sequence[tuple[str, str]]) -> Table:
    return Table(("", ""), rows)


def part_of(value: Any, *path: str) -> Facts:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def slice_of(evaluation: Facts, key: str) -> Facts:
    return part_of(evaluation, "golden") if key == "golden" else part_of(evaluation, "heldout", key)


def rows_of(value: Facts, key: str) -> list[Facts]:
    found = value.get(key)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, Sequence) else []


def flattened(value: Facts, before: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested facts with the way to them; lists stay whole."""
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        found += flattened(item, f"{before}{key} ") if isinstance(item, Mapping) else [(f"{before}{key}", item)]
    return found


def points_of(curve: Any) -> list[tuple[float, float]]:
    rows = curve if isinstance(curve, Sequence) and not isinstance(curve, str) else ()
    return [(float(p[0]), float(p[1])) for p in rows if is_pair(p)]


def is_pair(value: Any) -> TypeGuard[Sequence[float]]:
    is_two = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return is_two and all(isinstance(v, int | float) and math.isfinite(v) for v in value)


def as_words(key: str) -> str:
    return key.replace("_", " ")


def as_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(as_value, value))
    return str(value)


def as_share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "–"


def as_delta(value: Any) -> str:
    return f"{100 * value:+.1f} points" if isinstance(value, int | float) else "–"


def as_interval(value: Any) -> str:
    return f"{100 * value[0]:+.1f} to {100 * value[1]:+.1f} points" if is_pair(value) else "–"
