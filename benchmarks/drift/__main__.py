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
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drift import runs, window
from benchmarks.drift.beside import MMD_SEEDS, online_mmd, peer, river
from benchmarks.drift.bound import bounds
from benchmarks.drift.peers.windowed import WINDOW, Windows, windows
from benchmarks.drift.pool import Pool, pools
from benchmarks.drift.runs import SHARES, Where
from benchmarks.drift.streams import DECLARED, REFERENCE, side_by_side
from service.core.drift import WINDOW_SHARE
from service.monitor.embedders import build_embedder
from service.settings import Settings

POOLS = ("CLINC150", "made")
PARTS = ("false-alarms", "labels", "accuracy", "delays", "mmd", "cost", "window")
PEER_SEEDS, LABEL_SEEDS, BOUND_SEEDS = 40, 100, 20

Rows = list[tuple[str, str, str, str]]


class Bench:
    """All rows of one pool."""

    def __init__(self, where: Where, seeds: int, workers: int, first: int) -> None:
        self._where, self._seeds, self._workers, self._first = where, seeds, workers, first
        self._peer_seeds = min(PEER_SEEDS, seeds)

    def rows(self, wanted: Sequence[str]) -> Rows:
        """The wanted parts; each row is also told as soon as it is there, for all take many minutes."""
        parts = (self._false_alarms, self._labels, self._accuracy, self._delays, self._mmd, self._cost, self._window)
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
        peers = {**self._evidently(), **river(self._where, self._peer_seeds)}
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

    def _mmd(self) -> Rows:
        found = online_mmd(self._where)
        if found is None:
            return []
        delays = "; ".join(f"{share:.0%} novel {_mean(found.delays[share])}" for share in SHARES)
        what = "requests until alibi-detect's online MMD on embeddings notices"
        return [(what, "", "", f"{delays}; at one false alarm in {found.rate:,.0f}; {MMD_SEEDS} seeds")]

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
            told = peer(
                "cbpe",
                confidence=np.asarray([one[2] for one in found]),
                right=np.asarray([one[4].scores for one in found]),
                window=np.asarray([one[3] for one in found]),
            )
            theirs = [100 * abs(value - one[1]) for value, one in zip(told, found, strict=True)] if told else []
            what = "points that estimated accuracy is off, " + (f"{share:.0%} novel" if share else "in-domain")
            beside = f"NannyML CBPE {_mean(theirs)}" if theirs else "NannyML is not installed"
            rows.append((what, f"at most {goal}", f"{_mean(errors)}; {self._seeds} seeds", beside))
        return rows

    def _cost(self) -> Rows:
        world = self._where.world(0)
        world.step(4000)
        part = world.pool.known
        weighed = _cpu(lambda: world.step(1000)) / 1000
        measured = _cpu(lambda: world.stream.signals.measure(part.features, part.vectors)) / len(part)
        told = (
            f"{1e6 * (weighed + measured):.0f} µs: {1e6 * weighed:.0f} weighed, "
            f"{1e6 * measured:.0f} measured against the reference"
        )
        embedding = self._embedding()
        both = f"{1e3 * (embedding + weighed + measured):.2f} ms, {1e3 * embedding:.2f} of them the embedding"
        return [
            ("CPU a request, without the embedding", "at most 50 µs", told, ""),
            ("CPU a request, with the embedding", "at most 2 ms", both, ""),
        ]

    def _embedding(self) -> float:
        """Seconds of CPU a text, all threads, as many at once as the worker embeds."""
        pool = self._pool()
        with TemporaryDirectory() as folder:
            embedder = build_embedder(Settings(model=str(pool.model), state_dir=Path(folder)))
            assert embedder is not None
            texts = list(dict.fromkeys(one.text for one in pool.known))[:2000]
            began = time.process_time()
            embedder.embed(texts)
            return (time.process_time() - began) / len(texts)

    def _window(self) -> Rows:
        pool = self._pool()
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, len(pool.known), 2 * window.SIZE + window.FRESH)
        rows = [asdict(pool.known[i]) for i in drawn]
        for row, number in zip(rows, rng.permutation(len(rows)), strict=True):
            row["text"] += f" {100_000 + number}"  # no two alike, or some would be embedded only once
        given = {"model": str(pool.model), "rows": rows}
        argv = [sys.executable, "-m", window.__name__]
        done = subprocess.run(argv, input=json.dumps(given), capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        return [
            (
                f"a check of {window.SIZE:,} requests against {window.SIZE:,}",
                "at most 2 s, 1,024 MiB",
                f"{told['next']:.2f} s, {told['first']:.2f} s with a new reference; {told['mib']:.0f} MiB",
                f"Evidently's tests of {window.PEER_SIZE:,} embeddings: {told['model']:.1f} s; MMD {told['mmd']:.1f} s",
            )
        ]

    def _pool(self) -> Pool:
        return next(one for one in pools(self._where.cache, self._where.data) if one.name == self._where.name)


def _one(work: Callable[..., Any], where: Where, given: Sequence[Any], seed: int) -> Any:
    return work(where, seed, *given)


def _cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU, all threads, the median of five times."""
    times = []
    for _ in range(5):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return float(np.median(times))


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
