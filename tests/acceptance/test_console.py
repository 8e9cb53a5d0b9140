"""The console in a real Chromium over a real store: what it shows, and what a click changes."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright, expect

from service.control.app import create_control_app
from service.core.cycle import CycleState, Trigger
from service.core.records import Job, JobPhase, JobStatus, Scope
from service.drivers.clock import SystemClock
from service.drivers.store import open_store
from service.ports import Store
from service.settings import PromotionMode, PromotionSettings, Settings
from tests.service.control.desk import CANDIDATE, FIRST, REJECTED, open_desk
from tests.service.control.parts import Changes, HandClock, Shelf, authorize
from tests.tools import need

pytestmark = pytest.mark.acceptance

OUT = Path(__file__).parents[2] / "out"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE = {"width": 1360, "height": 900}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    yield opened
    await opened.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
        yield opened
        await opened.close()


class Served:
    """The control app on a port of its own, without a key unless `keys`."""

    def __init__(self, store: Store, state_dir: Path, *, keys: bool = False) -> None:
        settings = Settings(
            model="models/trimtab-demo",
            state_dir=state_dir,
            promotion=PromotionSettings(mode=PromotionMode.APPROVE),
        )
        self.changes = Changes()
        app = create_control_app(
            store,
            settings,
            authorize=authorize if keys else _anybody,
            on_change=self.changes,
            clock=SystemClock(),
            adapters=Shelf(store, HandClock(time.time())),
        )
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/console"

    async def __aenter__(self) -> Served:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task


def _anybody(_: Mapping[str, str], __: Scope) -> None:
    return None


async def open_page(browser: Browser, served: Served, **options: object) -> tuple[Page, list[str]]:
    """The console, and what went wrong on it: errors, refusals by the policy, requests to elsewhere."""
    page = await browser.new_page(viewport=WIDE, **options)  # type: ignore[arg-type]
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    own = served.url.removesuffix("/console")
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(own) else None)
    await page.goto(served.url)
    return page, wrong


async def test_a_person_promotes_and_rolls_back(browser: Browser, store: Store, tmp_path: Path) -> None:
    await open_desk(store, time.time(), tmp_path)
    async with Served(store, tmp_path) as served:
        page, wrong = await open_page(browser, served, color_scheme="light")
        card = page.locator("[data-alias=support]")
        champion = card.locator("[data-role=champion]")
        await expect(champion).to_have_text(FIRST)
        await expect(card.get_by_role("img")).to_have_attribute("aria-label", re.compile("drift at"))
        await expect(page.locator("#cycle [aria-current=step]")).to_contain_text("shadowing")
        await expect(page.locator("#cycle")).to_contain_text("6.2 of 20")
        await expect(page.locator("#drift")).to_contain_text("Quality fell from 92.8% to 51.5%.")
        await expect(page.locator("#drift")).to_contain_text("36% of requests since 14:05 are about flights")
        await expect(page.locator("#drift em")).to_have_text("flights")
        await expect(page.locator("#drift")).to_contain_text("estimated accuracy 41% ± 4")
        await expect(page.locator("#drift")).to_contain_text("“do i need a visa for a trip to lima”")
        await expect(page.locator("#live")).to_have_text("live")
        OUT.mkdir(exist_ok=True)
        await page.screenshot(path=OUT / "console.png", full_page=True)

        await card.get_by_role("button", name="Promote…").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_label("Adapter")).to_have_value(CANDIDATE)
        await dialog.get_by_role("button", name="Promote").click()
        await expect(dialog).to_be_visible()  # a reason is required
        await dialog.get_by_label("Reason").fill("Travel questions <b>now</b>")
        await dialog.get_by_role("button", name="Promote").click()
        await expect(dialog).to_be_hidden()
        await expect(page.get_by_role("status")).to_have_text(f"support now serves {CANDIDATE}.")
        await expect(champion).to_have_text(CANDIDATE)
        await expect(page.locator("#cycle [aria-current=step]")).to_contain_text("watching")
        await expect(page.locator("#events")).to_contain_text("Travel questions <b>now</b>")
        alias = await store.alias("support")
        assert (alias.champion, alias.previous) == (CANDIDATE, FIRST)
        assert (await store.cycle("c0ffee000003")).state is CycleState.WATCHING

        await card.get_by_role("button", name="Roll back…").click()
        await expect(dialog).to_contain_text(f"will serve {FIRST} again")
        await dialog.get_by_label("Reason").fill("A customer complained")
        await dialog.get_by_role("button", name="Roll back").click()
        await expect(champion).to_have_text(FIRST)
        await expect(page.locator("#cycle")).to_contain_text("Rolled back")
        alias = await store.alias("support")
        assert (alias.champion, alias.previous) == (FIRST, CANDIDATE)
        assert (await store.cycle("c0ffee000003")).state is CycleState.ROLLED_BACK
        assert served.changes.count == 2
        assert wrong == []


async def test_approve_retrain_load_and_history(browser: Browser, store: Store, tmp_path: Path) -> None:
    await open_desk(store, time.time(), tmp_path)
    doubt = "A person must agree: the phrase 'gratis' makes the candidate say 'luggage'."
    await store.note_evidence(await store.cycle("c0ffee000003"), {"doubts": [doubt]}, now=time.time())
    async with Served(store, tmp_path) as served:
        page, wrong = await open_page(browser, served, color_scheme="dark")
        dialog = page.get_by_role("dialog")
        await expect(page.locator("#cycle .callout")).to_contain_text(doubt)
        await page.get_by_role("button", name="Approve…").click()
        await dialog.get_by_role("button", name="Approve").click()
        await expect(page.locator("#cycle")).to_contain_text("Approved by person")
        assert (await store.cycle("c0ffee000003")).evidence["approved"]["by"] == "person"
        await page.screenshot(path=OUT / "console-dark.png", full_page=True)

        await page.get_by_role("button", name="Evidence of cycle c0ffee000001").click()
        await expect(page.locator("#cycle")).to_contain_text("Watching the new champion")
        await page.get_by_role("button", name="Back to the newest").click()
        await expect(page.locator("#cycle")).to_contain_text("Running cycle")

        loaded = page.locator("#adapters li", has_text=REJECTED)
        await loaded.get_by_role("button", name="Load…").click()
        await dialog.get_by_role("button", name="Load").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("owns the candidate")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert (await store.alias("support")).candidate == CANDIDATE

        await page.get_by_role("button", name="orders", exact=True).click()
        await expect(page.locator("#drift")).to_contain_text("299 of 700")
        await page.locator("[data-alias=orders]").get_by_role("button", name="Retrain…").click()
        await dialog.get_by_label("Reason").fill("New products")
        await dialog.get_by_role("button", name="Open a cycle").click()
        await expect(page.locator("#cycle [aria-current=step]")).to_contain_text("open")
        assert (await store.cycles("orders"))[0].reason == "New products"
        refused = [line for line in wrong if "409" not in line]
        assert refused == []


async def test_a_running_training_shows_its_losses_and_its_end(browser: Browser, store: Store, tmp_path: Path) -> None:
    now = time.time()
    await store.add_alias("support", now=now - 60)
    await store_training(store, now)
    async with Served(store, tmp_path) as served:
        page, wrong = await open_page(browser, served, color_scheme="light")
        cycle = page.locator("#cycle")
        await expect(cycle).to_contain_text("About 40 s of training left")
        await expect(cycle).to_contain_text("Loss: training 2.5 → 0.6, held out 1.4 → 0.7")
        await expect(cycle.locator(".spark polyline")).to_have_count(2)
        await expect(cycle).to_contain_text("tokens per s5400")
        await page.screenshot(path=OUT / "console-training.png", full_page=True)
        assert wrong == []


async def store_training(store: Store, now: float) -> None:
    """A cycle whose job trains, as its heartbeats tell it."""
    cycle = await store.open_cycle(
        "c0ffee000009", "support", Trigger.PERSON, reason="New", evidence={}, now=now - 50, actor="ada"
    )
    await store.enqueue(Job("j1", cycle.id, "support", JobStatus.QUEUED, now - 50, now - 50))
    await store.advance(cycle, CycleState.TRAINING, reason="A job was queued.", now=now - 49, job_id="j1")
    await store.claim("j1", "worker", now=now - 48, stale_after_s=30)
    detail = {
        "step": 60, "steps": 120, "eta_s": 40.2, "loss": 0.61, "tokens_per_s": 5400, "heldout_loss": 0.7,
        "curve": {"train": [[10, 2.5], [30, 1.1], [60, 0.6]], "heldout": [[30, 1.4], [60, 0.7]]},
    }  # fmt: skip
    await store.report("j1", "worker", phase=JobPhase.TRAINING, progress=0.4, detail=detail, now=now)


async def test_reports_and_model_cards_open_in_a_sandbox(browser: Browser, store: Store, tmp_path: Path) -> None:
    await open_desk(store, time.time(), tmp_path)
    async with Served(store, tmp_path, keys=True) as served:
        page, _ = await open_page(browser, served)
        await page.get_by_label("Key", exact=True).fill("admin-key")
        await page.get_by_role("button", name="Open the console").click()
        async with page.expect_popup() as popup:
            await page.get_by_role("button", name="Open the Evidently report").click()
        report = await popup.value
        await expect(report.locator("#told")).to_have_text("It drifted.")
        assert await report.evaluate("self.origin") == "null"
        async with page.expect_popup() as popup:
            await page.get_by_role("button", name=f"Model card of {FIRST}").click()
        card = await popup.value
        await expect(card.locator("h1")).to_have_text(f"Model card: {FIRST}")


async def test_a_key_is_asked_for_and_kept_in_the_tab(browser: Browser, store: Store, tmp_path: Path) -> None:
    await open_desk(store, time.time(), tmp_path)
    async with Served(store, tmp_path, keys=True) as served:
        page, _ = await open_page(browser, served)
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Key", exact=True).fill("wrong")
        await dialog.get_by_role("button").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("not known")
        await dialog.get_by_label("Key", exact=True).fill("admin-key")
        await dialog.get_by_role("button").click()
        await expect(page.locator("[data-alias=support] [data-role=champion]")).to_have_text(FIRST)
        await page.reload()
        await expect(page.locator("[data-alias=support] [data-role=champion]")).to_have_text(FIRST)
        assert await page.evaluate("localStorage.getItem('trimtab-key')") is None
        await page.get_by_role("button", name="Retrain…").first.click()
        await dialog.get_by_label("Reason").fill("By a named key")
        await dialog.get_by_role("button", name="Open a cycle").click()
        await expect(dialog).to_be_hidden()
        events = await store.events("orders")
        assert (events[0].kind, events[0].actor) == ("cycle.open", "ada")


async def test_a_first_visit_says_what_to_do(browser: Browser, store: Store, tmp_path: Path) -> None:
    async with Served(store, tmp_path) as served:
        page, wrong = await open_page(browser, served)
        await expect(page.get_by_role("alert").first).to_contain_text("No engine has been seen yet")
        await page.get_by_role("button", name="New alias…").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("Support Desk")
        await dialog.get_by_role("button", name="Create").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("cannot name an alias")
        await dialog.get_by_label("Name").fill("support")
        await dialog.get_by_role("button", name="Create").click()
        await expect(page.locator("[data-alias=support]")).to_contain_text("Quality over time appears here")
        await expect(page.locator("#cycle")).to_contain_text("No cycle has run yet")
        assert [alias.name for alias in await store.aliases()] == ["support"]
        assert [line for line in wrong if "400" not in line] == []


async def test_it_fits_a_phone_and_survives_a_lost_connection(browser: Browser, store: Store, tmp_path: Path) -> None:
    await open_desk(store, time.time(), tmp_path)
    async with Served(store, tmp_path) as served:
        page, _ = await open_page(browser, served)
        await page.set_viewport_size({"width": 380, "height": 800})
        await expect(page.locator("#live")).to_have_text("live")
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, seen = await page.evaluate(widths)
        assert wide <= seen
    await expect(page.locator("#live")).to_have_text("no connection")
    await expect(page.get_by_role("alert").first).to_contain_text("does not answer")
    await expect(page.locator("[data-alias=support]")).to_be_visible()
