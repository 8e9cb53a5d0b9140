"""Alertmanager's webhook: what it opens, what it does not, and that it is never refused for what it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.core.cycle import CycleState, Trigger
from service.ports import Store
from service.settings import PromotionMode, PromotionSettings, RetrainSettings, Settings
from tests.service.control.parts import Changes, HandClock, control_app


def fired(alias: str = "support", *, status: str = "firing", name: str = "TrimtabQualityLow") -> dict[str, Any]:
    """As https://prometheus.io/docs/alerting/latest/configuration/#webhook_config has it."""
    labels = {"alertname": name, "alias": alias, "severity": "page"}
    return {
        "status": status, "labels": labels, "annotations": {"summary": "x"}, "startsAt": "2026-11-20T14:05:00Z",
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p", "fingerprint": "f",
    }  # fmt: skip


def webhook(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "trimtab",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am",
        "alerts": list(alerts),
    }  # fmt: skip


@pytest.fixture(autouse=True)
async def alias(store: Store) -> None:
    await store.add_alias("support", now=0.0)


async def answers(api: httpx.AsyncClient, *alerts: dict[str, Any]) -> list[dict[str, Any]]:
    reply = await api.post("/api/v1/alerts", json=webhook(*alerts))
    assert reply.status_code == 200, reply.text
    return list(reply.json()["data"])


async def test_a_firing_alert_opens_one_cycle_and_says_which(api: httpx.AsyncClient, store: Store) -> None:
    (answer,) = await answers(api, fired(), fired(name="Other"))
    (cycle,) = await store.cycles("support")
    assert (cycle.state, cycle.trigger) == (CycleState.OPEN, Trigger.ALERT)
    assert answer == {"alias": "support", "alert": "TrimtabQualityLow", "cycle": cycle.id, "reason": cycle.reason}
    assert cycle.evidence["alert"]["name"] == "TrimtabQualityLow"
    (again,) = await answers(api, fired())
    assert again["cycle"] is None
    assert "open" in again["reason"]
    assert len(await store.cycles("support")) == 1


async def test_what_is_resolved_or_about_nobody_opens_nothing(api: httpx.AsyncClient, store: Store) -> None:
    nobody = fired("nobody")
    without = {**fired(), "labels": {"alertname": "InstanceDown"}}
    (answer,) = await answers(api, fired(status="resolved"), nobody, without)
    assert (answer["alias"], answer["cycle"]) == ("nobody", None)
    assert "nobody" in answer["reason"]
    assert await store.cycles() == []


async def test_what_is_no_webhook_is_a_400(api: httpx.AsyncClient) -> None:
    reply = await api.post("/api/v1/alerts", json={"alert": "x"})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "alerts"


@pytest.mark.parametrize("why", ["manual", "latched", "cooldown", "budget"])
async def test_what_holds_drift_back_holds_alerts_back(
    store: Store, settings: Settings, clock: HandClock, changes: Changes, why: str
) -> None:
    if why == "manual":
        settings = settings.model_copy(update={"promotion": PromotionSettings(mode=PromotionMode.MANUAL)})
    if why == "latched":
        await store.set_health("support", failures=3, latched=True, now=clock.now())
    if why in {"cooldown", "budget"}:
        for number in range(2):
            opened = await store.open_cycle(
                f"c{number}", "support", Trigger.PERSON, reason="x", evidence={}, now=clock.now(), actor="ann"
            )
            await store.advance(opened, CycleState.FAILED, reason="x", now=clock.now())
    if why == "budget":
        brisk = PromotionSettings(cooldown_s=1e-6)
        settings = settings.model_copy(update={"promotion": brisk, "retrain": RetrainSettings(max_cycles_per_day=2)})
    words = {"manual": "manual", "latched": "unlatch", "cooldown": "cooldown_s", "budget": "max_cycles_per_day"}
    transport = httpx.ASGITransport(control_app(store, settings, clock, changes=changes))
    headers = {"authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as api:
        clock.time += 1.0
        (answer,) = await answers(api, fired())
    assert answer["cycle"] is None
    assert words[why] in answer["reason"]
