"""Each alarm as a snapshot in an Evidently workspace, one project an alias, which `evidently ui` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from evidently.core.report import Snapshot
from evidently.ui.workspace import Workspace

_SNAPSHOTS = "snapshots/*.json"
_TOLD = "Drift alarms of the alias {alias}, by Trimtab. A snapshot is named by its check."


class Alarms:
    """The workspace's folder; of each alias the newest `keep` alarms stay."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def add(self, alias: str, check_id: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, and remove the alias's oldest ones."""
        self._remove_torn()
        workspace = Workspace.create(str(self._folder))
        project = _project(workspace, alias)
        workspace.add_run(project, snapshot, name=check_id)
        kept = (self._folder / str(project)).glob(_SNAPSHOTS)
        for old in sorted(kept, key=lambda path: path.stat().st_mtime_ns, reverse=True)[self._keep :]:
            old.unlink(missing_ok=True)

    def _remove_torn(self) -> None:
        """What a worker that was killed left half written: Evidently opens no workspace that holds it."""
        for path in self._folder.glob(f"*/{_SNAPSHOTS}"):
            if not _is_whole(path):
                path.unlink(missing_ok=True)


def _project(workspace: Any, alias: str) -> UUID:
    for project in workspace.search_project(alias):
        if project.name == alias:
            return UUID(str(project.id))
    return UUID(str(workspace.create_project(alias, _TOLD.format(alias=alias)).id))


def _is_whole(path: Path) -> bool:
    """Whether the JSON object was written to its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read() == b"}"
