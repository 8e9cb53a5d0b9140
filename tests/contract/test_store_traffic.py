"""Traffic: batches may arrive twice, feedback early, late or twice, and the latest counts."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import BadRequest, NotFound
from service.core.records import Capture, Feedback, ShadowReply
from service.drivers.store import SqlStore

NEW = "support@" + "b" * 12


def capture(i: int, **changes: object) -> Capture:
    values = {
        "request_id": f"r{i}", "at": float(i), "alias": "support", "adapter": "base", "engine": "http://e",
        "prompt": [{"role": "user", "content": f"héllo {i}"}], "reply": f"reply {i}", "status": 200,
        "duration_s": 0.25, "ttft_s": 0.1, "prompt_tokens": 7, "completion_tokens": 3, "confidence": -0.5,
        "finish_reason": "stop", "streamed": True, "source": "app", "tags": {},
    }  # fmt: skip
    return Capture(**values | changes)  # type: ignore[arg-type]


def feedback(i: int, at: float, *, expected: str | None = None, rating: float | None = None) -> Feedback:
    return Feedback(f"f{i}-{at}", f"r{i}", at, rating, expected, {"by": "agent"})


def shadow(i: int, candidate: str = NEW, **changes: object) -> ShadowReply:
    values = {"at": i + 0.5, "reply": f"shadow {i}", "status": 200, "duration_s": 0.5, "confidence": -0.1}
    return ShadowReply(**{"request_id": f"r{i}", "candidate": candidate} | values | changes)  # type: ignore[arg-type]


async def ids(store: SqlStore, **asked: object) -> list[str]:
    asked = {"since": 0.0, "limit": 100} | asked
    return [one.capture.request_id for one in await store.window("support", **asked)]  # type: ignore[arg-type]


async def test_captures_arrive_whole_and_once(store: SqlStore) -> None:
    await store.add_captures([])
    await store.add_captures([capture(1), capture(2)])
    await store.add_captures([capture(2, reply="changed"), capture(3)])
    assert (await store.capture("r2")).capture == capture(2)
    assert (await store.capture("r2")).feedback is None
    assert await ids(store) == ["r1", "r2", "r3"]
    with pytest.raises(NotFound, match="no request 'r9'"):
        await store.capture("r9")


async def test_a_batch_may_hold_a_row_twice(store: SqlStore) -> None:
    await store.add_captures([capture(1), capture(1)])
    await store.add_feedback([feedback(1, 5.0, rating=1.0), feedback(1, 5.0, rating=1.0)])
    await store.add_shadow_replies([shadow(1), shadow(1)])
    assert len(await store.paired("support", NEW, since=0.0, limit=9)) == 1


async def test_a_window_is_bounded_ordered_and_successful(store: SqlStore) -> None:
    await store.add_captures(
        [
            *(capture(i) for i in (5, 3, 1, 2, 4)),
            capture(6, status=502),
            capture(7, error="the client went away"),
            capture(8, alias="other"),
        ]
    )
    assert await ids(store) == ["r1", "r2", "r3", "r4", "r5"]
    assert await ids(store, since=2.0, until=4.0) == ["r3", "r4"]
    assert await ids(store, limit=2) == ["r1", "r2"]
    assert await ids(store, limit=2, newest=True) == ["r4", "r5"]
    assert await ids(store, limit=2, newest=True, until=3.0) == ["r2", "r3"]
    assert await store.count("support", since=2.0) == 3


@pytest.mark.parametrize("order", ["early", "late"])
async def test_feedback_joins_its_capture(store: SqlStore, order: str) -> None:
    told = feedback(1, 9.0, expected="right", rating=-1.0)
    if order == "early":
        await store.add_feedback([told])
        with pytest.raises(NotFound):
            await store.capture("r1")
        await store.add_captures([capture(1), capture(2)])
    else:
        await store.add_captures([capture(1), capture(2)])
        await store.add_feedback([told])
    assert (await store.capture("r1")).feedback == told
    assert [one.feedback for one in await store.window("support", since=0.0, limit=9)] == [told, None]
    assert await ids(store, labelled_only=True) == ["r1"]
    assert await store.count("support", since=0.0, labelled_only=True) == 1


async def test_the_latest_feedback_counts_in_whatever_order_it_comes(store: SqlStore) -> None:
    await store.add_captures([capture(1)])
    await store.add_feedback([feedback(1, 20.0, expected="second")])
    await store.add_feedback([feedback(1, 10.0, expected="first"), feedback(1, 20.0, expected="second")])
    assert (await store.capture("r1")).feedback == feedback(1, 20.0, expected="second")
    await store.add_feedback([feedback(1, 30.0)])
    assert (await store.capture("r1")).feedback == feedback(1, 30.0)
    assert await ids(store, labelled_only=True) == []


async def test_captures_and_feedback_meet_when_they_arrive_at_once(open_one) -> None:  # type: ignore[no-untyped-def]
    one, two, three = [await open_one() for _ in range(3)]
    for start in range(0, 200, 20):
        batch = range(start, start + 20)
        await asyncio.gather(
            one.add_captures([capture(i) for i in batch]),
            two.add_feedback([feedback(i, 1000.0, rating=-1.0) for i in batch]),
            three.add_feedback([feedback(i, 2000.0, rating=1.0) for i in reversed(batch)]),
        )
    found = await one.window("support", since=-1.0, limit=1000, labelled_only=True)
    assert len(found) == 200
    assert {one.feedback.rating for one in found if one.feedback} == {1.0}


async def test_pairs_need_both_replies_and_a_label(store: SqlStore) -> None:
    await store.add_captures([*(capture(i) for i in range(1, 9)), capture(9, adapter=NEW), capture(10, status=500)])
    await store.add_shadow_replies(
        [
            *(shadow(i) for i in (1, 2, 3, 4, 9, 10)),
            shadow(5, "support@" + "c" * 12),
            shadow(6, status=504, error="too late"),
        ]
    )
    await store.add_feedback(
        [feedback(i, 50.0, expected=f"right {i}") for i in (5, 4, 1, 6, 9, 10)]
        + [feedback(2, 50.0, rating=0.0), feedback(3, 50.0)]
    )
    pairs = await store.paired("support", NEW, since=0.0, limit=9)
    assert [pair.capture.request_id for pair in pairs] == ["r1", "r2", "r4"]
    assert pairs[0].capture == capture(1)
    assert pairs[0].feedback == feedback(1, 50.0, expected="right 1")
    assert pairs[0].shadow == shadow(1)
    assert [p.capture.request_id for p in await store.paired("support", NEW, since=1.0, limit=1)] == ["r2"]


async def test_a_large_batch_arrives(store: SqlStore) -> None:
    await store.add_feedback([feedback(i, 5.0, rating=1.0) for i in range(2000)])
    await store.add_captures([capture(i) for i in range(2000)])
    assert await store.count("support", since=-1.0, labelled_only=True) == 2000


async def test_a_refused_row_says_so_and_leaves_nothing(store: SqlStore) -> None:
    with pytest.raises(BadRequest, match="refuses this row"):
        await store.add_captures([capture(1), capture(2, reply="half a \ud83d pair")])
    with pytest.raises(BadRequest, match="refuses this row"):
        await store.add_captures([capture(1), capture(2, prompt_tokens=2**70)])
    with pytest.raises(BadRequest, match="refuses this row"):
        await store.add_captures([capture(1), capture(2, prompt=[{"content": object()}])])
    with pytest.raises(BadRequest, match="refuses this row"):
        await store.add_feedback([feedback(1, 5.0, rating=1.0), feedback(2, 5.0, rating=7.0)])
    assert await ids(store) == []
    await store.add_captures([capture(1), capture(2)])
    assert await ids(store, labelled_only=True) == []


async def test_a_nul_in_text_is_refused_or_kept_never_mangled(store: SqlStore, store_url: str) -> None:
    odd = capture(1, reply="a\x00b", prompt=[{"role": "user", "content": "c\x00d"}])
    if store_url.startswith("postgresql"):
        with pytest.raises(BadRequest, match="NUL"):
            await store.add_captures([odd])
        odd = capture(1, prompt=odd.prompt)
    await store.add_captures([odd])
    assert (await store.capture("r1")).capture == odd


async def test_a_slice_is_read_by_its_tag(store: SqlStore) -> None:
    tags = [{"channel": "web"}, {"channel": "app", "tier": "a=b"}, {}, {"channel": "web", "tier": "gold"}, {"tier": ""}]
    rows = [capture(i, tags=found) for i, found in enumerate(tags, start=1)]
    await store.add_captures(rows[:3])
    await store.add_captures([*rows, capture(6, status=500, tags={"channel": "web"}), capture(7, alias="other")])
    assert (await store.capture("r2")).capture == rows[1]
    assert await ids(store, tag="channel=web") == ["r1", "r4"]
    assert await ids(store, tag="channel=web", since=1.0) == ["r4"]
    assert await ids(store, tag="channel=web", until=1.0) == ["r1"]
    assert await ids(store, tag="channel=web", limit=1, newest=True) == ["r4"]
    assert await ids(store, tag="tier=a=b") == ["r2"]
    assert await ids(store, tag="tier=") == ["r5"]
    assert await ids(store, tag="channel=nowhere") == []
    assert await store.tags("support", "channel", limit=9) == ["channel=app", "channel=web"]
    assert await store.tags("support", "tier", limit=2) == ["tier=", "tier=a=b"]
    assert await store.tags("support", "absent", limit=9) == []
    assert await store.tags("other", "channel", limit=9) == []


async def test_failures_are_told_of_one_adapter_in_order(store: SqlStore) -> None:
    failing = [
        capture(i, adapter=NEW, status=502 if i % 3 == 0 else 200, error="x" if i % 3 == 0 else None)
        for i in range(1, 7)
    ]
    await store.add_captures([*failing, capture(7), capture(8, status=499, adapter=NEW, error="gone")])
    assert await store.failed("support", NEW, since=1.0, limit=9) == [False, True, False, False, True, False]
    assert await store.failed("support", NEW, since=1.0, limit=2) == [False, True]


async def test_requests_that_both_answered_come_with_or_without_label_and_with_failed_shadows(store: SqlStore) -> None:
    await store.add_captures([capture(i) for i in range(1, 5)] + [capture(5, adapter=NEW), capture(6, status=502)])
    await store.add_feedback([feedback(1, 9.0, expected="x")])
    other, late = shadow(4, "support@" + "d" * 12), shadow(3, status=504, error="late")
    await store.add_shadow_replies([shadow(1), shadow(2), late, other, shadow(5), shadow(6)])
    found = await store.beside("support", NEW, since=1.0, limit=9)
    assert [(one.capture.request_id, one.shadow.status) for one in found] == [("r2", 200), ("r3", 504)]
    assert found[0].shadow == shadow(2)
