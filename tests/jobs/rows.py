"""Traffic made by hand: labelled requests as the store returns them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings

from service.core.records import Capture, Feedback, Labelled, Message

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests that share two cores with others: time says nothing about them."""

ONSET = 1000.0
"""Rows before it are replay, rows after it new."""


def labelled(
    request_id: str,
    text: str,
    expected: str | None = None,
    *,
    at: float = 2000.0,
    rating: float | None = None,
    reply: str = "something",
    labelled_at: float | None = None,
    finish_reason: str = "stop",
    prompt: Sequence[Message] | None = None,
    source: str | None = None,
    key_id: str | None = None,
) -> Labelled:
    """A request about `text` whose user said that `expected` was right, or rated the reply."""
    capture = Capture(
        request_id=request_id,
        at=at,
        alias="support",
        adapter="base",
        engine="http://127.0.0.1:8001",
        prompt=[{"role": "user", "content": text}] if prompt is None else prompt,
        reply=reply,
        status=200,
        duration_s=0.1,
        finish_reason=finish_reason,
        source=source,
        key_id=key_id,
    )
    if expected is None and rating is None:
        return Labelled(capture, None)
    given = Feedback(f"f-{request_id}", request_id, labelled_at or at + 1.0, rating=rating, expected=expected)
    return Labelled(capture, given)


def desk(kinds: Sequence[str], each: int, *, start: float, word: str = "please") -> list[Labelled]:
    """`each` different requests of every kind, whose right reply is the kind's name, a second apart from `start`."""
    rows = []
    for number in range(each):
        for place, kind in enumerate(kinds):
            index = number * len(kinds) + place
            text = f"{word} {kind} for item {chr(97 + number % 26)}{number} in {'xyzuvw'[number % 6] * 6} now"
            rows.append(labelled(f"{word}-{kind}-{number}", text, kind, at=start + index))
    return rows
