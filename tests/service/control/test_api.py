"""The admin API over a real SQLite store: reading, keys, adapters, reports, and every way to ask wrongly."""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from service.core.cycle import CycleState, Trigger
from service.core.errors import Unavailable
from service.core.records import Capture, DriftCheck, Feedback
from service.ports import Store
from service.settings import Settings
from tests.service.control.desk import CANDIDATE, FIRST, open_desk
from tests.service.control.parts import Changes, HandClock, control_app

FILES = [
    ("files", ("adapter_config.json", b"{}", "application/json")),
    ("files", ("adapter_model.safetensors", b"weights", "application/octet-stream")),
]


def fault(reply: httpx.Response, status: int, code: str) -> str:
    """The message of an error that has the right status, code and shape."""
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return str(error["message"])


# The door


async def test_nothing_is_answered_without_an_admin_key(api: httpx.AsyncClient) -> None:
    paths = list((await api.get("/openapi.json")).json()["paths"])
    assert len(paths) > 15
    for path in paths:
        assert path.startswith("/api/v1/")
        fault(await api.get(path, headers={"authorization": ""}), 401, "invalid_api_key")
        fault(
            await api.post(path, content=b"{", headers={"authorization": "Bearer app-key"}), 403, "insufficient_scope"
        )


@pytest.mark.parametrize("root", ["", "/a", "/api", "/api/v1"])
async def test_no_prefix_leads_past_the_door(store: Store, settings: Settings, clock: HandClock, root: str) -> None:
    transport = httpx.ASGITransport(control_app(store, settings, clock), root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as api:
        for path in ("/api/v1/status", f"{root}/api/v1/status"):
            assert (await api.get(path)).status_code in {401, 404}
        fault(await api.get(f"{root}/api/v1/status"), 401, "invalid_api_key")


async def test_a_page_of_another_site_cannot_change_anything(api: httpx.AsyncClient, store: Store) -> None:
    await store.add_alias("support", now=1.0)
    reply = await api.post(
        "/api/v1/aliases/support/retrain", json={"reason": "x"}, headers={"sec-fetch-site": "cross-site"}
    )
    fault(reply, 403, "insufficient_scope")
    assert await store.cycles("support") == []


async def test_bodies_are_bounded_with_and_without_a_length(api: httpx.AsyncClient) -> None:
    async def endless():  # type: ignore[no-untyped-def]
        for _ in range(20):
            yield b" " * 100_000

    fault(await api.post("/api/v1/aliases", content=b" " * 2_000_000), 413, "request_too_large")
    headers = {"content-type": "application/json"}
    fault(await api.post("/api/v1/aliases", content=endless(), headers=headers), 413, "request_too_large")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "The body is wrong"),
        (b"{}", "name: Field required"),
        (b'{"name": "support", "champoin": "base"}', "champoin: Extra inputs"),
        (b'{"name": "No Spaces"}', "cannot name an alias"),
        (b'{"name": "base"}', "cannot name an alias"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_fault(
    api: httpx.AsyncClient, store: Store, body: bytes, told: str
) -> None:
    reply = await api.post("/api/v1/aliases", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert told in reply.json()["error"]["message"]
    assert await store.aliases() == []


async def test_wrong_paths_methods_and_parameters(api: httpx.AsyncClient) -> None:
    fault(await api.get("/api/v1/nothing"), 404, "not_found")
    fault(await api.get("/api/v1/aliases/nobody"), 404, "not_found")
    fault(await api.get("/api/v1/cycles/none"), 404, "not_found")
    assert (await api.put("/api/v1/aliases", json={})).status_code == 405
    fault(await api.get("/api/v1/events?limit=0"), 400, "bad_request")
    fault(await api.get("/api/v1/aliases/nobody/quality?points=many"), 400, "bad_request")


async def test_a_store_that_is_away_is_a_503_and_a_fault_of_ours_a_500(
    store: Store, settings: Settings, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise Unavailable("The database does not answer; it is retried.", retry_after_s=2.0)

    async def broken() -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(control_app(store, settings, clock), raise_app_exceptions=False)
    headers = {"authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as api:
        monkeypatch.setattr(store, "aliases", away)
        reply = await api.get("/api/v1/status")
        fault(reply, 503, "unavailable")
        assert reply.headers["retry-after"] == "2"
        monkeypatch.setattr(store, "aliases", broken)
        assert "ZeroDivision" not in fault(await api.get("/api/v1/status"), 500, "internal_error")


# Reading


async def test_a_new_alias_serves_the_base_and_is_made_once(api: httpx.AsyncClient, changes: Changes) -> None:
    made = await api.post("/api/v1/aliases", json={"name": "support"})
    again = await api.post("/api/v1/aliases", json={"name": "support"})
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert made.json()["champion"] == "base"
    assert made.json()["open_cycle"] is None
    assert made.json()["quality"] == {"now": None, "labelled": 0}
    assert changes.count == 1
    assert [alias["name"] for alias in (await api.get("/api/v1/aliases")).json()["data"]] == ["support"]


async def test_an_empty_store_has_an_empty_status(api: httpx.AsyncClient) -> None:
    reply = await api.get("/api/v1/status")
    status = reply.json()
    assert reply.headers["cache-control"] == "no-store"
    assert status["mode"] == "approve"
    assert [status[part] for part in ("aliases", "engines", "adapters", "cycles", "events")] == [[], [], [], [], []]


async def test_the_status_tells_the_whole_story(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    status = (await api.get("/api/v1/status")).json()
    orders, support = status["aliases"]
    assert orders["drift"] == {"verdict": None, "enabled": True, "requests": 299, "needed": 700}
    assert orders["cycle"] is None
    assert support["champion"] == FIRST
    assert support["cycle"]["state"] == "shadowing"
    assert support["cycle"]["evidence"]["shadow"]["needed"] == 20.0
    assert support["cycle"]["job"]["status"] == "succeeded"
    assert support["cycle"]["events"][0]["kind"] == "cycle.shadowing"
    assert {event["cycle_id"] for event in support["cycle"]["events"]} == {"c0ffee000003"}
    assert support["awaits_approval"] is True
    assert [mark["kind"] for mark in support["marks"]] == ["promoted", "drifted"]
    assert support["drift"]["verdict"] == "DRIFTED"
    assert support["quality"]["now"] < 0.6 < 0.85 < orders["quality"]["now"]
    assert {a["name"]: a["resident"] for a in status["adapters"]}[CANDIDATE] is True
    assert [cycle["state"] for cycle in status["cycles"]] == ["shadowing", "rejected", "done"]


async def test_served_quality_is_the_mean_score_of_the_newest_labelled_replies(
    api: httpx.AsyncClient, store: Store, clock: HandClock
) -> None:
    await store.add_alias("support", now=0.0)
    rights = [True] * 60 + [False] * 60 + [True] * 20
    await store.add_captures(
        [Capture(f"r{i}", 1000.0 + i, "support", "base", "e", [], "yes", 200, 0.1) for i in range(len(rights) + 5)]
    )
    await store.add_feedback(
        [Feedback(f"f{i}", f"r{i}", 2000.0 + i, expected="yes" if right else "no") for i, right in enumerate(rights)]
    )
    told = (await api.get("/api/v1/aliases/support/quality?points=7")).json()
    assert told["now"] == pytest.approx(40 / 100)
    assert told["labelled"] == 100
    assert sum(point["n"] for point in told["points"]) == len(rights)
    assert [round(point["quality"]) for point in told["points"]] == [1, 1, 1, 0, 0, 0, 1]
    assert [point["at"] for point in told["points"]] == sorted(point["at"] for point in told["points"])

    await store.add_feedback([Feedback("late", "r139", 3000.0, expected="no")])
    assert (await api.get("/api/v1/aliases/support")).json()["quality"]["now"] == pytest.approx(40 / 100)
    clock.time += 2
    assert (await api.get("/api/v1/aliases/support")).json()["quality"]["now"] == pytest.approx(39 / 100)


async def test_numbers_that_json_cannot_hold_become_null(api: httpx.AsyncClient, store: Store) -> None:
    await store.add_alias("support", now=0.0)
    check = DriftCheck("c", "support", 5.0, "STABLE", [{"score": math.nan, "threshold": math.inf}], [], 1, 1)
    await store.add_drift_check(check)
    told = (await api.get("/api/v1/drift?alias=support")).json()
    assert told["data"][0]["scores"] == [{"score": None, "threshold": None}]
    assert told["latest"]["support"]["id"] == "c"


async def test_cycles_and_events_newest_first(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    cycles = (await api.get("/api/v1/cycles?alias=support")).json()["data"]
    assert [cycle["id"][-1] for cycle in cycles] == ["3", "2", "1"]
    assert "evidence" not in cycles[0]
    assert len((await api.get("/api/v1/cycles?open_only=true")).json()["data"]) == 1
    first = (await api.get("/api/v1/cycles/c0ffee000001")).json()
    assert first["evidence"]["watch"]["labelled"] == 118
    assert [e["kind"] for e in first["events"]][:2] == ["cycle.done", "cycle.watching"]
    events = (await api.get("/api/v1/events?limit=5")).json()["data"]
    assert len(events) == 5
    later = (await api.get(f"/api/v1/events?after_id={events[2]['id']}")).json()["data"]
    assert later == events[:2]


# Keys


async def test_a_key_is_shown_once_and_kept_as_a_hash(api: httpx.AsyncClient, store: Store, changes: Changes) -> None:
    made = (await api.post("/api/v1/keys", json={"name": "shop", "scopes": ["infer", "feedback"]})).json()
    assert made["secret"].startswith("tt_")
    assert len(made["secret"]) == 46
    kept = (await store.keys())[0]
    assert kept.sha256 == sha256(made["secret"].encode()).hexdigest()
    listed = await api.get("/api/v1/keys")
    assert listed.json()["data"] == [{key: value for key, value in made.items() if key != "secret"}]
    assert made["secret"] not in listed.text
    assert kept.sha256 not in listed.text
    revoked = (await api.delete(f"/api/v1/keys/{made['id']}")).json()
    assert revoked["revoked_at"] is not None
    assert changes.count == 2
    assert [event.kind for event in await store.events()] == ["key.revoked", "key.created"]
    assert {event.actor for event in await store.events()} == {"ada"}
    fault(await api.delete("/api/v1/keys/none"), 404, "not_found")
    fault(await api.post("/api/v1/keys", json={"name": "shop", "scopes": ["root"]}), 400, "bad_request")
    fault(await api.post("/api/v1/keys", json={"name": "shop", "scopes": []}), 400, "bad_request")


# Adapters


async def test_an_adapter_comes_by_upload(api: httpx.AsyncClient, store: Store, tmp_path: Path) -> None:
    await store.add_alias("support", now=0.0)
    reply = await api.post("/api/v1/adapters", data={"alias": "support"}, files=FILES)
    assert reply.status_code == 201, reply.text
    name = reply.json()["name"]
    assert (await store.adapter(name)).size_bytes == len(b"{}weights")
    assert list((tmp_path / "scratch").iterdir()) == []
    one = (await api.get(f"/api/v1/adapters/{name}")).json()
    assert one["base_digest"] == "b" * 64
    assert one["resident"] is False
    assert [a["name"] for a in (await api.get("/api/v1/adapters?alias=support")).json()["data"]] == [name]


async def test_an_adapter_comes_from_a_folder(api: httpx.AsyncClient, store: Store, tmp_path: Path) -> None:
    await store.add_alias("support", now=0.0)
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    reply = await api.post("/api/v1/adapters", json={"alias": "support", "path": str(folder)})
    assert reply.status_code == 201, reply.text
    missing = await api.post("/api/v1/adapters", json={"alias": "support", "path": str(tmp_path / "none")})
    assert "no folder" in fault(missing, 400, "bad_adapter")


async def test_wrong_uploads_are_refused_and_leave_nothing(
    api: httpx.AsyncClient, store: Store, tmp_path: Path
) -> None:
    await store.add_alias("support", now=0.0)
    form = {"alias": "support"}
    url = "/api/v1/adapters"
    escaping = [("files", ("../../adapter_config.json", b"{}", "application/json")), FILES[1]]
    pickle = [FILES[0], ("files", ("adapter_model.bin", b"", "application/octet-stream"))]
    for files in (FILES[:1], [FILES[0], FILES[0]], escaping, pickle):
        fault(await api.post(url, data=form, files=files), 400, "bad_adapter")
    fault(await api.post(url, files=FILES), 400, "bad_request")
    fault(await api.post(url, data={"alias": "nobody"}, files=FILES), 404, "not_found")
    fault(await api.post(url, data={"alias": "../x"}, files=FILES), 400, "invalid_alias")
    fault(await api.post(url, content=b"x", headers={"content-type": "text/plain"}), 400, "bad_request")
    fault(await api.post(url, content=b"{", headers={"content-type": "application/json"}), 400, "bad_request")
    fault(await api.post(url, headers={"content-length": str(5 * 2**30)}), 413, "request_too_large")
    assert await store.adapters() == []
    assert not (tmp_path / "scratch").exists() or list((tmp_path / "scratch").iterdir()) == []


# Reports


async def test_a_report_is_served_in_a_sandbox(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    reply = await api.get("/api/v1/drift/check-10/report")
    assert reply.status_code == 200
    assert "It drifted." in reply.text
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    fault(await api.get("/api/v1/drift/check-0/report"), 404, "not_found")
    fault(await api.get("/api/v1/drift/unknown/report"), 404, "not_found")


@pytest.mark.parametrize("name", ["../trimtab.db", "/etc/hostname", "..%2fx.html", "notes.txt", "", "sub/x.html"])
async def test_a_report_never_leaves_its_folder(
    api: httpx.AsyncClient, store: Store, tmp_path: Path, name: str
) -> None:
    (tmp_path / "reports" / "sub").mkdir(parents=True)
    (tmp_path / "reports" / "sub" / "x.html").write_text("secret")
    await store.add_alias("support", now=0.0)
    await store.add_drift_check(DriftCheck("evil", "support", 5.0, "DRIFTED", [], [], 1, 1, report=name))
    fault(await api.get("/api/v1/drift/evil/report"), 404, "not_found")


async def test_a_link_to_a_report_needs_no_key_and_lives_a_minute(
    api: httpx.AsyncClient, store: Store, clock: HandClock, tmp_path: Path
) -> None:
    await open_desk(store, clock.now(), tmp_path)
    href = "/" + (await api.get("/api/v1/drift/check-10/report-link")).json()["href"]
    nobody = {"authorization": ""}
    assert "It drifted." in (await api.get(href, headers=nobody)).text
    fault(await api.get(href.replace("check-10", "check-9"), headers=nobody), 403, "link_expired")
    fault(await api.get(href + "0", headers=nobody), 403, "link_expired")
    fault(await api.get("/console/reports/check-10", headers=nobody), 403, "link_expired")
    clock.time += 61
    fault(await api.get(href, headers=nobody), 403, "link_expired")


# The console's files


async def test_the_console_is_static_strict_and_self_contained(api: httpx.AsyncClient) -> None:
    page = await api.get("/console", headers={"authorization": ""})
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    names = ["console.js", "console.css", "api.js", "chart.js", "dialogs.js", "dom.js", "evidence.js", "panels.js"]
    for text in [page.text] + [(await api.get(f"/console/{name}")).text for name in names]:
        assert "innerHTML" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    fault(await api.get("/console/routes_console.py"), 404, "not_found")


async def test_evidence_of_a_cycle_may_be_missing(api: httpx.AsyncClient, store: Store, clock: HandClock) -> None:
    await store.add_alias("support", now=0.0)
    cycle = await store.open_cycle(
        "c1", "support", Trigger.PERSON, reason="try", evidence={}, now=clock.now(), actor="ada"
    )
    told = (await api.get("/api/v1/cycles/c1")).json()
    assert told["evidence"] == {}
    assert told["job"] is None
    await store.advance(cycle, CycleState.TRAINING, reason="queued", now=clock.now(), job_id="gone")
    assert (await api.get("/api/v1/cycles/c1")).json()["job"] is None
