"""river's ADWIN and Page-Hinkley on one number a request; run by the peers' own Python: FILE.npz in, JSON out.

Each is taken at the setting whose measured false alarms on the clean streams come nearest to the declared ones.
"""
# mypy: ignore-errors

import json
import sys

import numpy as np
from river import drift

DECLARED = 10_000
SETTINGS = {
    "ADWIN": [lambda d=d: drift.ADWIN(delta=d) for d in (0.2, 0.05, 0.01, 2e-3, 5e-4, 1e-4, 1e-5, 1e-6, 1e-8)],
    "Page-Hinkley": [
        lambda t=t: drift.PageHinkley(threshold=t, mode="up") for t in (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 50)
    ],
}


def rate(make, streams):
    alarms = 0
    for stream in streams:
        found = make()
        for value in stream:
            found.update(value)
            alarms += found.drift_detected
    return streams.size / max(1, alarms)


def delay(make, stream, start):
    found = make()
    for i, value in enumerate(stream):
        found.update(value)
        if found.drift_detected and i >= start:
            return i - start + 1
    return len(stream) - start


def main():
    given = np.load(sys.argv[1])
    start, told = int(given["start"]), {}
    for name, makes in SETTINGS.items():
        rates = [rate(make, given["clean"]) for make in makes]
        best = int(np.argmin(np.abs(np.log(np.asarray(rates) / DECLARED))))
        delays = {
            key: [delay(makes[best], stream, start) for stream in given[key]] for key in given if key.startswith("0")
        }
        told[name] = {"rate": rates[best], "delays": delays}
    print(json.dumps(told))


main()
