"""Places between two steps, by name, at each of which a test kills a process.

`TRIMTAB_FAILPOINT=NAME:N:MARK[:PID]` arms one: at its N-th passage the process makes the file MARK and kills itself, or
PID, with SIGKILL. Where MARK is there already nothing happens, so that whoever starts again with the variable lives.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ENV = "TRIMTAB_FAILPOINT"


class Failpoint(StrEnum):
    """Each is named for what has just been done."""

    LEASE_TAKEN = "controller.lease_taken"
    ENGINE_LOADED = "controller.engine_loaded"
    ENGINE_WARMED = "controller.engine_warmed"
    ENGINE_UNLOADED = "controller.engine_unloaded"
    ENGINES_SEEN = "controller.engines_seen"
    CYCLE_OPENED = "controller.cycle_opened"
    JOB_QUEUED = "controller.job_queued"
    JOB_NAMED = "controller.job_named"
    JOB_LAUNCHED = "controller.job_launched"
    RELAUNCH_TOLD = "controller.relaunch_told"
    CANDIDATE_SET = "controller.candidate_set"
    SHADOW_STARTED = "controller.shadow_started"
    FLIPPED = "controller.flipped"
    WATCH_STARTED = "controller.watch_started"
    ROLLED_BACK = "controller.rolled_back"
    CANDIDATE_CLEARED = "controller.candidate_cleared"
    CYCLE_CLOSED = "controller.cycle_closed"
    LATCHED = "controller.latched"
    ACTION_DONE = "controller.action_done"

    PERSON_MADE_WAY = "person.made_way"
    PERSON_FLIPPED = "person.flipped"

    JOB_CLAIMED = "job.claimed"
    JOB_READ = "job.read"
    JOB_REPORTED = "job.reported"
    JOB_MADE = "job.made"
    JOB_REGISTERED = "job.registered"
    JOB_FINISHED = "job.finished"
    JOB_FAILING = "job.failing"

    DRAFT_WRITTEN = "files.draft_written"
    DRAFT_PLACED = "files.draft_placed"
    FILES_HIDDEN = "files.hidden"

    TABLE_READ = "gateway.table_read"
    TABLE_SWAPPED = "gateway.table_swapped"
    SPOOL_LOCKED = "spool.locked"
    SPOOL_APPENDED = "spool.appended"
    SPOOL_SEALED = "spool.sealed"

    SHIPPED = "ship.sent"
    SHIPPED_DELETED = "ship.deleted"
    TAKEN_OVER = "ship.taken_over"

    STORE_BEGUN = "store.begun"
    STORE_WRITTEN = "store.written"
    STORE_COMMITTED = "store.committed"
    CAPTURES_ADDED = "store.captures_added"


@dataclass(slots=True)
class _Armed:
    name: Failpoint
    at: int
    mark: Path
    target: int
    passed: int = 0

    def pass_by(self) -> None:
        self.passed += 1
        if self.passed != self.at:
            return
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(self.target, signal.SIGKILL)


_armed: _Armed | None = None


def reach(name: Failpoint) -> None:
    """Say that the step is done; returns unless this very passage is the armed one."""
    if _armed is not None and _armed.name is name:
        _armed.pass_by()


def arm(text: str | None) -> None:
    """Arm the one place that `text` names; None or nothing disarms all."""
    global _armed
    if not text:
        _armed = None
        return
    name, at, mark, *other = text.split(":")
    _armed = _Armed(Failpoint(name), int(at), Path(mark), int(other[0]) if other else os.getpid())


arm(os.environ.get(ENV))
