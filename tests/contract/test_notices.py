"""PostgreSQL tells gateways of flips: each change is heard, and a lost connection is an error, not silence."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.core.errors import Unavailable
from service.core.records import Adapter, EngineView
from service.drivers.notices import routing_notices
from service.drivers.store import open_store
from tests.contract.conftest import emptied
from tests.service.gateway.live import CHAMPION, CHAT, engine, eventually, gateway, post, session


@pytest.fixture
def url(migrated_postgres: str) -> str:
    return emptied(migrated_postgres)


async def test_each_change_of_an_alias_is_heard_and_nothing_else(url: str) -> None:
    store, notices = await open_store(url), routing_notices(url)
    await store.add_alias("support", now=1.0)
    async with asyncio.timeout(10.0):
        await anext(notices)
        await store.add_adapter(Adapter(CHAMPION, "support", "1" * 64, "b" * 64, 8, 1, 1.0))
        hearing = asyncio.create_task(anext(notices))
        await asyncio.sleep(0.2)
        assert not hearing.done()
        await store.promote("support", CHAMPION, actor="ada", reason="better", now=2.0)
        await hearing
        await store.rollback("support", actor="ada", reason="worse", now=3.0)
        await anext(notices)
    await notices.aclose()
    await store.close()


async def test_a_lost_connection_is_told(url: str) -> None:
    notices = routing_notices(url)
    await anext(notices)
    hearing = asyncio.create_task(anext(notices))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert connection.execute(sa.text(others)).scalars().all() == [True]
    engine.dispose()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(hearing, 10.0)


async def test_a_gateway_that_hardly_ever_asks_follows_a_flip_at_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    async with engine(tmp_path) as stub, session() as client:
        await stub.load(CHAMPION)
        store = await open_store(url)
        await store.add_alias("support", now=0.0)
        await store.add_adapter(Adapter(CHAMPION, "support", "1" * 64, "b" * 64, 8, 1, 1.0))
        await store.report_engines([EngineView(stub.url, True, frozenset({CHAMPION}), time.time(), "base")])
        section = {"routing_poll_s": 3600.0}
        async with gateway(tmp_path / "state", [stub], store={"url": url}, gateway=section) as serving:
            assert (await post(client, serving.url, CHAT)).headers["x-trimtab-adapter"] == "base"
            await store.promote("support", CHAMPION, actor="ada", reason="better", now=2.0)

            async def follows() -> bool:
                return (await post(client, serving.url, CHAT)).headers["x-trimtab-adapter"] == CHAMPION

            await eventually(follows, 10.0)
        await store.close()
