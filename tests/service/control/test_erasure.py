"""Erasing by the API, and retention by the controller."""

from __future__ import annotations

import httpx
import pytest

from service.control.retention import Retention
from service.core.names import user_source
from service.core.records import Adapter, Capture
from service.ports import Store
from service.settings import RetentionSettings
from tests.service.control.parts import HandClock

DAY = 86_400.0


def request(i: int, at: float, *, user: str = "ann", alias: str = "support") -> Capture:
    prompt = [{"role": "user", "content": f"hello {i}"}]
    return Capture(f"r{i}", at, alias, "base", "http://e", prompt, "reply", 200, 0.1, source=user_source(user))


async def left(store: Store, alias: str = "support") -> list[str]:
    return [one.capture.request_id for one in await store.window(alias, since=0.0, limit=100_000)]


async def test_a_user_is_erased_and_the_adapters_that_learned_from_them_are_named(
    api: httpx.AsyncClient, store: Store
) -> None:
    await store.add_alias("support", now=1.0)
    await store.add_captures([request(1, 5.0), request(2, 6.0, user="bob")])
    manifest = {"dataset": {"train": ["r1", "r2"], "heldout": []}}
    for name, rows in (("support@" + "a" * 12, manifest), ("support@" + "b" * 12, {})):
        await store.add_adapter(Adapter(name, "support", name[-1] * 64, "c" * 64, 8, 1, 2.0, manifest=rows))
    reply = await api.post("/api/v1/erasures", json={"user": "ann"})
    told = reply.json()
    assert reply.status_code == 200
    assert (told["captures"], told["subject"]) == (1, user_source("ann"))
    assert [one["adapter"] for one in told["adapters"]] == ["support@" + "a" * 12]
    assert await left(store) == ["r2"]
    events = await store.events(kinds=["traffic.erased", "traffic.erased.adapters"])
    assert "support@" + "a" * 12 in events[0].message
    assert all("ann" not in event.message for event in events)


@pytest.mark.parametrize("body", [{}, {"user": "a", "request": "b"}, {"source": "bob"}, {"user": ""}])
async def test_an_erasure_names_exactly_one(api: httpx.AsyncClient, store: Store, body: dict[str, str]) -> None:
    await store.add_captures([request(1, 5.0)])
    assert (await api.post("/api/v1/erasures", json=body)).status_code == 400
    assert await left(store) == ["r1"]


async def test_old_traffic_expires_and_in_turns_however_much_there_is(store: Store) -> None:
    await store.add_alias("support", now=1.0)
    await store.add_alias("other", now=1.0)
    clock = HandClock()
    now = clock.now()
    old, new = now - 3 * DAY, now - DAY
    await store.add_captures([request(i, old) for i in range(4_500)])
    await store.add_captures([request(9_000, new), request(9_001, old, alias="other")])
    retention = Retention(store, RetentionSettings(max_age_days=2, every_s=60), clock)
    removed = await retention.expire()
    while more := await retention.expire():
        removed += more
    assert removed == 4_501
    assert await left(store) == ["r9000"]
    await store.add_captures([request(9_002, old)])
    assert await retention.expire() == 0
    clock.time += 60
    assert await retention.expire() == 1


async def test_only_the_newest_requests_are_kept(store: Store) -> None:
    await store.add_alias("support", now=1.0)
    await store.add_captures([request(i, 1.0 + i) for i in range(1_003)])
    assert await Retention(store, RetentionSettings(max_requests=1_000), HandClock()).expire() == 3
    assert (await left(store))[0] == "r3"


async def test_without_bounds_nothing_expires(store: Store) -> None:
    await store.add_alias("support", now=1.0)
    await store.add_captures([request(1, 1.0)])
    assert await Retention(store, RetentionSettings(max_requests=None), HandClock()).expire() == 0
    assert await left(store) == ["r1"]
