"""What a reply said: text, tokens, confidence, how it ended. Read after the bytes have gone to the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

_BATCH = 64
"""Events decoded in one go: few enough that other streams do not wait, many enough to be cheap."""

_DATA = b"data: {"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Said:
    """`confidence` is the mean log-probability of the first choice's tokens (nats); `error` the engine's own words."""

    text: str = ""
    confidence: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None


class _Token(Struct):
    logprob: float


class _Logprobs(Struct):
    content: list[_Token] | None = None
    token_logprobs: list[float | None] | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int = 0
    function: _Function | None = None


class _Message(Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Reply(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_one = msgspec.json.Decoder(_Reply)
_many = msgspec.json.Decoder(list[_Reply])


class Reader:
    """Collects one reply, whole or in events."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._logprob_sum = 0.0
        self._logprobs = 0
        self._usage: _Usage | None = None
        self._finish_reason: str | None = None
        self._error: str | None = None

    def feed(self, events: bytes) -> None:
        """Whole server-sent events as the engine sent them."""
        self._waiting.append(events)
        if len(self._waiting) >= _BATCH:
            self._catch_up()

    def whole(self, body: bytes) -> None:
        """A reply that was not streamed."""
        try:
            reply = _one.decode(body)
        except ValueError as error:
            self._error = f"The engine's reply could not be read: {error}."
            return
        for number, choice in enumerate(reply.choices):
            for position, call in enumerate(choice.message.tool_calls or () if choice.message else ()):
                call.index = position
            choice.index = number
        self._add(reply)

    def said(self) -> Said:
        """All that was collected; call it once the reply is over."""
        self._catch_up()
        text = "".join(self._texts)
        if not text and self._calls:
            calls = [{"name": self._calls[i][0], "arguments": self._calls[i][1]} for i in sorted(self._calls)]
            text = msgspec.json.encode(calls).decode()
        usage = self._usage or _Usage()
        return Said(
            text,
            self._logprob_sum / self._logprobs if self._logprobs else None,
            usage.prompt_tokens,
            usage.completion_tokens or (0 if self._usage else self._logprobs),
            self._finish_reason,
            self._error,
        )

    def _catch_up(self) -> None:
        if not self._waiting:
            return
        events = b"".join(self._waiting).split(b"\n\n")
        self._waiting.clear()
        payloads = [event[6:] for event in events if event.startswith(_DATA)]
        try:
            replies = _many.decode(b"[" + b",".join(payloads) + b"]")
        except ValueError as error:
            self._error = f"The engine's stream could not be read: {error}."
            return
        for reply in replies:
            self._add(reply)

    def _add(self, reply: _Reply) -> None:
        if reply.usage is not None:
            self._usage = reply.usage
        if reply.error is not None:
            self._error = engine_message(reply.error)
        for choice in reply.choices:
            if choice.index != 0:
                continue
            self._add_text(choice)
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.logprobs is not None:
                self._add_logprobs(choice.logprobs)

    def _add_text(self, choice: _Choice) -> None:
        if choice.text:
            self._texts.append(choice.text)
        message = choice.delta or choice.message
        if message is None:
            return
        if message.content:
            self._texts.append(message.content)
        for call in message.tool_calls or ():
            said = self._calls.setdefault(call.index, ["", ""])
            if call.function is not None:
                said[0] += call.function.name or ""
                said[1] += call.function.arguments or ""

    def _add_logprobs(self, logprobs: _Logprobs) -> None:
        for token in logprobs.content or ():
            self._logprob_sum += token.logprob
            self._logprobs += 1
        for value in logprobs.token_logprobs or ():
            if value is not None:
                self._logprob_sum += value
                self._logprobs += 1


def engine_message(error: Any) -> str:
    """The sentence in an engine's `error`, whatever form it has."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:2000]
