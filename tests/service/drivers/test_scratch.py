"""What is being made is left alone; what a dead maker left is found, by this process and by others."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from service.drivers.failpoints import Failpoint, arm, reach
from service.drivers.scratch import abandoned, clear_abandoned, scratch


def test_a_folder_is_ours_until_the_block_ends(tmp_path: Path) -> None:
    with scratch(tmp_path, "job-") as folder:
        (folder / "file").write_text("x")
        clear_abandoned(tmp_path, "job-")
        assert list(folder.iterdir()) == [folder / "file"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_found_once_it_is_dead(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    killed = multiprocessing.get_context("fork").Process(target=_make_and_die, args=(tmp_path / "work", mark))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert mark.exists()
    assert [path.name[:4] for path in abandoned(tmp_path / "work", "job-")] == ["job-"]
    clear_abandoned(tmp_path / "work", "job-")
    assert list((tmp_path / "work").iterdir()) == []


def test_another_machines_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "job-0@elsewhere").mkdir()
    clear_abandoned(tmp_path, "job-")
    assert (tmp_path / "job-0@elsewhere").is_dir()


def test_where_there_are_no_locks_work_goes_on_and_nothing_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch(tmp_path, "job-") as folder:
        clear_abandoned(tmp_path, "job-")
        assert folder.is_dir()


def test_a_failpoint_kills_once_at_its_passage_and_only_where_it_is_armed(tmp_path: Path) -> None:
    reach(Failpoint.FLIPPED)
    mark = tmp_path / "mark"
    mark.touch()
    arm(f"{Failpoint.FLIPPED}:1:{mark}")
    try:
        reach(Failpoint.FLIPPED)  # it was used up before
        arm(f"{Failpoint.FLIPPED}:2:{tmp_path / 'other'}:{os.getpid()}")
        reach(Failpoint.FLIPPED)
        reach(Failpoint.ROLLED_BACK)
        assert not (tmp_path / "other").exists()
    finally:
        arm(None)


def _make_and_die(root: Path, mark: Path) -> None:
    arm(f"{Failpoint.JOB_MADE}:1:{mark}")
    with scratch(root, "job-"):
        reach(Failpoint.JOB_MADE)
