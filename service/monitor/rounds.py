"""Whose traffic is judged: each alias's, and that of each of its slices, which share one declared false-alarm rate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from service.core.errors import TrimtabError
from service.core.records import Alias, DriftCheck
from service.drivers.slices import slices_of
from service.monitor.declared import Declared
from service.monitor.views import DriftStore, Sliced
from service.settings import Settings

_log = logging.getLogger(__name__)


class Watching(Protocol):
    """`service.monitor.worker.Watch`."""

    async def check_alias(self, alias: Alias) -> DriftCheck | None: ...


class Rounds:
    """One watch for each alias and slice; made anew where the slices, and so their share, or the rate have changed."""

    def __init__(
        self,
        store: DriftStore,
        settings: Settings,
        watch_of: Callable[[DriftStore, Settings], Watching],
        declared: Declared,
    ) -> None:
        self._store = store
        self._settings = settings
        self._watch_of = watch_of
        self._declared = declared
        self._every: dict[str, int] = {}
        self._watches: dict[str, dict[str | None, Watching]] = {}

    async def check(self, alias: Alias) -> None:
        """Judge the alias and its slices; one that fails keeps the others from nothing."""
        try:
            watches = await self._watches_of(alias)
        except TrimtabError as error:
            _log.warning("Alias %r was not checked this time: %s", alias.name, error.message)
            return
        for tag, watch in watches.items():
            name = repr(alias.name) if tag is None else f"{alias.name!r}, slice {tag},"
            try:
                await watch.check_alias(alias)
            except TrimtabError as error:
                _log.warning("Alias %s was not checked this time: %s", name, error.message)
            except Exception:
                # A fault in one check must not end the process: it would start again into the same fault.
                _log.exception("Alias %s could not be checked.", name)

    async def _watches_of(self, alias: Alias) -> dict[str | None, Watching]:
        tags = await slices_of(self._store, alias.name, self._settings.slices(alias.name))
        known, every = self._watches.get(alias.name), await self._declared.every(alias.name)
        if known is not None and list(known) == [None, *tags] and self._every[alias.name] == every:
            return known
        self._every[alias.name] = every
        # Each judges as if it were alone: a rate of one in `every` is shared by asking each for less.
        alone = self._settings.drift.model_copy(update={"false_alarm_every": every * (1 + len(tags))})
        settings = self._settings.model_copy(update={"drift": alone})
        stores: dict[str | None, DriftStore] = {None: self._store, **{tag: Sliced(self._store, tag) for tag in tags}}
        self._watches[alias.name] = {tag: self._watch_of(store, settings) for tag, store in stores.items()}
        return self._watches[alias.name]
