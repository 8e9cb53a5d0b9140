from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from service.drivers.store import SqlStore, open_store
from service.monitor.embedders import Embedder, build_embedder
from service.settings import Settings
from tests.service.monitor.traffic import ALIAS, write_base_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the worker: more threads than free cores only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    write_base_model(folder)
    return folder


@pytest.fixture(scope="session")
def embedder(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    found = build_embedder(Settings(model=str(base_model), state_dir=tmp_path_factory.mktemp("state")))
    assert found is not None
    return found


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    await opened.add_alias(ALIAS, now=0.0)
    yield opened
    await opened.close()
