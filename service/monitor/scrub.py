"""Example texts leave the drift worker only without e-mail addresses, links and long numbers."""

from __future__ import annotations

import re

_PATTERNS = (
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "[e-mail]"),
    (re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE), "[link]"),
    (re.compile(r"\+?\(?\d[\d\s().-]{6,}\d"), "[phone]"),
    (re.compile(r"\d{3,}"), "[number]"),
)


def scrub(text: str, *, limit: int = 80) -> str:
    """The text on one line, without personal patterns, cut to `limit` characters."""
    text = text[: 4 * limit + 400]
    for pattern, stand_in in _PATTERNS:
        text = pattern.sub(stand_in, text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
