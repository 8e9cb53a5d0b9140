"""How far labels are believed: what one source may say is bounded, and what all else speaks against is not learned.

Anybody who may send feedback may try to teach the model something. A source is a user or a key, as the gateway recorded
it, or what a label was imported from; rows without one are not judged here.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from retrain_jobs.examples import Example, Slice
from retrain_jobs.neighbours import outliers
from retrain_jobs.tasks import SYSTEM, task_of
from retrain_jobs.triggers import SUSPECT, Trigger, triggers

_ENOUGH = 3
"""Sources from which on it says something that only one of them names a class."""


Who = Callable[[Example], str | None]
"""Whom a row is put down to."""


def voucher(row: Example) -> str | None:
    return row.voucher


def key(row: Example) -> str | None:
    """The key that the request came with: one key may claim to be any number of users."""
    return None if row.labelled_by else row.key_id


def beyond_share(rows: Sequence[Example], ratio: float, order: Sequence[Example], who: Who = voucher) -> list[Example]:
    """The rows to leave out so that nobody (`who`) has more than `ratio` of what stays; `order` says what stays first.

    It needs more sources than can share a whole at that ratio: of two sources, one always has half.
    """
    counts = Counter(name for row in rows if (name := who(row)) is not None)
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
        if (name := who(row)) is None:
            continue
        taken[name] += 1
        if taken[name] > limit:
            beyond.append(row)
    return beyond


def vouched_by_one(rows: Sequence[Example]) -> list[Example]:
    """Rows whose target one source alone gives, where targets are classes: they wait until a second one agrees.

    Where most targets are texts of their own, each comes from one source anyway, and nothing is left out. Imported
    labels are the operator's own act and need no second.
    """
    sources: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        sources[row.target].add(row.voucher)
    known = {row.voucher for row in rows if row.voucher is not None}
    if len(known) < _ENOUGH or 2 * len(sources) > len(rows):
        return []
    return [row for row in rows if row.source is not None and not row.labelled_by and len(sources[row.target]) == 1]


def planted(rows: Sequence[Example]) -> tuple[list[Example], list[Trigger]]:
    """The rows with a phrase that decides their label against all else in them, and those phrases."""
    gone, named = [], []
    for task in _classes(rows):
        found = triggers(*_texts(task))
        named += found
        gone += [task[row] for one in found for row in one.rows]
    return gone, named


def suspected(rows: Sequence[Example]) -> list[Trigger]:
    """Phrases in the rows for which less speaks; whoever was trained on the rows can be asked."""
    return [one for task in _classes(rows) for one in triggers(*_texts(task), SUSPECT)]


def alone(rows: Sequence[Example]) -> list[Example]:
    """Rows whose label all their neighbours speak against.

    Only neighbours of the same slice may: after a change of meaning what was right before is wrong.
    """
    return [
        task[row]
        for source in Slice
        for task in _classes([one for one in rows if one.slice is source])
        for row in outliers(*_texts(task))
    ]


def _classes(rows: Sequence[Example]) -> list[list[Example]]:
    """The rows by task (their system prompt), where its targets are classes: half as many as rows at most."""
    tasks: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        tasks[task_of(row)].append(row)
    return [task for _, task in sorted(tasks.items()) if 2 * len({row.target for row in task}) <= len(task)]


def _texts(rows: Sequence[Example]) -> tuple[list[str], list[str]]:
    said = ["\n".join(turn.content for turn in row.prompt if turn.role != SYSTEM) for row in rows]
    return said, [row.target for row in rows]
