"""What is measured of each request: numbers about its prompt, its reply, and how right that was."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.drift import Kind
from service.core.records import Labelled, Message
from service.drivers.scorers import score_or_none

Column = NDArray[np.float64]

COLUMNS: Mapping[str, Kind] = {
    "prompt_chars": Kind.INPUT,
    "prompt_words": Kind.INPUT,
    "prompt_tokens": Kind.INPUT,
    "prompt_non_alphabetic": Kind.INPUT,
    "prompt_word_variety": Kind.INPUT,
    "reply_chars": Kind.OUTPUT,
    "reply_words": Kind.OUTPUT,
    "reply_tokens": Kind.OUTPUT,
    "confidence": Kind.OUTPUT,
    "refusal": Kind.OUTPUT,
}
"""The numeric features that have a detector each."""

_REFUSED_WITHIN = 200
_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:sorry|afraid|unable|not able)\b|\bI (?:can(?:no|')t|can not|won't|will not|am not allowed)\b"
    r"|\b(?:as an AI|I apologi[sz]e|cannot (?:help|assist)|not able to help)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Features:
    """The features of n requests, in order of time; NaN where a request has none.

    `confidence` among the columns is the geometric mean probability of the reply's tokens, `scores` how right the
    replies were by feedback, both 0..1.
    """

    prompts: tuple[str, ...]
    replies: tuple[str, ...]
    columns: Mapping[str, Column]
    scores: Column

    def __len__(self) -> int:
        return len(self.prompts)


def measure(rows: Sequence[Labelled], scorer: str, pattern: str | None) -> Features:
    """Measure the requests of a window; `scorer` and `pattern` are the alias's."""
    prompts = tuple(asked(row.capture.prompt) for row in rows)
    replies = tuple(row.capture.reply for row in rows)
    values: dict[str, list[float]] = {
        "prompt_chars": [len(text) for text in prompts],
        "prompt_words": [len(text.split()) for text in prompts],
        "prompt_tokens": [row.capture.prompt_tokens for row in rows],
        "prompt_non_alphabetic": [_non_alphabetic(text) for text in prompts],
        "prompt_word_variety": [_word_variety(text) for text in prompts],
        "reply_chars": [len(text) for text in replies],
        "reply_words": [len(text.split()) for text in replies],
        "reply_tokens": [row.capture.completion_tokens for row in rows],
        "confidence": [_probability(row.capture.confidence) for row in rows],
        "refusal": [float(_REFUSAL.search(text[:_REFUSED_WITHIN]) is not None) for text in replies],
    }
    columns = {name: np.asarray(values[name], dtype=np.float64) for name in COLUMNS}
    scores = np.asarray([_score(row, scorer, pattern) for row in rows], dtype=np.float64)
    return Features(prompts, replies, columns, scores)


def asked(prompt: Sequence[Message]) -> str:
    """The text of the newest user message: what this request asks, without the instructions around it."""
    for message in reversed(prompt):
        if message.get("role") == "user":
            return _text(message.get("content"))
    return ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "\n".join(part for part in parts if isinstance(part, str))


def _non_alphabetic(text: str) -> float:
    """The share of characters, spaces aside, that are no letters."""
    seen = "".join(text.split())
    return (len(seen) - sum(map(str.isalpha, seen))) / len(seen) if seen else math.nan


def _word_variety(text: str) -> float:
    """Different words over words (the type-token ratio)."""
    words = text.lower().split()
    return len(set(words)) / len(words) if words else math.nan


def _probability(confidence: float | None) -> float:
    return math.exp(min(0.0, confidence)) if confidence is not None and math.isfinite(confidence) else math.nan


def _score(row: Labelled, scorer: str, pattern: str | None) -> float:
    if row.feedback is None:
        return math.nan
    value = score_or_none(scorer, row.capture.reply, row.feedback.expected, row.feedback.rating, pattern)
    return math.nan if value is None else value
