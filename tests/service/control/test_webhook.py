"""A person is asked: once in the log, and by the webhook until it has taken the question."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from service.control.gauges import Gauges
from service.control.reconciler import Reconciler
from service.control.residency import ResidencyKeeper
from service.control.webhook import Webhook
from service.core.cycle import CycleState
from service.ports import Store
from service.settings import PromotionSettings, Settings
from service.telemetry import ControllerMetrics
from tests.service.control.parts import HandClock
from tests.service.control.reconciling import NEW, World

URL = "https://chat.example/hook"


class Chat:
    """Where the webhook leads: refuses the first `refusals` posts."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.posts: list[dict[str, str]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.posts.append(json.loads(request.content))
        return httpx.Response(503 if len(self.posts) <= self.refusals else 200)


class Approving(World):
    """A world whose controller tells the chat."""

    chat: Chat

    def new_controller(self) -> Reconciler:
        keeper = ResidencyKeeper(self.store, self.blobs, [self.engine], self.clock, drain_s=30.0, warm=True)  # type: ignore[arg-type]
        gauges = Gauges(ControllerMetrics(CollectorRegistry()), self.store, self.settings)
        self.chat = Chat(refusals=1)
        webhook = Webhook(URL, self.clock, httpx.MockTransport(self.chat))
        return Reconciler(
            self.store, self.settings, keeper, self.launcher, gauges, self.clock, webhook=webhook
        )  # fmt: skip

    async def ticks(self, count: int, seconds: float) -> None:
        for _ in range(count):
            await self.tick(seconds)
            await asyncio.sleep(0.01)


@pytest.fixture
async def approving(store: Store, settings: Settings, tmp_path: Path) -> Approving:
    promotion = settings.promotion.model_dump() | {"mode": "approve"}
    world = Approving(store, settings.model_copy(update={"promotion": PromotionSettings(**promotion)}), tmp_path)
    await store.add_alias("support", now=world.clock.time)
    await world.store.open_cycle(
        "c1", "support", "person", reason="asked for", evidence={}, now=world.clock.time, actor="ada"  # type: ignore[arg-type]
    )  # fmt: skip
    return world


async def test_the_question_is_logged_once_and_posted_until_it_is_taken(approving: Approving) -> None:
    world = approving
    (world.blobs.root / NEW).mkdir()
    (world.blobs.root / NEW / "adapter_model.safetensors").touch()
    await world.ticks(2, 1.0)
    await world.finish_job()
    await world.ticks(3, 1.0)
    await world.shadow(60)
    await world.ticks(4, 1.0)
    assert len(world.chat.posts) == 1
    assert not (await world.store.cycle("c1")).evidence["asked"]["told"]
    await world.ticks(4, 10.0)
    assert len(world.chat.posts) == 2
    assert (await world.store.cycle("c1")).evidence["asked"]["told"]
    await world.ticks(20, 10.0)
    cycle = await world.store.cycle("c1")
    assert (cycle.state, len(world.chat.posts)) == (CycleState.SHADOWING, 2)
    assert len(await world.store.events(kinds=["cycle.asks"])) == 1
    asked = world.chat.posts[-1]
    assert (asked["event"], asked["alias"], asked["candidate"]) == ("approval_needed", "support", NEW)
    assert "trimtab approve support" in asked["text"]


async def test_a_chat_that_is_away_is_asked_less_and_less(clock: HandClock) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        raise httpx.ConnectError("away")

    tries = 0
    webhook = Webhook(URL, clock, httpx.MockTransport(away))
    for _ in range(3600):
        assert not await webhook.told("c1", {})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.time += 1.0
    assert 12 <= tries <= 25
