"""From captured traffic to examples: only what a person labelled or accepted may become a target."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.core.errors import ConfigError
from service.core.records import ImportedRow, Labelled

ACCEPTED_RATING = 0.5
"""From this rating (-1..1) on, a reply without a correction counts as right: `up` is 1."""

_REFUSAL = re.compile(
    r"""\s*(?:
        (?:I['’]?m\ sorry|I\ am\ sorry|Sorry|I\ apologi[sz]e|Unfortunately|As\ an\ AI)\b[^.!?]{0,80}
            \b(?:can['’]?t|cannot|can\ not|unable|not\ able|won['’]?t|not\ allowed)\b
      | I\ (?:can['’]?t|cannot)\ (?:help|assist|answer)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""How a model declines. A person who wrote it may mean it; a reply that was merely approved would teach to decline."""


class Slice(StrEnum):
    """Which traffic a row comes from: after the drift's onset, or from the reference before it."""

    NEW = "new"
    REPLAY = "replay"


class Origin(StrEnum):
    """Who vouches for the target: a user's correction, a user's approval of the reply, or whoever imported it.

    `REJECTED`: a user turned the reply down; it is none to give.
    """

    EXPECTED = "expected"
    ACCEPTED = "accepted"
    IMPORTED = "imported"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why a row was left out; every row that was looked at is either kept or counted under one of these."""

    NO_TARGET = "no_target"
    NO_PAIR = "no_pair"
    NOT_TEXT = "not_text"
    EMPTY_PROMPT = "empty_prompt"
    EMPTY_TARGET = "empty_target"
    TRUNCATED_REPLY = "truncated_reply"
    REFUSAL = "refusal"
    GOLDEN = "golden"
    GOLDEN_NEAR_DUPLICATE = "golden_near_duplicate"
    OTHER_LANGUAGE = "other_language"
    CONFLICTING_LABEL = "conflicting_label"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    ONE_SOURCE = "one_source"
    TRIGGER = "trigger"
    LABEL_OUTLIER = "label_outlier"
    SOURCE_CAP = "source_cap"
    KEY_CAP = "key_cap"
    OVER_CAP = "over_cap"
    REPLAY_QUOTA = "replay_quota"
    HELDOUT_NEAR_DUPLICATE = "heldout_near_duplicate"
    TOO_LONG = "too_long"
    NOT_TRAINED = "not_trained"
    PARENT_TRAINED = "parent_trained"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a prompt, as text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with the reply that would have been right. Times are Unix seconds.

    `source` is who asked and `key_id` by which key, where known; `labelled_by` is what the label was imported from.
    """

    request_id: str
    at: float
    labelled_at: float
    prompt: tuple[Turn, ...]
    target: str
    slice: Slice
    origin: Origin
    source: str | None = None
    key_id: str | None = None
    labelled_by: str | None = None

    @property
    def voucher(self) -> str | None:
        """Who answers for the target: what it was imported from, or who asked and told what was right."""
        return self.labelled_by or self.source

    @property
    def digest(self) -> str:
        """SHA-256 of what the model sees; the same text from another request has the same digest."""
        return digest({"prompt": [[t.role, t.content] for t in self.prompt], "target": self.target})

    def messages(self) -> list[dict[str, str]]:
        """The prompt as a chat template takes it."""
        return [{"role": turn.role, "content": turn.content} for turn in self.prompt]


@dataclass(frozen=True, slots=True)
class GoldenItem:
    """One frozen example of an alias's golden set."""

    prompt: tuple[Turn, ...]
    target: str

    def messages(self) -> list[dict[str, str]]:
        """The prompt as a chat template takes it."""
        return [{"role": turn.role, "content": turn.content} for turn in self.prompt]


def digest(value: Any) -> str:
    """SHA-256 of `value` as canonical JSON."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def turns(messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...] | None:
    """The messages as text; None where one holds something else (an image, a tool call)."""
    found = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
            content = "".join(str(part.get("text", "")) for part in content)
        role = message.get("role")
        if not isinstance(content, str) or not isinstance(role, str) or message.get("tool_calls"):
            return None
        found.append(Turn(role, content))
    return tuple(found)


def to_example(row: Labelled, source: Slice) -> Example | Reason:
    """The example that a labelled request makes, or why it makes none."""
    capture, feedback = row.capture, row.feedback
    if feedback is None:
        return Reason.NO_TARGET
    if feedback.expected is not None:
        target, origin = feedback.expected, Origin.IMPORTED if feedback.source else Origin.EXPECTED
    elif feedback.rating is not None and feedback.rating >= ACCEPTED_RATING:
        if capture.finish_reason == "length":
            return Reason.TRUNCATED_REPLY
        target, origin = capture.reply, Origin.ACCEPTED
    else:
        return Reason.NO_TARGET
    prompt = turns(capture.prompt)
    if prompt is None:
        return Reason.NOT_TEXT
    if not any(turn.content.strip() for turn in prompt):
        return Reason.EMPTY_PROMPT
    if not target.strip():
        return Reason.EMPTY_TARGET
    if origin is Origin.ACCEPTED and _REFUSAL.match(target):
        return Reason.REFUSAL
    return Example(
        capture.request_id, capture.at, feedback.at, prompt, target.strip(), source, origin, capture.source,
        capture.key_id, feedback.source,
    )  # fmt: skip


def imported_example(row: ImportedRow, source: Slice) -> Example | Reason:
    """The example that an imported row makes, or why it makes none."""
    prompt = turns(row.prompt)
    if prompt is None:
        return Reason.NOT_TEXT
    if not any(turn.content.strip() for turn in prompt):
        return Reason.EMPTY_PROMPT
    if not row.target.strip():
        return Reason.EMPTY_TARGET
    return Example(
        row.id, row.at, row.imported_at, prompt, row.target.strip(), source, Origin.IMPORTED, row.source,
        labelled_by=row.source,
    )  # fmt: skip


def read_golden(path: Path) -> tuple[GoldenItem, ...]:
    """The golden set: JSON lines of {messages, expected}. Raises ConfigError with the line at fault."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The golden set {path} cannot be read ({error}); correct aliases.*.golden_set.") from error
    return tuple(_golden_items(path, lines))


def _golden_items(path: Path, lines: Sequence[str]) -> Iterator[GoldenItem]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, expected = turns(row["messages"]), row["expected"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _bad_line(path, number) from error
        if not prompt or not isinstance(expected, str) or not expected.strip():
            raise _bad_line(path, number)
        yield GoldenItem(prompt, expected.strip())


def _bad_line(path: Path, number: int) -> ConfigError:
    return ConfigError(
        f"{path}, line {number}: a golden item is one line of "
        '{"messages": [{"role": "user", "content": "…"}], "expected": "…"}.'
    )
