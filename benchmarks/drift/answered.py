"""One request of a pool with its reply, and the same as the store would give it."""

from __future__ import annotations

from dataclasses import dataclass

from service.core.records import Capture, Feedback, Labelled


@dataclass(frozen=True, slots=True)
class Answered:
    """`confidence` is the mean log-probability of the reply's tokens."""

    text: str
    target: str
    novel: bool
    reply: str
    confidence: float
    prompt_tokens: int
    reply_tokens: int


def labelled(i: int, one: Answered) -> Labelled:
    """The `i`-th request of a stream, a second after the one before."""
    capture = Capture(
        str(i), float(i), "pool", "base", "none", [{"role": "user", "content": one.text}], one.reply, 200, 0.1,
        prompt_tokens=one.prompt_tokens, completion_tokens=one.reply_tokens, confidence=one.confidence,
    )  # fmt: skip
    return Labelled(capture, Feedback(str(i), str(i), float(i), expected=one.target))
