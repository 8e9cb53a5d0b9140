"""How far one source of labels is believed: its share of the rows is capped, and a class of its own is not learned.

Anybody who may send feedback may try to teach the model something. A source is a user or a key, as the gateway recorded
it; rows without one are not judged here.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from retrain_jobs.examples import Example

_ENOUGH = 3
"""Sources from which on it says something that only one of them names a class."""


def beyond_share(rows: Sequence[Example], ratio: float, order: Sequence[Example]) -> list[Example]:
    """The rows to leave out so that no source has more than `ratio` of what stays; `order` says which it keeps first.

    It needs more sources than can share a whole at that ratio: of two sources, one always has half.
    """
    counts = Counter(row.source for row in rows if row.source is not None)
    if len(counts) * ratio <= 1.0:
        return []
    unknown = len(rows) - counts.total()
    total = len(rows)
    while True:
        limit = max(1, math.floor(ratio * total))
        left = unknown + sum(min(count, limit) for count in counts.values())
        if left == total:
            break
        total = left
    taken: Counter[str] = Counter()
    beyond = []
    for row in order:
        if row.source is None:
            continue
        taken[row.source] += 1
        if taken[row.source] > limit:
            beyond.append(row)
    return beyond


def vouched_by_one(rows: Sequence[Example]) -> list[Example]:
    """Rows whose target one source alone gives, where targets are classes: they wait until a second one agrees.

    Where most targets are texts of their own, each comes from one source anyway, and nothing is left out.
    """
    sources: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        sources[row.target].add(row.source)
    known = {row.source for row in rows if row.source is not None}
    if len(known) < _ENOUGH or 2 * len(sources) > len(rows):
        return []
    return [row for row in rows if row.source is not None and len(sources[row.target]) == 1]
