"""The drift detector's rows, with peers where they install: `make bench-drift`, `python -m benchmarks.drift`.

False alarms are counted over fresh references and fresh clean streams; delays at that rate, peers' thresholds set to
the same measured rate in the same run. Intervals are 95%: by the Poisson law for alarms, by the bootstrap for means.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drift import runs
from benchmarks.drift.bound import bounds
from benchmarks.drift.peers.windowed import WINDOW, Windows, windows
from benchmarks.drift.runs import SHARES, Where
from benchmarks.drift.streams import DECLARED, REFERENCE, side_by_side
from benchmarks.gateway.peers.install import NotInstalled, environment
from service.core.drift import WINDOW_SHARE

POOLS = ("CLINC150", "made")
PARTS = ("false-alarms", "labels", "accuracy", "delays", "cost")
HERE = Path(__file__).parent / "peers"
PEER_SEEDS, LABEL_SEEDS, BOUND_SEEDS = 40, 100, 3
_RIVER_CLEAN, _RIVER_SETTLED, _RIVER_DRIFTED = 10_000, 1000, 3000

Rows = list[tuple[str, str, str, str]]


class Bench:
    """All rows of one pool."""

    def __init__(self, where: Where, seeds: int, workers: int, first: int) -> None:
        self._where, self._seeds, self._workers, self._first = where, seeds, workers, first
        self._peer_seeds = min(PEER_SEEDS, seeds)

    def rows(self, wanted: Sequence[str]) -> Rows:
        """The wanted parts; each row is also told as soon as it is there, for all take many minutes."""
        parts = (self._false_alarms, self._labels, self._accuracy, self._delays, self._cost)
        found: Rows = []
        for name, part in zip(PARTS, parts, strict=True):
            rows = part() if name in wanted else []
            for row in rows:
                print(f"{self._where.name}: {' | '.join(row)}", flush=True)
            found += rows
        return found

    def _run(self, work: Callable[..., Any], seeds: int, *given: Any) -> list[Any]:
        task = partial(_one, work, self._where, given)
        return list(side_by_side(task, range(self._first, self._first + seeds), self._workers))

    def _false_alarms(self) -> Rows:
        found = self._run(runs.false_alarms, self._seeds)
        alarms, watched = sum(one[0] for one in found), sum(one[1] for one in found)
        share = 1 - WINDOW_SHARE
        return [
            (
                f"requests between false alarms, declared {DECLARED / share:,.0f} for requests and labels",
                f"{0.8 * DECLARED / share:,.0f} to {1.2 * DECLARED / share:,.0f}",
                f"{watched / max(1, alarms):,.0f} {_rate_interval(alarms, watched)}; {alarms} in {self._seeds} seeds",
                "",
            )
        ]

    def _delays(self) -> Rows:
        ours = self._run(runs.delays, self._seeds)
        least = self._run(bounds, min(BOUND_SEEDS, self._seeds))
        peers = {**self._evidently(), **self._river()}
        rows: Rows = []
        for share, times in zip(SHARES, (2, 2, 3), strict=True):
            bound = {name: float(np.mean([one[name][share] for one in least])) for name in least[0]}
            delays = [one[share] for one in ours if share in one]
            mean = float(np.mean(delays))
            told = f"{_mean(delays)}, median {np.median(delays):.0f}"
            times_told = ", ".join(f"{mean / value:.1f}x {value:.0f} ({name})" for name, value in bound.items())
            others = "; ".join(f"{name} {_mean(found[share])}" for name, found in peers.items())
            goal = f"at most {times}x ln(ARL)/KL = {times * bound['all signals']:.0f}"
            rows.append((f"requests until noticed, {share:.0%} novel", goal, f"{told}: {times_told}", others))
        return rows

    def _evidently(self) -> dict[str, dict[float, list[float]]]:
        found: list[Windows] = self._run(windows, self._peer_seeds)
        clean = np.asarray([one for seed in found for one in seed.clean])
        told = {}
        for column, name in enumerate(("Evidently columns (K-S)", "Evidently embeddings (model)")):
            threshold = float(np.quantile(clean[:, column], 1 - WINDOW / DECLARED))
            told[name] = {
                share: [1.0 * WINDOW * _first([w[column] > threshold for w in seed.drifted[share]]) for seed in found]
                for share in SHARES
            }
        alone = (clean[:, 0] > -math.log10(0.05)).mean()
        preset = sum(seed.preset for seed in found) / len(clean)
        print(
            f"{self._where.name}: Evidently at its defaults calls {preset:.1%} of clean windows of {WINDOW} "
            f"drifted (preset), {alone:.0%} in a column, {(clean[:, 1] > 0.55).mean():.0%} in embeddings"
        )
        return told

    def _river(self) -> dict[str, dict[float, list[float]]]:
        world = self._where.world(0)
        known = 1 - world.pool.known.features.columns["confidence"]
        novel = 1 - world.pool.novel.features.columns["confidence"]
        rng, given = np.random.default_rng(1), {}
        for share in SHARES:
            shape = (self._peer_seeds, _RIVER_SETTLED + _RIVER_DRIFTED)
            is_novel = (rng.random(shape) < share) & (np.arange(shape[1]) >= _RIVER_SETTLED)
            given[str(share)] = np.where(is_novel, rng.choice(novel, shape), rng.choice(known, shape))
        clean = rng.choice(known, (self._peer_seeds, _RIVER_CLEAN))
        told = _peer("change_detectors", clean=clean, start=_RIVER_SETTLED, **given)
        if told is None:
            return {}
        return {
            f"river {name} ({one['rate']:,.0f})": {share: one["delays"][str(share)] for share in SHARES}
            for name, one in told.items()
        }

    def _labels(self) -> Rows:
        found = {
            coverage: [one for one in self._run(runs.label_delay, LABEL_SEEDS, coverage) if one is not None]
            for coverage in (1.0, 0.1)
        }
        ratio = float(np.mean(found[0.1]) / np.mean(found[1.0]))
        told = f"{_mean(found[0.1])} labels, at 100% {_mean(found[1.0])}: {ratio:.1f}x; {LABEL_SEEDS} seeds"
        what = f"labels until noticed, {runs.CHANGED:.0%} of right answers changed, 10% labelled"
        return [(what, "at most 2x the labels at 100%", told, "")]

    def _accuracy(self) -> Rows:
        rows: Rows = []
        for share, goal in ((0.0, 3), (0.5, 8)):
            found = self._run(runs.accuracy, self._seeds, share)
            errors = [100 * abs(one[0] - one[1]) for one in found]
            told = _peer(
                "cbpe",
                confidence=np.asarray([one[2] for one in found]),
                right=np.asarray([one[4].scores for one in found]),
                window=np.asarray([one[3] for one in found]),
            )
            theirs = [100 * abs(value - one[1]) for value, one in zip(told, found, strict=True)] if told else []
            what = "points that estimated accuracy is off, " + (f"{share:.0%} novel" if share else "in-domain")
            peer = f"NannyML CBPE {_mean(theirs)}" if theirs else "NannyML is not installed"
            rows.append((what, f"at most {goal}", f"{_mean(errors)}; {self._seeds} seeds", peer))
        return rows

    def _cost(self) -> Rows:
        world = self._where.world(0)
        world.step(4000)
        began = time.process_time()
        world.step(5000)
        weighed = (time.process_time() - began) / 5000
        rows = np.arange(min(2000, len(world.pool.known)))
        part = world.pool.known.chosen(rows)
        began = time.process_time()
        world.stream.signals.measure(part.features, part.vectors)
        measured = (time.process_time() - began) / len(rows)
        told = f"{1e6 * weighed:.0f} µs weighed, {1e6 * measured:.0f} µs measured against the reference"
        return [("CPU a request, without the embedding", "at most 50 µs", told, "")]


def _one(work: Callable[..., Any], where: Where, given: Sequence[Any], seed: int) -> Any:
    return work(where, seed, *given)


def _first(alarms: Sequence[bool]) -> int:
    """Windows until the first alarm; all of them where there is none."""
    return next((i + 1 for i, alarm in enumerate(alarms) if alarm), len(alarms))


def _mean(values: Sequence[float]) -> str:
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{np.mean(values):.3g} [{low:.3g}, {high:.3g}]"


def _rate_interval(alarms: int, watched: int) -> str:
    spread = 1.96 * math.sqrt(alarms)
    return f"[{watched / (alarms + spread):,.0f}, {watched / max(1.0, alarms - spread):,.0f}]"


def _peer(script: str, **given: Any) -> Any:
    """What a peer's script prints; None, with the reason on the terminal, where the peers do not install."""
    try:
        python = environment("drift", HERE)
    except NotInstalled as error:
        print(f"{script}: not installed: {error}")
        return None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "given.npz"
        np.savez(path, **given)
        quiet = {**os.environ, "PYTHONPATH": "", "NML_DISABLE_USAGE_LOGGING": "1"}
        done = subprocess.run(
            [python, HERE / f"{script}.py", path], capture_output=True, text=True, check=False, env=quiet
        )
    if done.returncode:
        print(f"{script}: {done.stderr[-300:]}")
        return None
    return json.loads(done.stdout)


def _show(name: str, rows: Rows, seeds: range, settled: int) -> None:
    title = f"{name}: reference {REFERENCE}, drift after {settled:,} clean requests, seeds {seeds[0]} to {seeds[-1]}"
    table = Table("row", "target", "ours [95%]", "beside it", title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=200).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"), help="folder of CLINC150")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("TRIMTAB_CACHE", ".cache/trimtab")))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--settled", type=int, default=1000, help="clean requests between the reference and the drift")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pool", choices=POOLS, action="append")
    parser.add_argument("--row", choices=PARTS, action="append")
    options = parser.parse_args()
    for name in options.pool or POOLS:
        where = Where(name, options.cache, options.data, options.settled)
        rows = Bench(where, options.seeds, options.workers, options.first).rows(options.row or PARTS)
        _show(name, rows, range(options.first, options.first + options.seeds), options.settled)


if __name__ == "__main__":
    main()
