"""Drawings as inline SVG: lines over a shared axis, and shares against shares. Pure; `document` has the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Series = tuple[str, Sequence[tuple[float, float]]]
"""A name and its points (x, y)."""

_W, _H, _LEFT, _BOTTOM, _TOP, _RIGHT = 520, 240, 48, 34, 22, 12
_KINDS = ("one", "two")


def lines(series: Sequence[Series], *, x_name: str, y_name: str) -> str | None:
    """Up to two lines over shared axes; None where no series has two points with numbers."""
    clean = [(name, [p for p in points if all(map(math.isfinite, p))]) for name, points in series]
    clean = [(name, points) for name, points in clean if len(points) > 1]
    if not clean:
        return None
    xs, ys = zip(*(point for _, points in clean for point in points), strict=True)
    return _chart(clean, (min(xs), max(xs)), (min(0.0, *ys), max(ys)), x_name, y_name, dots=False)


def against(series: Sequence[Series], *, x_name: str, y_name: str) -> str | None:
    """Shares (0..1) against shares with the diagonal on which they would be equal; None without a point."""
    clean = [(name, [p for p in points if all(map(math.isfinite, p))]) for name, points in series]
    clean = [(name, points) for name, points in clean if points]
    return _chart(clean, (0.0, 1.0), (0.0, 1.0), x_name, y_name, dots=True) if clean else None


def _chart(
    series: Sequence[Series],
    xs: tuple[float, float],
    ys: tuple[float, float],
    x_name: str,
    y_name: str,
    *,
    dots: bool,
) -> str:
    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / ((xs[1] - xs[0]) or 1.0)
        up = (y - ys[0]) / ((ys[1] - ys[0]) or 1.0)
        return round(_LEFT + across * (_W - _LEFT - _RIGHT), 1), round(_H - _BOTTOM - up * (_H - _TOP - _BOTTOM), 1)

    left, floor = place(xs[0], ys[0])
    right, top = place(xs[1], ys[1])
    parts = [f'<path class="axis" d="M{left} {top}V{floor}H{right}"/>']
    if dots:
        parts.append(f'<path class="guide" stroke-dasharray="4" d="M{left} {floor}L{right} {top}"/>')
    for value, end in ((xs[0], "start"), (xs[1], "end")):
        parts.append(f'<text x="{place(value, ys[0])[0]}" y="{floor + 14}" text-anchor="{end}">{_number(value)}</text>')
    for value in ys:
        parts.append(f'<text x="{left - 6}" y="{place(xs[0], value)[1] + 4}" text-anchor="end">{_number(value)}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{floor + 28}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="{left}" y="14">{escape(y_name)}</text>')
    for row, (kind, (name, points)) in enumerate(zip(_KINDS, series, strict=False)):
        placed = [place(*point) for point in points]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x},{y}" for x, y in placed)}"/>')
        if dots:
            parts += [f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="3"/>' for x, y in placed]
        key = right - 110
        parts.append(f'<path class="{kind}" d="M{key} {10 + 14 * row}h16"/>')
        parts.append(f'<text x="{key + 20}" y="{14 + 14 * row}">{escape(name)}</text>')
    label = escape(f"{y_name} over {x_name}: {', '.join(name for name, _ in series)}")
    return f'<svg viewBox="0 0 {_W} {_H}" width="{_W}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _number(value: float) -> str:
    return f"{value:.3g}"
