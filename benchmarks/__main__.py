"""Every row of the scorecard, one after the other: `python -m benchmarks [ROW ...]`, or `make bench`."""

from __future__ import annotations

import argparse
import subprocess
import sys

ROWS = {
    "base": "benchmarks.base_model",
    "gateway": "benchmarks.gateway",
    "mirror": "benchmarks.mirror",
    "hot-swap": "benchmarks.hot_swap",
    "lora": "benchmarks.lora",
    "promotion": "benchmarks.promotion",
    "loop": "benchmarks.loop",
    "captures": "benchmarks.captures",
    "reasons": "benchmarks.reasons",
    "poison": "benchmarks.poison",
    "clinc": "benchmarks.clinc",
    "drift": "benchmarks.drift",
    "train": "benchmarks.train",
}


def main() -> int:
    """Run the rows that were asked for; the exit code is 1 when any of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}; all of them by default")
    rows = parser.parse_args().rows or list(ROWS)
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; choose from {', '.join(ROWS)}")
    failed = []
    for row in rows:
        print(f"\n== {row}: python -m {ROWS[row]}", flush=True)
        if subprocess.run([sys.executable, "-m", ROWS[row]], check=False).returncode:
            failed.append(row)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
