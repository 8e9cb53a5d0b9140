"""Hand-written parts that the control plane's tests put around a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI

from service.control.app import create_control_app
from service.core.errors import Forbidden, Unauthenticated
from service.core.records import Adapter, Scope
from service.ports import Store
from service.settings import Settings

KEYS = {"Bearer admin-key": ("ada", frozenset(Scope)), "Bearer app-key": ("shop", frozenset({Scope.INFER}))}


class HandClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def authorize(headers: Mapping[str, str], scope: Scope) -> str:
    """The gateway's rule in small: one admin's key and one app's."""
    found = KEYS.get(headers.get("authorization", ""))
    if found is None:
        raise Unauthenticated("This key is not known; ask an admin for one.")
    if scope not in found[1]:
        raise Forbidden(f"This key lacks the scope {scope}.")
    return found[0]


class Shelf:
    """Registers what it is given, as the adapter store would, and remembers the files."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self._store = store
        self._clock = clock
        self.files: dict[str, bytes] = {}

    async def __call__(self, alias: str, folder: Path) -> Adapter:
        self.files = await asyncio.to_thread(_read, folder)
        digest = sha256(b"".join(self.files[name] for name in sorted(self.files))).hexdigest()
        size = sum(map(len, self.files.values()))
        adapter = Adapter(f"{alias}@{digest[:12]}", alias, digest, "b" * 64, 16, size, self._clock.now())
        await self._store.add_adapter(adapter)
        return adapter


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Changes:
    """Counts how often the gateway was told to look again."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


def control_app(store: Store, settings: Settings, clock: HandClock, *, changes: Changes | None = None) -> FastAPI:
    return create_control_app(
        store,
        settings,
        authorize=authorize,
        on_change=changes or Changes(),
        clock=clock,
        adapters=Shelf(store, clock),
    )
