"""Prints the gateway's table: target, our figure and the peers', all of one run, medians over rounds that take turns.

    python -m benchmarks.gateway [--row NAME ...] [--seconds 3] [--rounds 3] [--full]

What each row means and how far to trust it: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil
import uvloop

from benchmarks.gateway.arms import DidNotStart
from benchmarks.gateway.capture import measure_capture
from benchmarks.gateway.comparison import STREAMING, UNARY, measure_with_peers
from benchmarks.gateway.memory import measure_memory
from benchmarks.gateway.plan import Plan
from benchmarks.gateway.process import divide_cores
from benchmarks.gateway.real import measure_real
from benchmarks.gateway.table import Part, Row, markdown

WITH_PEERS = (UNARY, STREAMING)
MeasurePart = Callable[[Plan], Awaitable[Part]]
ALONE: Mapping[str, MeasurePart] = {"capture": measure_capture, "memory": measure_memory, "real": measure_real}
ROWS = (*WITH_PEERS, *ALONE)

_LOOK_S = 2.0


async def measure(plan: Plan, wanted: Collection[str]) -> tuple[Part, bool]:
    """Everything that is wanted, one part after the other, and whether all of it could be measured."""
    started = perf_counter()
    rows: list[Row] = []
    notes: list[str] = []
    complete = True
    with_peers = [name for name in WITH_PEERS if name in wanted]
    parts: dict[str, MeasurePart] = {}
    if with_peers:
        parts[" and ".join(with_peers)] = partial(measure_with_peers, wanted=with_peers)
    parts |= {name: part for name, part in ALONE.items() if name in wanted}
    for name, measure_part in parts.items():
        try:
            part = await measure_part(plan)
        except (DidNotStart, RuntimeError) as error:
            complete = False
            part = Part([], [f"{name} could not be measured: {error}"])
        rows += part.rows
        notes += part.notes
        print(f"{perf_counter() - started:4.0f} s: {name}", file=sys.stderr, flush=True)
    return Part(rows, notes), complete


def _raise_file_limit() -> None:
    """A thousand streams are two thousand sockets in the gateway; children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--row", action="append", choices=ROWS, help="may be given again; all rows by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="memory over the whole hour's worth of requests")
    args = parser.parse_args()
    _raise_file_limit()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    cores = divide_cores()
    os.sched_setaffinity(0, cores.others)
    busy = psutil.cpu_percent(_LOOK_S)
    with TemporaryDirectory(prefix="trimtab-bench-") as folder:
        plan = Plan(args.seconds, args.rounds, args.full, cores, Path(folder))
        found, complete = uvloop.run(measure(plan, args.row or ROWS))
    print(markdown(found.rows))
    print(f"\n(…x): ours divided by theirs. Medians of {args.rounds} rounds of {args.seconds:g} s, in turns.\n")
    told = [*found.notes, f"core {_listed(cores.tested)}: the gateway and each peer; {_listed(cores.others)}: the load"]
    told.append(f"before the run this machine was {busy:.0f}% busy with other things")
    print("\n".join(f"- {note}" for note in told))
    return 0 if complete else 1


def _listed(cores: Collection[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


if __name__ == "__main__":
    sys.exit(main())
