"""One check of 5,000 requests against 5,000, in a process of its own: JSON in, JSON out.

In: the `model`'s folder, for its embeddings, and twice as many `rows` and a tenth. Out: seconds of a check of a new
reference, of the next one with a tenth of the window new, of Evidently's two embedding tests on `PEER_SIZE` of the same
vectors, and the process's peak memory in MiB before those.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from evidently.legacy.metrics.data_drift.embedding_drift_methods import mmd, model

from benchmarks.drift.answered import Answered, labelled
from service.core.window import Windows
from service.monitor.check import Checker, Memory
from service.monitor.embedders import build_embedder
from service.settings import AliasSettings, Settings

SIZE, PEER_SIZE = 5000, 1000
FRESH = SIZE // 10


def main() -> None:
    given = json.load(sys.stdin)
    rows = [labelled(i, Answered(**row)) for i, row in enumerate(given["rows"])]
    reference, later = tuple(rows[:SIZE]), tuple(rows[SIZE:])
    told = {}
    with TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "model": given["model"],
                "state_dir": Path(folder),
                "drift": {"reference_size": SIZE, "current_size": SIZE},
            }
        )
        embedder = build_embedder(settings)
        assert embedder is not None
        checker, memory = Checker(settings.drift, None, embedder), Memory()

        def check(start: int, fresh: int) -> float:
            windows = Windows(reference, later[start : start + SIZE])
            return _seconds(lambda: checker.check("a", windows, AliasSettings(), memory, fresh=fresh, now=0.0))

        told["first"], told["next"] = check(0, SIZE), check(FRESH, FRESH)
        told["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        vectors = pd.DataFrame(embedder.embed([row["text"] for row in given["rows"][: 2 * PEER_SIZE]]))
        before, after = vectors[:PEER_SIZE], vectors[PEER_SIZE:]
        told["model"], told["mmd"] = _seconds(lambda: model()(after, before)), _seconds(lambda: mmd()(after, before))
    json.dump(told, sys.stdout)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
