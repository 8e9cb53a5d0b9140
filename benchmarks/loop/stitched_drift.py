"""Evidently's preset, as it comes, on the texts of two windows: `python -m benchmarks.loop.stitched_drift FILE`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(file: Path) -> None:
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    given = json.loads(file.read_text("utf-8"))
    texts = DataDefinition(text_columns=["prompt"])
    windows = [
        Dataset.from_pandas(pd.DataFrame({"prompt": given[name]}), data_definition=texts)
        for name in ("current", "reference")
    ]
    found = Report([DataDriftPreset()]).run(*windows).dict()["metrics"][0]["value"]
    print(json.dumps({"drifted": found["count"] > 0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
