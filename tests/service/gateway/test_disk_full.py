"""The disk is full: serving goes on, counters tell what was lost, and nothing is corrupt afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.gateway.live import CHAT, engine, eventually, gateway, post, prepare, session

DISK_MIB = 8


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Until not even a byte fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for chunk in (65536, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(os.urandom(chunk))


def stored(state: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(state / "trimtab.db")) as store:
        return [request_id for (request_id,) in store.execute("SELECT request_id FROM captures")]


async def test_clients_are_served_while_the_disk_is_full(tmp_path: Path, disk: Path) -> None:
    state = disk / "state"
    async with engine(tmp_path) as stub:
        await prepare(state, [stub])
        async with gateway(state, [stub]) as serving, session() as client:

            async def served(count: int) -> list[str]:
                replies = await asyncio.gather(*(post(client, serving.url, CHAT) for _ in range(count)))
                assert {reply.status for reply in replies} == {200}
                return [reply.headers["x-request-id"] for reply in replies]

            async def lost_some() -> bool:
                return await serving.metric("trimtab_captures_dropped_total", reason="disk_failed") > 0

            before = await served(20)
            await eventually(lambda: _true(set(before) <= set(stored(state))), 20.0)
            fill(state / "filling")
            await served(200)
            await eventually(lost_some, 10.0)
            await served(200)
            (state / "filling").unlink()
            after = await served(20)
            await eventually(lambda: _true(set(after) <= set(stored(state))), 20.0)
            lost = await serving.metric("trimtab_captures_dropped_total")
        kept = stored(state)
        with contextlib.closing(sqlite3.connect(state / "trimtab.db")) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not list((state / "spool").glob("*/*.jsonl"))
        assert not (state / "spool" / "dead-letters.jsonl").exists()
    assert len(kept) == len(set(kept)) == 440 - lost
    assert set(before) | set(after) <= set(kept)


async def _true(value: bool) -> bool:
    return value
