"""Requests out of the store to be labelled, and labels into it. Importing the same twice adds nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain_jobs.labels import studio
from retrain_jobs.labels.choose import choose, classes_of, topics_words
from retrain_jobs.labels.files import Columns, read_file
from retrain_jobs.labels.rows import Read, Row, correction, imported_row
from service.core.errors import BadRequest, NotFound
from service.core.records import Feedback, Labelled
from service.ports import Store

LOOKED_AT = 5000
"""Of so many of the newest requests the export chooses."""

_TOLD = 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: tasks into `tasks`, the labelling interface into `interface`."""

    tasks: Path
    interface: Path
    chosen: int
    looked_at: int
    drifted: int
    topics: int


async def export(store: Store, alias: str, out: Path, *, count: int, since: float | None, seed: int = 0) -> Exported:
    """Write the requests of `alias` that are most worth a label, since the drift's onset where there is one."""
    known = await store.alias(alias)
    (check,) = await store.drift_checks(alias, limit=1, verdict="DRIFTED") or (None,)
    if since is None:
        told = check.since if check is not None and check.since is not None else 0.0
        since = max(known.reference_since, told)
    rows = await store.window(alias, since=since, limit=LOOKED_AT, newest=True)
    drifted = topics_words(check.topics) if check is not None and check.at > known.reference_since else []
    chosen = await asyncio.to_thread(choose, rows, count, drifted, seed=seed)
    classes = classes_of(await store.window(alias, since=0.0, limit=LOOKED_AT, newest=True, labelled_only=True))
    tasks = json.dumps([studio.task(one, classes) for one in chosen], ensure_ascii=False, indent=1)
    interface = await asyncio.to_thread(_write, out, tasks, studio.interface(classes))
    return Exported(
        out, interface, len(chosen), len(rows), sum(one.drifted for one in chosen), len({one.topic for one in chosen})
    )  # fmt: skip


def _write(out: Path, tasks: str, interface: str) -> Path:
    beside = out.with_suffix(".xml")
    try:
        out.write_text(tasks, "utf-8")
        beside.write_text(interface, "utf-8")
    except OSError as error:
        raise BadRequest(f"{out} cannot be written: {error.strerror}.") from error
    return beside


async def take(store: Store, alias: str, path: Path, names: Columns, *, now: float) -> dict[str, Any]:
    """Import a file's labels for `alias`; what was taken and what was left out, as JSON.

    A label of a request that is there becomes its feedback, any other with a prompt a row of its own.
    """
    await store.alias(alias)
    found = await asyncio.to_thread(read_file, path, names)
    source = studio.SOURCE if path.suffix.lower() == ".json" else f"import:{path.name}"
    counts: Counter[str] = Counter(corrections=0, rows=0, already_there=0)
    feedback, others = await _sorted_out(store, alias, found, source, now, counts)
    await store.add_feedback(feedback)
    added = await store.add_imported([imported_row(row, alias, source, now) for row in others])
    counts["corrections"] += len(feedback)
    counts["rows"] += added
    counts["already_there"] += len(others) - added
    return {
        "source": source,
        **counts,
        "unlabelled": found.unlabelled,
        "left_out": len(found.faults),
        "faults": found.faults[:_TOLD],
    }


async def _sorted_out(
    store: Store, alias: str, found: Read, source: str, now: float, counts: Counter[str]
) -> tuple[Sequence[Feedback], Sequence[Row]]:
    """Labels of requests of the alias that are not in the store yet, and rows with a prompt of their own."""
    feedback: dict[str, Feedback] = {}
    others = []
    for row in found.rows:
        known = await _request(store, row.request_id)
        if known is None:
            if row.prompt:
                others.append(row)
            else:
                found.faults.append(f"request {row.request_id!r} is not in the store, and the row has no prompt")
        elif known.capture.alias != alias:
            found.faults.append(f"request {row.request_id!r} is of the alias {known.capture.alias!r}")
        else:
            label = correction(row, source, now)
            if (known.feedback and known.feedback.id == label.id) or label.id in feedback:
                counts["already_there"] += 1
            else:
                feedback[label.id] = label
    return list(feedback.values()), others


async def _request(store: Store, request_id: str | None) -> Labelled | None:
    if request_id is None:
        return None
    try:
        return await store.capture(request_id)
    except NotFound:
        return None
