"""alibi-detect's online MMD on embeddings, one reference; run by the peers' own Python: FILE.npz in, JSON out.

Its thresholds come of bootstraps of the reference, which must be more than the declared requests between false alarms;
two windows' lengths would take twice as long. What it keeps of that promise is counted on the clean streams.
"""
# mypy: ignore-errors

import json
import sys

import numpy as np
import torch
from alibi_detect.cd import MMDDriftOnline

DECLARED = 10_000
WINDOW = 20


def alarms(detector, vectors, stream):
    """The requests, counted from 1, that raise an alarm; it begins anew after each."""
    detector.reset_state()
    for i, row in enumerate(stream):
        if detector.predict(vectors[row])["data"]["is_drift"]:
            yield i + 1
            detector.reset_state()


def delay(detector, vectors, stream, start):
    """Requests from the drift, which follows `start` clean ones, to the first alarm."""
    return next((at - start for at in alarms(detector, vectors, stream) if at > start), len(stream) - start)


def main():
    torch.manual_seed(0)
    np.random.seed(0)
    given = np.load(sys.argv[1])
    vectors, start = given["vectors"].astype(np.float32), int(given["start"])
    detector = MMDDriftOnline(
        vectors[given["reference"]], DECLARED, WINDOW, backend="pytorch", n_bootstraps=2 * DECLARED, verbose=False
    )
    clean = given["clean"]
    began = sum(1 for stream in clean for _ in alarms(detector, vectors, stream))
    delays = {
        share: [delay(detector, vectors, stream, start) for stream in given[share]]
        for share in given.files
        if share.startswith("0.")
    }
    print(json.dumps({"rate": clean.size / max(1, began), "delays": delays}))


main()
