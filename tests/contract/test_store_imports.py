"""Imported rows: kept once, found by time, apart from the traffic."""

from __future__ import annotations

import pytest

from service.core.errors import NotFound
from service.core.records import Capture, Feedback, ImportedRow
from service.drivers.store import SqlStore


def row(i: int, alias: str = "support") -> ImportedRow:
    prompt = [{"role": "user", "content": f"héllo {i}"}]
    return ImportedRow(f"imp_{alias}{i}", alias, float(i), 50.0, prompt, f"target {i}", "import:a.csv")


async def test_rows_are_added_once_and_found_by_time(store: SqlStore) -> None:
    assert await store.add_imported([row(i) for i in range(1, 7)] + [row(1), row(3, "other")]) == 7
    assert await store.add_imported([row(6), row(7)]) == 1
    assert await store.add_imported([]) == 0
    assert await store.imported("support", since=2.0, until=6.0, limit=3) == [row(4), row(5), row(6)]
    assert await store.imported("support", since=5.0, limit=9) == [row(6), row(7)]
    assert await store.imported_row("imp_other3") == row(3, "other")
    with pytest.raises(NotFound, match="trimtab label import"):
        await store.imported_row("imp_none")
    assert await store.window("support", since=0.0, limit=9) == []
    assert await store.count("support", since=0.0) == 0


async def test_more_than_a_batch(store: SqlStore) -> None:
    assert await store.add_imported([row(i) for i in range(1, 1203)]) == 1202
    assert len(await store.imported("support", since=0.0, limit=5000)) == 1202


async def test_a_capture_keeps_its_key_and_feedback_its_source(store: SqlStore) -> None:
    capture = Capture("r1", 1.0, "support", "base", "http://e", [], "reply", 200, 0.1, source="user:u", key_id="k1")
    told = Feedback("f1", "r1", 2.0, expected="right", source="label-studio")
    await store.add_captures([capture])
    await store.add_feedback([told])
    found = await store.capture("r1")
    assert (found.capture, found.feedback) == (capture, told)
