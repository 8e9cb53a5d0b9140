"""DRIFT: the only room that imports Evidently, which posts telemetry unless it is told not to before its import."""

import os

os.environ["DO_NOT_TRACK"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
