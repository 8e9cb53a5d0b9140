"""Tells people by POST, in the form that Slack's and Mattermost's incoming webhooks take; others read its fields."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from service.core.records import Alias, Cycle
from service.ports import Clock
from service.processes import note

_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 300.0


def asking(alias: Alias, cycle: Cycle, reason: str) -> Mapping[str, Any]:
    """What is posted when a proven candidate waits for a person; `text` is for them to read."""
    text = (
        f"{alias.name}: {cycle.candidate} is proven better than {alias.champion} and waits for your yes. {reason} "
        f"Agree on the console or by `trimtab approve {alias.name}`; refuse by `trimtab rollback {alias.name}`."
    )
    return {
        "text": text, "event": "approval_needed", "alias": alias.name, "cycle": cycle.id,
        "candidate": cycle.candidate, "champion": alias.champion, "reason": reason,
    }  # fmt: skip


class Webhook:
    """Posts in the background, since the controller has a lease to renew; at least once for each `key`."""

    def __init__(self, url: str, clock: Clock, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S, transport=transport)
        self._underway: dict[str, asyncio.Task[bool]] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    async def told(self, key: str, body: Mapping[str, Any]) -> bool:
        """Whether it has been taken by now; otherwise it is being sent, or will be after a pause that grows."""
        task = self._underway.get(key)
        if task is None:
            if self._clock.now() >= self._not_before.get(key, 0.0):
                self._underway[key] = asyncio.create_task(self._post(body))
            return False
        if not task.done():
            return False
        del self._underway[key]
        if not task.result():
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._not_before[key] = self._clock.now() + min(_FIRST_PAUSE_S * 2.0 ** min(failures, 10), _LONGEST_PAUSE_S)
        return task.result()

    async def _post(self, body: Mapping[str, Any]) -> bool:
        try:
            status = (await self._http.post(self._url, json=body)).status_code
        except httpx.HTTPError as error:
            note(f"promotion.webhook does not answer ({type(error).__name__}); trying again")
            return False
        if status >= 300:
            note(f"promotion.webhook answered {status}; trying again")
        return status < 300
