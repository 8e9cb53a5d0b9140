"""What the light part of a job hands to the heavy one, and what it gets back. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retrain_jobs.dataset import Dataset
from retrain_jobs.examples import GoldenItem
from retrain_jobs.options import Options
from retrain_jobs.served import Expected, Question
from service.core.merging import Merge
from service.core.records import JobPhase
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """One candidate to make. `champion` is the folder of the champion's adapter, None for the base model;
    `checkpoint` is where an unfinished training is kept; `merge` with the folders `parents` is asked for in place of
    one."""

    settings: Settings
    alias: str
    spec: Mapping[str, Any]
    dataset: Dataset
    golden: tuple[GoldenItem, ...]
    champion: str | None
    options: Options
    scratch: Path
    threads: int
    checkpoint: Path | None = None
    merge: Merge | None = None
    parents: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """`Job.result["evaluation"]` but for what the engines say; `expected` are the candidate's replies in PyTorch to
    the questions that these are asked."""

    evaluation: Mapping[str, Any]
    seconds: float
    expected: Sequence[Expected] = ()


class Report(Protocol):
    """Told how far a phase is (0..1) and what a person wants to see; what it raises ends the work."""

    def __call__(self, phase: JobPhase, share: float, **detail: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate: its files in `folder`, and the parts of `Job.result`. `dataset` lacks what was too long.

    `judge` evaluates it in PyTorch; meanwhile the engines can be asked the `questions`.
    """

    folder: Path
    dataset: Dataset
    training: Mapping[str, Any]
    manifest: Mapping[str, Any]
    judge: Callable[[Report], Judged]
    questions: Sequence[Question] = ()
