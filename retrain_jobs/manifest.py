"""What an adapter was made from: enough to trace it to its rows and to make it again. Holds no time and no path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrain_jobs.augment import by_kind
from retrain_jobs.dataset import Dataset, imported_from
from retrain_jobs.examples import GoldenItem, Slice, digest
from retrain_jobs.tasks import told_tasks
from service.settings import RetrainSettings

PACKAGES = ("torch", "transformers", "peft", "trl")

RECIPE_FIELDS = (
    "recipe", "rank", "alpha", "dropout", "learning_rate", "epochs", "batch_size", "patience", "max_seconds", "seed",
    "min_examples", "max_examples", "replay_ratio", "holdout_ratio", "max_source_ratio", "max_key_ratio",
    "check_labels", "languages", "personal", "task_temperature", "augment", "warm_start", "quantize",
)  # fmt: skip


def manifest(
    *,
    dataset: Dataset,
    golden: Sequence[GoldenItem],
    knobs: RetrainSettings,
    config: Mapping[str, Any],
    spec: Mapping[str, Any],
    base_digest: str,
    threads: int,
    pace: Sequence[float] = (),
    search: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    parents: Sequence[str] = (),
    processes: int = 1,
) -> dict[str, Any]:
    """The record behind one adapter, as JSON; equal inputs give an equal record.

    `search` tells how the settings were chosen, which a repetition need not do again; `start` is whose weights it began
    with (`Trained.start`), `parents` are the adapters whose weights went in; `processes` trained together.
    """
    paired = {row.request_id for row in dataset.train}
    rows = (*dataset.train, *dataset.heldout, *(row for row in dataset.rejected if row.request_id not in paired))
    return {
        "start": dict(start or {}),
        "parents": list(parents),
        "dataset": {
            "digest": dataset.digest,
            "train": [row.request_id for row in dataset.train],
            "heldout": [row.request_id for row in dataset.heldout],
            "selection": dataset.selection,
            "triggers": [one.told() for one in dataset.triggers],
            "imported": imported_from((*dataset.train, *dataset.heldout)),
            "tasks": told_tasks((*dataset.train, *dataset.variants), knobs.task_temperature),
            "augmented": by_kind(dataset.variants),
            "rejected": [row.request_id for row in dataset.rejected],
            "new": [row.request_id for row in rows if row.slice is Slice.NEW],
        },
        "golden_digest": digest([[item.messages(), item.target] for item in golden]),
        "settings": recorded_settings(knobs),
        "recipe": dict(config),
        "job": dict(spec),
        "base_digest": base_digest,
        "threads": threads,
        "processes": processes,
        "pace": list(pace),
        "search": dict(search or {}),
        "code": code_version(),
        "packages": package_versions(),
    }


def recorded_settings(knobs: RetrainSettings) -> dict[str, Any]:
    """What decides how an adapter comes out, as JSON."""
    return knobs.model_dump(mode="json", include=set(RECIPE_FIELDS))


def package_versions() -> dict[str, str]:
    """Of what decides how a training goes."""
    return {name: version(name) for name in PACKAGES}


def code_version() -> str:
    """The package's version and the digest of this package's sources, which also tells uncommitted changes apart."""
    total = sha256()
    root = Path(__file__).parent
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml")]):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    try:
        released = version("trimtab")
    except PackageNotFoundError:
        released = "0"
    return f"{released}+{total.hexdigest()[:12]}"
