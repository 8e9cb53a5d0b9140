"""What champion and candidate are asked: held-out rows of both slices, and the golden set."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded, encode
from retrain_jobs.examples import Example, GoldenItem
from service.core.sampling import position

log = logging.getLogger(__name__)

GOLDEN = "golden"


@dataclass(frozen=True, slots=True)
class Item:
    """One row to answer. `group` is `new` or `replay` for held-out rows, `golden` for golden ones; `key` is its own."""

    tokens: Encoded
    target: str
    group: str
    key: str
    messages: Sequence[dict[str, str]]

    @property
    def is_operators(self) -> bool:
        """Whether it stands in the golden set; what stands in for one is traffic."""
        return self.key.startswith(f"{GOLDEN}-")


def items_of(
    base: Base, heldout: Sequence[Example], tokens: Mapping[str, Encoded | None], golden: Sequence[GoldenItem]
) -> list[Item]:
    """Held-out rows and golden items; without a golden set the held-out replay rows stand in for it."""
    items = [
        Item(found, row.target, str(row.slice), row.request_id, row.messages())
        for row in heldout
        if (found := tokens[row.request_id]) is not None
    ]
    if not golden:
        return items + [
            Item(item.tokens, item.target, GOLDEN, item.key, item.messages) for item in items if item.group == "replay"
        ]
    encoded = [(item, encode(base, item.messages(), item.target)) for item in golden]
    if too_long := sum(found is None for _, found in encoded):
        log.warning("%d of %d golden items are longer than the context and are not asked", too_long, len(golden))
    return items + [
        Item(found, item.target, GOLDEN, f"{GOLDEN}-{number}", item.messages())
        for number, (item, found) in enumerate(encoded)
        if found is not None
    ]


def sample(items: Sequence[Item], size: int, seed: int) -> list[int]:
    """Places of up to `size` of them, as many of each group as its share asks for; the same items, the same places."""
    ranked: defaultdict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(items)), key=lambda i: (position(items[i].key, f"evaluate/{seed}"), i)):
        ranked[items[place].group].append(place)
    placed = [((i + 0.5) / len(rows), place) for rows in ranked.values() for i, place in enumerate(rows)]
    return sorted(place for _, place in sorted(placed)[:size])
