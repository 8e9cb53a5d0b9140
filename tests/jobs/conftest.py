"""A real store in a file, a real folder of adapters, and a tiny base model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from retrain_jobs.base import prepare_process
from service.drivers.store import SqlStore, open_store
from service.drivers.upgrade import upgrade_store
from service.settings import AliasSettings, BlobSettings, EngineSettings, RetrainSettings, Settings, StoreSettings
from tests.jobs.queue import NEW, OLD
from tests.jobs.rows import desk
from tests.jobs.tiny import save_tiny


@pytest.fixture(autouse=True)
def precision_of_a_fresh_process() -> Iterator[None]:
    """Loading a base model sets it for the whole process, which a job has for itself."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_process(threads=1, nice=0)
    texts = [row.capture.prompt[0]["content"] for row in desk([*OLD, *NEW], 40, start=0)]
    return save_tiny(tmp_path_factory.mktemp("tiny"), texts)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "trimtab.db"
    upgrade_store(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Settings:
    """Settings of a service whose state lies in `tmp_path`; the base model is not there."""
    shutil.copy(empty_store, tmp_path / "trimtab.db")
    golden = tmp_path / "golden.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"golden {kind} question {n}"}], "expected": kind}
        for n in range(5)
        for kind in OLD
    ]
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Settings(
        model=str(tmp_path / "no-model"),
        state_dir=tmp_path,
        aliases={"support": AliasSettings(golden_set=golden)},
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}"),
        blobs=BlobSettings(url=(tmp_path / "adapters").as_uri()),
        engine=EngineSettings(max_lora_rank=8),
        retrain=RetrainSettings(
            min_examples=10, rank=8, alpha=16, epochs=8, batch_size=16, learning_rate=0.02, threads=1, nice=0,
            heartbeat_s=0.05, patience=8,
        ),
    )  # fmt: skip


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[SqlStore]:
    opened = await open_store(settings.store_url)
    yield opened
    await opened.close()
