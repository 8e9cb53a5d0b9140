"""The recipe beside TRL's trainer, same data, same run: `make bench-train`, `python -m benchmarks.train --row 5M`.

Each training is a process of its own; in every round the recipe goes first, and a peer gives up where it has taken 3.2
times as long: it is then told as "over" that.
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

OURS = "ours"
ARMS = (OURS, "ours-polite", "trl-tuned", "trl-default")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a task each model gets: rows, the loss to reach (nats a token), seconds until the recipe gives up."""

    rows: int
    target: float
    limit_s: float


SIZES = {"5M": Size(1000, 0.3, 120.0), "50M": Size(500, 0.3, 300.0)}
PATIENCE = 3.2
"""Of the recipe's own time: a little more than what a peer should take at least."""

ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "s to the loss, or until given up": ("{:.1f}", lambda run: run["spent_s"]),
    "tokens/s, padding not counted": ("{:,.0f}", lambda run: run["tokens"] / run["spent_s"]),
    "share of the peak (bf16, or float32 where that is faster)": ("{:.1%}", lambda run: run["mfu"]),
    "non-padding tokens": ("{:.1%}", lambda run: run["tokens"] / run["computed"]),
    "peak memory, MiB": ("{:,.0f}", lambda run: run["peak_mib"]),
    "s from start to first step": ("{:.1f}", lambda run: run["start_up_s"]),
    "loss at the end": ("{:.3f}", lambda run: run["loss"]),
}


def compare(name: str, arms: Sequence[str], rounds: int, seed: int) -> Table:
    """One model's table: medians over the rounds; the recipe's own time says how long the others may take."""
    size = SIZES[name]
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for number in range(rounds):
        with TemporaryDirectory() as folder:
            write_task(Path(folder), SHAPES[name], rows=size.rows, seed=seed + number)
            limit_s = size.limit_s
            for arm in sorted(arms, key=ARMS.index):
                runs[arm].append(_run(arm, folder, size.target, limit_s, seed + number))
                if arm == OURS:
                    limit_s = PATIENCE * runs[arm][-1]["spent_s"]
    table = Table(
        "", *arms, title=f"{name}: {size.rows} rows, to a held-out loss of {size.target}, {rounds} rounds, medians"
    )
    for row, (form, read) in ROWS.items():
        table.add_row(row, *(form.format(median(read(run) for run in runs[arm])) for arm in arms))
    if OURS in arms:
        table.add_row("times ours, s to the loss", *(_ratio(runs[arm], runs[OURS], "spent_s") for arm in arms))
        table.add_row("times ours, peak memory", *(_ratio(runs[arm], runs[OURS], "peak_mib") for arm in arms))
    table.add_row("reached the loss", *(f"{sum(run['seconds'] is not None for run in runs[arm])}" for arm in arms))
    table.add_row("weights", *(runs[arm][0]["dtype"] for arm in arms))
    return table


def _run(arm: str, folder: str, target: float, limit_s: float, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train.arms", arm, folder, str(target), str(limit_s), str(seed)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {arm} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{arm}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def _ratio(runs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], what: str) -> str:
    """The median over rounds of this arm's figure by ours; at least that, where an arm gave up before the loss."""
    found = median(run[what] / own[what] for run, own in zip(runs, ours, strict=True))
    given_up = what == "spent_s" and any(run["seconds"] is None for run in runs)
    return f"{'over ' if given_up else ''}{found:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    rows = (*SIZES, "clinc", "beginnings")
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
        elif row == "beginnings":
            from benchmarks.train.beginnings import compare as shared

            Console(width=140).print(shared(options.seed))
        else:
            Console(width=140).print(compare(row, options.arm or ARMS, options.rounds, options.seed))


if __name__ == "__main__":
    main()
