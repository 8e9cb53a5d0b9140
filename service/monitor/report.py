"""Evidently's HTML report of a check: what the detectors saw, at the thresholds that they were held to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricContainer
from evidently.core.report import Snapshot
from evidently.presets import DataDriftPreset

from service.monitor.detectors import REPLY, Detection
from service.monitor.workspace import Alarms

_SUFFIX = ".html"
_DRAFT = ".draft-"


class Reports:
    """The folder of reports; the newest `keep` stay. `presets` of the operator's are part of each."""

    def __init__(
        self, folder: Path, *, keep: int, presets: Sequence[MetricContainer] = (), alarms: Alarms | None = None
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._presets = presets
        self._alarms = alarms

    def has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def write(self, detection: Detection, check_id: str, *, alarm_of: str | None = None) -> str:
        """Write `<check_id>.html`, whole or not at all, remove the oldest ones, and return the file's name.

        `alarm_of`: the alias whose alarm it is, which is then kept in the workspace too.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=self._folder, prefix=_DRAFT)
        os.close(handle)
        name = check_id + _SUFFIX
        try:
            snapshot = _run(detection, self._presets)
            snapshot.save_html(draft)
            os.replace(draft, self._folder / name)
        finally:
            Path(draft).unlink(missing_ok=True)
        self._prune()
        if alarm_of is not None and self._alarms is not None:
            self._alarms.add(alarm_of, check_id, snapshot)
        return name

    def _prune(self) -> None:
        """Also the drafts of a worker that was killed: one worker writes at a time, so no draft is in use."""
        reports = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for old in [*reports[self._keep :], *self._folder.glob(f"{_DRAFT}*")]:
            old.unlink(missing_ok=True)


def _run(detection: Detection, presets: Sequence[MetricContainer]) -> Snapshot:
    thresholds = {score.detector: score.threshold for score in detection.scores if score.detector in detection.current}
    numeric = [name for name in thresholds if name != REPLY]
    categorical = [name for name in thresholds if name == REPLY]
    columns = [*numeric, *categorical]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    preset = DataDriftPreset(
        columns=columns, num_method="wasserstein", cat_method="jensenshannon", per_column_threshold=thresholds,
        drift_share=1 / max(1, len(columns)),
    )  # fmt: skip
    current = Dataset.from_pandas(detection.current[columns], definition)
    reference = Dataset.from_pandas(detection.reference[columns], definition)
    return Report([preset, *presets]).run(current, reference)
