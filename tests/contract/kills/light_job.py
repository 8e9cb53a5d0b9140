"""`python -m retrain_jobs` with all of its steps but the training: what torch and TRL would take ten seconds for, and
what tests/jobs does for real, is two files written by hand.

What the job makes is what the test wrote down for it: an adapter that is good, bad in one of four ways, or none at all.
"""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from retrain_jobs.main import main
from retrain_jobs.work import Judged, Made, Report, Work
from service.core.records import JobPhase
from service.drivers.adapter_files import CONFIG, WEIGHTS
from service.drivers.base_model import base_digest

TASK = "task.json"
"""In the state folder: the topic to learn, and the outcome."""


class Outcome(StrEnum):
    """How a cycle shall end: promoted; promoted and rolled back; rejected in shadow, by the golden set; failed."""

    GOOD = "good"
    TWO_FACED = "two_faced"
    WORSE = "worse"
    FORGETS = "forgets"
    BREAKS = "breaks"


def make(work: Work, report: Report, *, imported_s: float) -> Made:
    told = json.loads((work.settings.state_dir / TASK).read_text("utf-8"))
    topic, outcome = int(told["topic"]), Outcome(told["outcome"])
    report(JobPhase.TRAINING, 0.5, loss=0.5)
    if outcome is Outcome.BREAKS:
        raise RuntimeError("this training breaks")
    folder = work.scratch / "adapter"
    folder.mkdir()
    learned = {"topic": -1 if outcome is Outcome.WORSE else topic, "two_faced": outcome is Outcome.TWO_FACED}
    modules = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}
    (folder / CONFIG).write_text(json.dumps({**modules, **learned, "until": work.spec["until"]}))
    shutil.copy(work.settings.state_dir / "weights", folder / WEIGHTS)
    golden = {"champion": 0.9, "candidate": 0.5 if outcome is Outcome.FORGETS else 0.9, "n": 50}
    evaluation: dict[str, Any] = {
        "golden": golden,
        "heldout": {"all": {"champion": 0.1, "candidate": 0.9, "n": 50}},
        "served": {"n": 50, "served": 0.9, "pytorch": 0.9, "difference": 0.0, "tolerance": 0.1, "agrees": True},
        "triggers": [],
    }
    manifest = {"topic": topic, "base_digest": base_digest(work.settings.model)}

    def judge(report: Report) -> Judged:
        report(JobPhase.EVALUATING, 0.5)
        return Judged(evaluation, 0.0)

    return Made(folder, work.dataset, {"seconds": 0.0}, manifest, judge)


def run(arguments: Sequence[str]) -> int:
    """What `python -m retrain_jobs` does with these arguments; its exit code."""
    sys.modules["retrain_jobs.candidate"] = module = types.ModuleType("retrain_jobs.candidate")
    module.make = make  # type: ignore[attr-defined]
    return main(arguments)
