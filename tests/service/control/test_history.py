"""What an alias served and why, by API and by command; and the log that says so, verified."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app
from service.client import unix_seconds
from service.core.audit import GENESIS
from service.core.errors import BadRequest
from service.drivers.store import open_store
from service.ports import Store
from tests.service.control.desk import CANDIDATE, FIRST, open_desk
from tests.service.control.parts import HandClock


async def test_what_served_then_and_why(api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path) -> None:
    await open_desk(store, clock.now(), tmp_path)
    listed = (await api.get("/api/v1/aliases/support/history")).json()["data"]
    assert [one["adapter"] for one in listed] == [FIRST, "base"]
    assert (listed[0]["until"], listed[1]["until"]) == (None, listed[0]["since"])
    moment = listed[0]["since"] + 1
    then = (await api.get("/api/v1/aliases/support/history", params={"at": moment})).json()
    assert then["adapter"] == FIRST
    assert then["digest"].startswith(FIRST.partition("@")[2])
    assert then["alarm"]["trigger"] == "person"
    assert then["verdict"] == {
        "reason": "champion 78.1%, candidate 93.0% on 64 pairs.", "pairs": 64, "champion_mean": 0.781,
        "candidate_mean": 0.93, "evidence": 23.4, "needed": 20.0,
    }  # fmt: skip
    assert then["promoted"]["by"] == then["by"] == "controller"
    assert "Verdict: champion 78.1%, candidate 93.0% on 64 pairs. controller promoted it." in then["explanation"]
    cycle = (await api.get(f"/api/v1/cycles/{then['cycle_id']}")).json()
    assert cycle["explanation"] == then["explanation"]
    before = (await api.get("/api/v1/aliases/support/history", params={"at": moment - 2})).json()
    assert (before["adapter"], before["cycle_id"], "digest" in before) == ("base", None, False)
    await store.rollback("support", actor="ada", reason="end the cycle", now=clock.now())
    await store.promote("support", "base", actor="ada", reason="off", now=clock.now())
    await store.promote("support", CANDIDATE, actor="ada", reason="on", now=clock.now())
    await store.promote("support", "base", actor="ada", reason="off", now=clock.now())
    await store.remove_adapter(FIRST, actor="ada", reason="old", now=clock.now())
    assert (await api.get("/api/v1/aliases/support/history", params={"at": moment})).json() == then
    for query in ({"at": 1.0}, {"at": "nan"}, {"at": "yesterday"}):
        assert (await api.get("/api/v1/aliases/support/history", params=query)).status_code in {400, 404, 422}
    assert (await api.get("/api/v1/aliases/nobody/history")).status_code == 404


async def test_an_adapter_that_is_served_cannot_be_removed(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    assert (await api.delete(f"/api/v1/adapters/{FIRST}")).status_code == 409
    rejected = next(one.name for one in await store.adapters() if one.cycle_id == "c0ffee000002")
    assert (await api.delete(f"/api/v1/adapters/{rejected}")).json() == {"removed": rejected}
    event = (await store.events(limit=1))[0]
    assert (event.kind, event.actor) == ("adapter.removed", "ada")
    assert (await api.delete(f"/api/v1/adapters/{rejected}")).status_code == 404


def test_a_moment_is_iso_8601() -> None:
    assert unix_seconds("2026-11-20T14:05+00:00") == 1_795_183_500.0
    assert unix_seconds("2026-11-20T14:05Z") == 1_795_183_500.0
    for wrong in ("yesterday", "", "0001-01-01T00:00"):
        with pytest.raises(BadRequest, match="2026-11-20T14:05"):
            unix_seconds(wrong)


def verify(state_dir: Path, *options: str) -> tuple[int, dict[str, Any]]:
    ran = CliRunner().invoke(app, ["audit", "verify", "--state-dir", str(state_dir), "--json", *options])
    return ran.exit_code, json.loads(ran.stdout)


def test_the_command_names_the_first_bad_event(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.db"

    async def write() -> None:
        store = await open_store(f"sqlite+aiosqlite:///{path}", migrate=True)
        for number in range(5):
            await store.add_event("note", actor="me", message=str(number), now=float(number))
        await store.close()

    asyncio.run(write())
    code, found = verify(tmp_path)
    assert (code, found["ok"], found["events"], found["first_bad_event"]) == (0, True, 5, None)
    assert verify(tmp_path, "--noted", found["head"])[0] == 0
    assert verify(tmp_path, "--noted", GENESIS)[0] == 1
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET message = 'x' WHERE id = 4")
    code, found = verify(tmp_path)
    assert (code, found["ok"], found["first_bad_event"]) == (1, False, 4)
