from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.drivers.store import open_store
from service.ports import Store
from service.settings import PromotionMode, PromotionSettings, Settings, load_settings
from tests.service.control.parts import Changes, HandClock, control_app
from tests.service.control.reconciling import FILES, NEW, World


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, promotion=PromotionSettings(mode=PromotionMode.APPROVE))


@pytest.fixture
async def api(store: Store, settings: Settings, clock: HandClock, changes: Changes) -> AsyncIterator[httpx.AsyncClient]:
    """The control plane as an admin meets it."""
    transport = httpx.ASGITransport(control_app(store, settings, clock, changes=changes), raise_app_exceptions=False)
    headers = {"authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers) as client:
        yield client


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "adapters" / NEW
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", migrate=True)
    sizes = {"promotion": {"cooldown_s": 10.0, "watch_s": 20.0, "watch_min_labelled": 10, "max_failures": 2}}
    settings = load_settings(overrides={"state_dir": tmp_path, "retrain": {"max_wait_s": 0.5}, **sizes})
    await store.add_alias("support", now=1.0)
    yield World(store, settings, tmp_path / "adapters")
    await store.close()
