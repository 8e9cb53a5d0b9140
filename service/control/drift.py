"""The verdicts that the control plane acts on: an alias's own, and those of its slices."""

from __future__ import annotations

from collections.abc import Sequence

from service.core.records import DriftCheck
from service.drivers.slices import slices_of
from service.ports import Store
from service.settings import Settings


async def slice_checks(store: Store, settings: Settings, alias: str) -> Sequence[DriftCheck]:
    """The newest check of each slice of the alias that has one."""
    found: list[DriftCheck] = []
    for tag in await slices_of(store, alias, settings.slices(alias)):
        found += await store.drift_checks(alias, limit=1, slice=tag)
    return found


async def newest_check(store: Store, settings: Settings, alias: str) -> DriftCheck | None:
    """The alias's newest check, or that of a slice which asks for retraining where the alias as a whole does not."""
    own = await store.drift_checks(alias, limit=1)
    if own and own[0].retrain:
        return own[0]
    asking = [check for check in await slice_checks(store, settings, alias) if check.retrain]
    return max(asking, key=lambda check: check.at) if asking else next(iter(own), None)
