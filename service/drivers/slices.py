"""Which slices an alias has: the tags that the operator lists, and those that requests bear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_MOST_VALUES = 16


class Tags(Protocol):
    """The part of `service.ports.Traffic` that knows tags."""

    async def tags(self, alias: str, key: str, *, limit: int) -> Sequence[str]: ...


async def slices_of(store: Tags, alias: str, listed: Sequence[str]) -> list[str]:
    """The tags (`key=value`) that the operator lists: of a key alone, the first values that requests bear, in order."""
    found: dict[str, None] = {}
    for one in listed:
        if "=" in one:
            found[one] = None
        else:
            found |= dict.fromkeys(await store.tags(alias, one, limit=_MOST_VALUES))
    return list(found)
