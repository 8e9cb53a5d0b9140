"""Time to recover: from the drift's onset to recovered quality, stage by stage: `python -m benchmarks.recover`.

It plays the demo and reads its report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=18400, help="the service's port; the next two are used as well")
    parser.add_argument("--folder", type=Path, default=Path(".trimtab/recover"), help="where the demo keeps its state")
    options = parser.parse_args()
    argv = [sys.executable, "-m", "demo", "--port", str(options.port), "--folder", str(options.folder)]
    played = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    report = options.folder / "report.json"
    if not report.is_file():
        print(played.stdout + played.stderr, file=sys.stderr)
        return 1
    told = json.loads(report.read_text("utf-8"))
    table = Table("until", "seconds since the onset", "of which this stage", "requests since the onset")
    before = 0.0
    for stage, seconds in told["seconds"].items():
        table.add_row(stage, f"{seconds:.1f}", f"{seconds - before:.1f}", str(told["requests"][stage]))
        before = seconds
    console = Console()
    console.print(table)
    console.print(f"quality {told['before']:.1%} before, {told['trough']:.1%} at the trough, {told['after']:.1%} after")
    console.print(f"{told['sent']} requests sent, {told['failed']} failed")
    return played.returncode


if __name__ == "__main__":
    sys.exit(main())
