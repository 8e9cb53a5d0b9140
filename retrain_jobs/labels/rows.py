"""What a file of labels holds: rows, each checked, and the faults of those that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from retrain_jobs.examples import digest, turns
from service.core.records import Feedback, ImportedRow

IMPORTED = "imp_"
"""What the ids of imported rows begin with; requests' ids begin otherwise."""

MOST_CHARACTERS = 100_000
"""Of a prompt, and of a target: as much as feedback may hold."""


class BadRow(Exception):
    """A row cannot be taken; the text says which column is at fault and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and what would have been right; `request_id` where it is a request that Trimtab served.

    `at` is the row's own time (Unix seconds), where it bears one.
    """

    target: str
    prompt: Sequence[Mapping[str, str]] = ()
    request_id: str | None = None
    at: float | None = None


@dataclass(slots=True)
class Read:
    """What was found in a file: `faults` as `line 7: column 'expected' is empty`, `unlabelled` rows nobody labelled."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unlabelled: int = 0


def imported_row(row: Row, alias: str, source: str, now: float) -> ImportedRow:
    """As the store keeps it: equal content of an alias has an equal id, whatever it was imported from."""
    prompt = [dict(message) for message in row.prompt]
    name = digest([alias, prompt, row.target])[:24]
    return ImportedRow(f"{IMPORTED}{name}", alias, row.at or now, now, prompt, row.target, source)


def correction(row: Row, source: str, now: float) -> Feedback:
    """A label of a request that was served; the same label again has the same id."""
    name = digest([source, row.request_id, row.target, row.at])
    return Feedback(name, str(row.request_id), row.at or now, expected=row.target, source=source)


def text_of(value: Any, column: str) -> str:
    """The text of a column that must hold some. Raises BadRow."""
    if not isinstance(value, str):
        raise BadRow(f"column '{column}' holds {_kind(value)}, not text")
    if not value.strip():
        raise BadRow(f"column '{column}' is empty")
    if len(value) > MOST_CHARACTERS:
        raise BadRow(f"column '{column}' has {len(value)} characters, more than {MOST_CHARACTERS}")
    if "\0" in value:
        raise BadRow(f"column '{column}' holds the NUL character")
    return value


def messages_of(value: Any, column: str) -> list[dict[str, str]]:
    """A chat's messages, text only. Raises BadRow."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadRow(f"column '{column}' holds {_kind(value)}, not a list of messages")
    if not all(isinstance(message, Mapping) for message in value):
        raise BadRow(f"column '{column}' holds something else than messages of role and content")
    found = turns(value)
    if found is None:
        raise BadRow(f"column '{column}' holds a message without a role, or whose content is no text")
    text_of("\n".join(turn.content for turn in found), column)
    return [{"role": turn.role, "content": turn.content} for turn in found]


def time_of(value: Any, column: str) -> float | None:
    """Unix seconds out of them or out of ISO 8601 (UTC where it names no zone); None where there is nothing."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        seconds = float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRow(f"column '{column}' is no time; write Unix seconds or ISO 8601") from error
    if not math.isfinite(seconds) or seconds <= 0:
        raise BadRow(f"column '{column}' is no time after 1970")
    return seconds


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
