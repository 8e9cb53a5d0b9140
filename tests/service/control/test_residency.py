"""An adapter that nobody wants leaves an engine in two ticks: out of the store's view first, then out of the engine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.control.residency import ResidencyKeeper
from service.core.errors import EngineFailed, NotFound
from service.core.records import Adapter, Alias, EngineView, Lease
from service.drivers.adapter_files import adapter_digest

OLD, NEW = "support@111111111111", "support@222222222222"
LEASE = Lease("controller", "me", 1, 1e9)
WANTED, UNWANTED = Alias("support", champion=NEW, previous=OLD), Alias("support", champion=NEW)


@dataclass
class Engine:
    url: str = "http://engine"
    resident: set[str] = field(default_factory=lambda: {OLD, NEW})

    async def ready(self) -> bool:
        return True

    async def models(self) -> tuple[str, frozenset[str]]:
        return "base-model", frozenset(self.resident)

    async def load(self, name: str, path: str) -> None:
        self.resident.add(name)

    async def unload(self, name: str) -> None:
        self.resident.discard(name)

    async def warm(self, model: str) -> None: ...


@dataclass
class Clock:
    time: float = 0.0

    def now(self) -> float:
        return self.time


class Registry:
    """What the store would know of the engines; no adapter can be loaded again from it."""

    def __init__(self) -> None:
        self.views: Sequence[EngineView] = ()

    async def report_engines(self, engines: Sequence[EngineView], *, fence: Lease | None = None) -> None:
        self.views = engines

    async def adapter(self, name: str) -> Adapter:
        raise NotFound(f"{name} is not here.")


class World:
    def __init__(self) -> None:
        self.engine, self.clock, self.registry = Engine(), Clock(), Registry()
        self.keeper = ResidencyKeeper(
            self.registry, None, [self.engine], self.clock, drain_s=30.0, warm=False  # type: ignore[arg-type]
        )  # fmt: skip

    async def tick(self, alias: Alias, seconds: float = 1.0) -> frozenset[str]:
        """What the store says is resident after one pass."""
        self.clock.time += seconds
        await self.keeper.converge([alias], [], LEASE)
        return self.registry.views[0].resident


async def test_what_nobody_wants_is_withdrawn_after_the_drain_and_unloaded_a_tick_later() -> None:
    world = World()
    assert await world.tick(UNWANTED) == {OLD, NEW}
    assert await world.tick(UNWANTED, 29.0) == {OLD, NEW}
    assert await world.tick(UNWANTED) == {NEW}
    assert world.engine.resident == {OLD, NEW}
    assert await world.tick(UNWANTED) == {NEW}
    assert world.engine.resident == {NEW}


async def test_what_is_wanted_again_between_the_two_ticks_stays() -> None:
    world = World()
    await world.tick(UNWANTED)
    assert await world.tick(UNWANTED, 30.0) == {NEW}
    assert await world.tick(WANTED) == {OLD, NEW}
    assert world.engine.resident == {OLD, NEW}
    assert await world.tick(UNWANTED) == {OLD, NEW}, "the drain begins anew"


@dataclass
class Shelf:
    """An adapter store with one folder."""

    folder: Path

    async def local(self, prefix: str) -> str:
        return str(self.folder)


class Registered(Registry):
    """Knows the adapter by the digest of the files that it was registered with."""

    def __init__(self, digest: str) -> None:
        super().__init__()
        self.digest = digest

    async def adapter(self, name: str) -> Adapter:
        return Adapter(name, "support", self.digest, "b" * 64, 8, 1, 0.0)


@pytest.mark.parametrize("changed", [False, True])
async def test_files_are_loaded_only_as_they_were_registered(
    tmp_path: Path, changed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    registry = Registered(adapter_digest(files))
    if changed:
        (tmp_path / "adapter_model.safetensors").write_bytes(b"others")
    engine = Engine(resident=set())
    keeper = ResidencyKeeper(
        registry, Shelf(tmp_path), [engine], Clock(), drain_s=30.0, warm=False  # type: ignore[arg-type]
    )  # fmt: skip
    await keeper.converge([UNWANTED], [], LEASE)
    assert engine.resident == (set() if changed else {NEW})
    assert registry.views[0].resident == engine.resident
    assert ("have changed" in capsys.readouterr().err) == changed


class Disk(Engine):
    """An engine that reads adapters from the folder that it is told."""

    async def load(self, name: str, path: str) -> None:
        if not Path(path, "adapter_model.safetensors").is_file():  # noqa: ASYNC240
            raise EngineFailed(f"There is nothing at {path}.")
        self.resident.add(name)


@dataclass
class Fetching:
    """A remote adapter store: `local` puts the files where they are missing."""

    cache: Path
    files: dict[str, bytes]

    async def local(self, prefix: str) -> str:
        folder = self.cache / prefix
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return str(folder)


async def test_engines_that_restart_grow_in_number_and_lose_their_disk_hold_the_champion_again(tmp_path: Path) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
    registry, shelf = Registered(adapter_digest(files)), Fetching(tmp_path / "cache", files)
    engines: list[Engine] = [Disk("http://one", set())]
    keeper = ResidencyKeeper(registry, shelf, engines, Clock(), drain_s=30.0, warm=False)  # type: ignore[arg-type]

    async def held(ticks: int = 1) -> dict[str, bool]:
        for _ in range(ticks):
            await keeper.converge([UNWANTED], [], LEASE)
        return {view.url: view.resident == {NEW} for view in registry.views}

    assert await held() == {"http://one": True}
    engines[0].resident.clear()
    assert await held() == {"http://one": True}
    engines += [Disk("http://two", set()), Disk("http://three", set())]
    assert await held() == {"http://one": True, "http://two": True, "http://three": True}
    del engines[1:]
    assert await held() == {"http://one": True}
    shutil.rmtree(tmp_path / "cache")
    engines[0].resident.clear()
    assert await held(2) == {"http://one": True}
