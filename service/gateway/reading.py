"""What a reply said: text, tokens, confidence, how it ended. Read after the bytes have gone to the client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

_BATCH = 64
"""Events decoded in one go: few enough that other streams do not wait, many enough to be cheap."""

_LARGE_BYTES = 16 * 1024
"""Of one read: many events by itself; kept waiting, they would be held twice."""

_DATA = b"data: {"


@dataclass(frozen=True, slots=True)
class Said:
    """`confidence` is the mean log-probability of the first choice's tokens (nats); `error` the engine's own words."""

    text: str = ""
    confidence: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None


class Reader(ABC):
    """Collects one reply, whole or in events; each API's own subclass knows its shape."""

    one: ClassVar[msgspec.json.Decoder[Any]]
    many: ClassVar[msgspec.json.Decoder[Any]]

    def __init__(self) -> None:
        self.error: str | None = None
        self._waiting: list[bytes] = []

    def feed(self, events: bytes) -> None:
        """Whole server-sent events as the engine sent them."""
        self._waiting.append(events)
        if len(self._waiting) >= _BATCH or len(events) > _LARGE_BYTES:
            self._catch_up()

    def whole(self, body: bytes) -> None:
        """A reply that was not streamed."""
        try:
            reply = self.one.decode(body)
        except ValueError as error:
            self.error = f"The engine's reply could not be read: {error}."
            return
        self.add_whole(reply)

    def said(self) -> Said:
        """All that was collected; call it once the reply is over."""
        self._catch_up()
        return self.collected()

    @abstractmethod
    def add_whole(self, reply: Any) -> None: ...

    @abstractmethod
    def add_event(self, event: Any) -> None: ...

    @abstractmethod
    def collected(self) -> Said: ...

    def _catch_up(self) -> None:
        if not self._waiting:
            return
        events = b"".join(self._waiting).split(b"\n\n")
        self._waiting.clear()
        payloads = [event[at + 6 :] for event in events if (at := event.find(_DATA)) >= 0]
        try:
            replies = self.many.decode(b"[" + b",".join(payloads) + b"]")
        except ValueError as error:
            self.error = f"The engine's stream could not be read: {error}."
            return
        for reply in replies:
            self.add_event(reply)


class Texts:
    """Words as they come, and the calls of tools, which are the text where there is no other."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.calls: dict[int, list[str]] = {}

    def call(self, index: int, name: str | None, arguments: str | None) -> None:
        said = self.calls.setdefault(index, ["", ""])
        said[0] += name or ""
        said[1] += arguments or ""

    def __str__(self) -> str:
        text = "".join(self.parts)
        if text or not self.calls:
            return text
        calls = [{"name": self.calls[i][0], "arguments": self.calls[i][1]} for i in sorted(self.calls)]
        return msgspec.json.encode(calls).decode()


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


class ChatReader(Reader):
    """Chats and plain completions."""

    one = msgspec.json.Decoder(_Reply)
    many = msgspec.json.Decoder(list[_Reply])

    def __init__(self) -> None:
        super().__init__()
        self._texts = Texts()
        self._logprob_sum = 0.0
        self._logprobs = 0
        self._usage: _Usage | None = None
        self._finish_reason: str | None = None

    def add_whole(self, reply: _Reply) -> None:
        for number, choice in enumerate(reply.choices):
            for position, call in enumerate(choice.message.tool_calls or () if choice.message else ()):
                call.index = position
            choice.index = number
        self.add_event(reply)

    def add_event(self, event: _Reply) -> None:
        if event.usage is not None:
            self._usage = event.usage
        if event.error is not None:
            self.error = engine_message(event.error)
        for choice in event.choices:
            if choice.index != 0:
                continue
            self._add_text(choice)
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.logprobs is not None:
                self._add_logprobs(choice.logprobs)

    def collected(self) -> Said:
        usage = self._usage or _Usage()
        return Said(
            str(self._texts),
            self._logprob_sum / self._logprobs if self._logprobs else None,
            usage.prompt_tokens,
            usage.completion_tokens or (0 if self._usage else self._logprobs),
            self._finish_reason,
            self.error,
        )

    def _add_text(self, choice: _Choice) -> None:
        if choice.text:
            self._texts.parts.append(choice.text)
        message = choice.delta or choice.message
        if message is None:
            return
        if message.content:
            self._texts.parts.append(message.content)
        for call in message.tool_calls or ():
            function = call.function or _Function()
            self._texts.call(call.index, function.name, function.arguments)

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
