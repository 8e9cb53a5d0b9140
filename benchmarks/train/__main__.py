"""The recipe beside TRL's trainer, same data, same run: `make bench-train`, `python -m benchmarks.train --row 5M`.

Each training is a process of its own; in every round each arm has a turn, another one first each time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.train.task import SHAPES, write_task

PEERS = ("trl-tuned", "trl-default")
ARMS = ("ours", "ours-polite", *PEERS)


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a task each model gets: rows, the loss to reach (nats a token), seconds until an arm gives up."""

    rows: int
    target: float
    limit_s: float


SIZES = {"5M": Size(1000, 0.3, 60.0), "50M": Size(500, 0.3, 100.0)}

ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], float | None]]] = {
    "s to the loss": ("{:.1f}", lambda run: run["seconds"]),
    "tokens/s, padding not counted": ("{:,.0f}", lambda run: run["tokens"] / run["spent_s"]),
    "share of the peak (bf16, or float32 where that is faster)": ("{:.1%}", lambda run: run["mfu"]),
    "non-padding tokens": ("{:.1%}", lambda run: run["tokens"] / run["computed"]),
    "peak memory, MiB": ("{:,.0f}", lambda run: run["peak_mib"]),
    "s from start to first step": ("{:.1f}", lambda run: run["start_up_s"]),
    "loss at the end": ("{:.3f}", lambda run: run["loss"]),
}


def compare(name: str, arms: Sequence[str], rounds: int, seed: int) -> Table:
    """One model's table: medians over the rounds, and ours against each."""
    size = SIZES[name]
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for number in range(rounds):
        with TemporaryDirectory() as folder:
            write_task(Path(folder), SHAPES[name], rows=size.rows, seed=seed + number)
            for arm in (*arms, *arms)[number % len(arms) :][: len(arms)]:
                runs[arm].append(_run(arm, folder, size, seed + number))
    table = Table(
        "", *arms, title=f"{name}: {size.rows} rows, to a held-out loss of {size.target}, {rounds} rounds, medians"
    )
    for row, (form, read) in ROWS.items():
        table.add_row(row, *(_cell(form, [read(run) for run in runs[arm]], size.limit_s) for arm in arms))
    table.add_row("weights", *(runs[arm][0]["dtype"] for arm in arms))
    return table


def _run(arm: str, folder: str, size: Size, seed: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.train.arms",
        arm,
        folder,
        str(size.target),
        str(size.limit_s),
        str(seed),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {arm} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{arm}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def _cell(form: str, values: Sequence[float | None], limit_s: float) -> str:
    reached = [value for value in values if value is not None]
    if len(reached) < len(values):
        return f"not in {limit_s:.0f} ({len(reached)} of {len(values)} did)"
    return form.format(median(reached))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    rows = (*SIZES, "clinc")
    parser.add_argument("--row", action="append", choices=rows, help="all of them by default")
    parser.add_argument("--arm", action="append", choices=ARMS, help="all of them by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next have the next ones")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"), help="CLINC150's folder")
    parser.add_argument("--cache", type=Path, default=Path(".cache/trimtab"), help="where CLINC150's base is kept")
    options = parser.parse_args()
    for row in options.row or rows:
        if row == "clinc":
            from benchmarks.train.clinc import compare as travel

            Console(width=140).print(travel(options.data, options.cache, options.rounds, options.seed))
        else:
            Console(width=140).print(compare(row, options.arm or ARMS, options.rounds, options.seed))


if __name__ == "__main__":
    main()
