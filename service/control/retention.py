"""Old traffic leaves the store, a few requests at a time, so that writers never wait long for it; new finds room."""

from __future__ import annotations

import math

from service.ports import Clock, Store
from service.settings import RetentionSettings

_DAY_S = 86_400.0
_AT_ONCE = 2_000
_TURN_S = 1.0
"""A controller has other things to do, and a lease to renew."""


class Retention:
    """Looks at each alias every `every_s`, and sooner where it did not finish."""

    def __init__(self, store: Store, settings: RetentionSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._next_at = -math.inf
        self._left: list[str | None] = []

    async def expire(self) -> int:
        """Delete what is too old or too much, for about a second at most; how many requests went."""
        now, settings = self._clock.now(), self._settings
        if not self._left and now >= self._next_at:
            self._next_at = now + settings.every_s
            if settings.max_age_days is not None or settings.max_requests is not None:
                self._left = [*(alias.name for alias in await self._store.aliases()), None]
            await self._store.tend_partitions(now=now)
        removed = 0
        while self._left and self._clock.now() < now + _TURN_S:
            gone = await self._one_batch(self._left[0], now)
            removed += gone
            if gone < _AT_ONCE:
                self._left.pop(0)
        return removed

    async def _one_batch(self, alias: str | None, now: float) -> int:
        """Of an alias; None: what belongs to no request."""
        days, keep = self._settings.max_age_days, self._settings.max_requests
        before = -math.inf if days is None else now - days * _DAY_S
        if alias is None:
            return await self._store.expire_strays(before=before, limit=_AT_ONCE) if days is not None else 0
        return await self._store.expire(alias, before=before, keep=keep, limit=_AT_ONCE)
