"""The demo on the terminal: stages, served quality, drift and request rate, live; a report at the end."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.player import Player, between, quality
from demo.story import Outcome, Plot, Progress, Stage

_SPARKS = "▁▂▃▄▅▆▇█"
_RECENT_S = 5.0


def screen(plot: Plot, player: Player, progress: Progress) -> RenderableType:
    """One frame."""
    return Panel(
        Group(_figures(player, progress), Text(), _stages(progress), Text(), _cycle(progress)),
        title=f"[bold]trimtab[/bold] a day at the support desk, alias [cyan]{plot.alias}[/cyan]",
        border_style="cyan",
        padding=(1, 2),
    )


def report(outcome: Outcome, url: str) -> RenderableType:
    """What happened, in figures."""
    figures = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    verdict = "[green]recovered[/green]" if outcome.recovered else "[red]not recovered[/red]"
    figures.add_row("quality before the drift", f"{outcome.before:.1%}")
    figures.add_row("at the trough", f"{outcome.trough:.1%}")
    figures.add_row("after recovery", f"{outcome.after:.1%} (± {outcome.noise:.1%} beside before)  {verdict}")
    figures.add_row("cycles until one was promoted", str(outcome.cycles))
    failed = f"[red]{outcome.failed}[/red]" if outcome.failed else "[green]0[/green]"
    figures.add_row("requests sent / failed", f"{outcome.sent} / {failed}")
    figures.add_row("slowest request around the swap", f"{outcome.slowest_swap_s * 1000:.0f} ms")
    figures.add_row("slowest request of all", f"{outcome.slowest_s * 1000:.0f} ms")
    stages = Table("since the drift began", "seconds", "requests", box=None, padding=(0, 2, 0, 0))
    for stage, seconds in outcome.seconds.items():
        stages.add_row(stage, f"{seconds:.1f}", str(outcome.requests[stage]))
    errors = [Text(f"failed: {error}", style="red") for error in outcome.errors]
    return Panel(
        Group(figures, Text(), stages, *errors, Text(f"\nconsole: {url}/console")), title="report", padding=(1, 2)
    )


def _figures(player: Player, progress: Progress) -> Table:
    now = time.monotonic()
    recent = between(player.answered, now - _RECENT_S, now)
    answered = player.answered
    table = Table.grid(padding=(0, 3))
    failed = sum(bool(a.error) for a in answered)
    table.add_row("served quality", _sparkline(answered), _percent(quality(answered[-50:])))
    drift = progress.drift
    table.add_row("drift score", Text(str(drift.get("verdict", "no verdict yet"))), _drift_score(drift))
    table.add_row(
        "requests",
        f"{len(recent) / _RECENT_S:.0f}/s",
        f"{len(answered)} sent, [{'red' if failed else 'green'}]{failed} failed",
    )
    table.add_row("serving", str(progress.alias.get("champion", "")), f"novel traffic {player.novel_ratio:.0%}")
    return table


def _stages(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    start = progress.onset_at or progress.started_at
    for stage in Stage:
        ended = progress.ended.get(stage)
        if ended is not None:
            since = f"{ended - (progress.started_at if stage is Stage.CALM else start):6.1f} s"
            table.add_row("[green]✔[/green]", stage, since)
        elif stage is progress.stage:
            table.add_row("[yellow]▶[/yellow]", f"[bold]{stage}[/bold]", f"{time.monotonic() - start:6.1f} s")
        else:
            table.add_row("[dim]·[/dim]", f"[dim]{stage}[/dim]", "")
    return table


def _cycle(progress: Progress) -> RenderableType:
    cycle = progress.cycle
    if not cycle:
        return Text("no cycle yet", style="dim")
    lines: list[RenderableType] = [Text(str(cycle.get("reason", "")), style="dim")]
    job = cycle.get("job") or {}
    if job.get("status") == "running":
        loss = (job.get("detail") or {}).get("loss")
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            str(job.get("phase") or ""),
            ProgressBar(total=1.0, completed=float(job.get("progress") or 0.0), width=30),
            f"loss {loss:.3f}" if isinstance(loss, float) else "",
        )
        lines.append(grid)
    gathered: dict[str, Any] = (cycle.get("evidence") or {}).get("examples") or {}
    if gathered and cycle.get("state") == "open":
        lines.append(Text(f"labelled since the drift: {gathered['labelled']} of {gathered['needed']}"))
    shadow: dict[str, Any] = (cycle.get("evidence") or {}).get("shadow") or {}
    if shadow:
        lines.append(Text(f"shadow: {shadow.get('reason', '')}"))
    return Group(*lines)


def _sparkline(answered: list[Any], width: int = 40, size: int = 25) -> str:
    windows = [answered[i : i + size] for i in range(0, len(answered), size)][-width:]
    values = [quality(w) for w in windows]
    return "".join(_SPARKS[min(7, int(v * 8))] for v in values if v == v)


def _drift_score(check: dict[str, Any]) -> str:
    ratios = [
        s["score"] / s["threshold"]
        for s in check.get("scores", [])
        if s.get("threshold") and s.get("score") is not None
    ]
    return f"{max(ratios):.2f} of its threshold" if ratios else ""


def _percent(value: float) -> str:
    return f"{value:.0%}" if value == value else ""


def plain_line(progress: Progress, player: Player) -> str:
    """One line for logs, where there is no terminal."""
    shadow = (progress.cycle.get("evidence") or {}).get("shadow") or {}
    return (
        f"{time.monotonic() - progress.started_at:6.1f} s  {progress.stage or 'done'!s:18} "
        f"quality {_percent(quality(player.answered[-50:])):>4}  sent {len(player.answered):5}  "
        f"failed {sum(bool(a.error) for a in player.answered)}  drift {progress.drift.get('verdict', '-')} "
        f"{_drift_score(progress.drift)}  cycle {progress.cycle.get('state', '-')} {shadow.get('pairs', '')}"
    )


def show_report(console: Console, outcome: Outcome, url: str) -> None:
    console.print(report(outcome, url))
