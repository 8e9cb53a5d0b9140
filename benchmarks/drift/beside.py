"""Change detectors of others on the same pools, each run by a Python of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.runs import SHARES, Where
from benchmarks.drift.streams import Part, Rng
from benchmarks.gateway.peers.install import NotInstalled, environment

HERE = Path(__file__).parent / "peers"
_LOCKS = {"online_mmd": "mmd"}
"""Of scripts that need another environment than the others."""

MMD_SEEDS = 10
_CLEAN, _SETTLED, _DRIFTED = 10_000, 1000, 3000


@dataclass(frozen=True, slots=True)
class Found:
    """Requests between false alarms on clean streams, and from the drift to the alarm by the share that is novel."""

    rate: float
    delays: Mapping[float, Sequence[float]]


def river(where: Where, seeds: int) -> dict[str, Mapping[float, Sequence[float]]]:
    """Delays of ADWIN and Page-Hinkley on confidence, by names that hold their rates; nothing where they do not run."""
    pool = where.world(0).pool
    told = peer("change_detectors", **_streams(np.random.default_rng(1), seeds, *map(_doubt, (pool.known, pool.novel))))
    found = {name: _found(one) for name, one in (told or {}).items()}
    return {f"river {name} ({one.rate:,.0f})": one.delays for name, one in found.items()}


def online_mmd(where: Where) -> Found | None:
    """alibi-detect's on the embeddings, with the reference of the first seed."""
    world = where.world(0)
    known, novel = world.pool.known.vectors, world.pool.novel.vectors
    rows = np.arange(len(known) + len(novel))
    streams = _streams(np.random.default_rng(1), MMD_SEEDS, rows[: len(known)], rows[len(known) :])
    told = peer("online_mmd", vectors=np.vstack([known, novel]), reference=world.chosen, **streams)
    return _found(told) if told is not None else None


def peer(script: str, **given: Any) -> Any:
    """What a peer's script prints; None, with the reason on the terminal, where the peers do not install."""
    try:
        python = environment(_LOCKS.get(script, "drift"), HERE)
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


def _streams(rng: Rng, seeds: int, known: NDArray[Any], novel: NDArray[Any]) -> dict[str, Any]:
    """Clean streams, and by each novel share streams in which it begins after `start` requests."""
    given: dict[str, Any] = {"start": _SETTLED}
    for share in SHARES:
        shape = (seeds, _SETTLED + _DRIFTED)
        is_novel = (rng.random(shape) < share) & (np.arange(shape[1]) >= _SETTLED)
        given[str(share)] = np.where(is_novel, rng.choice(novel, shape), rng.choice(known, shape))
    return given | {"clean": rng.choice(known, (seeds, _CLEAN))}


def _doubt(part: Part) -> NDArray[Any]:
    return np.asarray(1 - part.features.columns["confidence"])


def _found(told: Mapping[str, Any]) -> Found:
    return Found(told["rate"], {share: told["delays"][str(share)] for share in SHARES})
