"""`python -m benchmarks.loop [--row recover|stitched|latency|flips]`, or `make bench-loop`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.loop.flips import Flips, play_flips
from benchmarks.loop.recovery import LATENCY, Recovery, play_trimtab
from benchmarks.loop.stitched import play_stitched

ROWS = ("recover", "stitched", "latency", "flips")
P99_TARGET = 1.3


def tell_recovery(console: Console, name: str, found: Recovery, target: str) -> None:
    table = Table("until", "seconds since the onset", "of which this stage", "requests since the onset", title=name)
    before = 0.0
    for stage, seconds in found.seconds.items():
        table.add_row(stage, f"{seconds:.1f}", f"{seconds - before:.1f}", str(found.requests[stage]))
        before = seconds
    if found.recovered_s is None:
        table.add_row("quality ≥ 95% of before", "not within the time", "", "")
    else:
        told = f"{found.recovered_s - before:.1f}"
        table.add_row(
            f"quality ≥ 95% of before{target}", f"{found.recovered_s:.1f}", told, str(found.recovered_requests)
        )
    console.print(table)
    console.print(
        f"{found.before:.1%} before, {found.trough:.1%} at the trough; {found.sent} sent, {found.failed} failed"
    )


def tell_latency(console: Console, found: Recovery) -> None:
    table = Table("clients' p99 latency", "requests", "ms", f"of idle (target: training and shadow ≤ {P99_TARGET}x)")
    for name, tail in found.tails.items():
        told = f"{tail.ratio:.2f}x ({tail.low:.2f} to {tail.high:.2f})"
        table.add_row(name, str(tail.requests), f"{tail.p99_s * 1e3:.0f}", told)
    console.print(table)


def tell_flips(console: Console, found: Flips) -> None:
    table = Table("from the call until the last of three gateways serves it", "median", "longest", "target")
    for name, seconds in (
        ("promotion", found.promoted),
        ("rollback", found.rolled_back),
        ("rollback to an adapter that the engine had lost", found.unloaded),
    ):
        table.add_row(name, f"{np.median(seconds):.2f} s", f"{max(seconds):.2f} s", "≤ 1 s")
    console.print(table)
    console.print(f"failed requests: {found.failed}; while the adapter was lost: {found.failed_unloaded}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--row", choices=ROWS, action="append", help="may be given several times; default: all")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which the stitched loop gives up")
    parser.add_argument("--rounds", type=int, default=20, help="of flips")
    parser.add_argument("--port", type=int, default=18400, help="the service's port; the next two are used as well")
    parser.add_argument("--folder", type=Path, default=Path(".trimtab/bench-loop"), help="where state and logs stay")
    options = parser.parse_args()
    rows, console = options.row or ROWS, Console(width=130)
    shutil.rmtree(options.folder, ignore_errors=True)
    told: dict[str, Recovery] = {}
    if "recover" in rows:
        ours = told["trimtab"] = asyncio.run(play_trimtab(options.folder / "trimtab", options.rate, options.port))
        tell_recovery(console, f"Trimtab, {options.rate:g} requests/s", ours, " (target ≤ 180 s)")
        tell_latency(console, ours)
    if "stitched" in rows:
        played = play_stitched(options.folder / "stitched", options.rate, options.port, options.limit)
        peer = told["stitched"] = asyncio.run(played)
        tell_recovery(console, "stitched: Evidently on windows of 1,000, TRL's defaults, vLLM restarted", peer, "")
    if "stitched" in told and "trimtab" in told and told["trimtab"].recovered_s is not None:
        least = "" if told["stitched"].recovered_s else "more than "
        ratio = (told["stitched"].recovered_s or options.limit) / told["trimtab"].recovered_s
        console.print(f"the stitched loop takes {least}{ratio:.1f} times as long (target ≥ 5)")
    if "latency" in rows:
        played = play_trimtab(options.folder / "latency", options.rate, options.port, LATENCY, idle=1200)
        long = told["latency"] = asyncio.run(played)
        tell_latency(console, long)
        console.print(f"{long.sent} sent, {long.failed} failed")
    if "flips" in rows:
        with tempfile.TemporaryDirectory() as name:
            tell_flips(console, asyncio.run(play_flips(Path(name), options.rounds)))
    if told:
        report = {name: asdict(found) for name, found in told.items()}
        (options.folder / "report.json").write_text(json.dumps(report, indent=2), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
