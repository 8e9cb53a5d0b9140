"""One request's way from its first byte to the reply's last; what is known about it is told once, at the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from service.core.records import Capture
from service.core.routing import Target
from service.gateway.ask import Ask
from service.gateway.dialects import OPENAI, Dialect
from service.gateway.limits import Allowance
from service.gateway.reading import Reader, Said
from service.gateway.tally import Timing

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(slots=True)
class Exchange:
    """What is known so far; `engine` is set once one has answered, `status` is what the client got.

    `tenant` is the id of the key that asked; `measured`: the engine is asked for log-probabilities.
    """

    request_id: str
    at: float
    dialect: Dialect = OPENAI
    started: float = field(default_factory=perf_counter)
    source: str | None = None
    tenant: str | None = None
    allowance: Allowance | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    span: Span | None = None
    ask: Ask[Any] | None = None
    target: Target | None = None
    measured: bool = False
    engine: str | None = None
    status: int = 500
    error: str | None = None
    head_sent: bool = False
    first_at: float | None = None
    last_at: float | None = None
    reader: Reader | None = None

    def timing(self) -> Timing:
        streamed = self.ask is not None and self.ask.stream
        return Timing(
            perf_counter() - self.started,
            self.first_at - self.started if streamed and self.first_at is not None else None,
            self.last_at - self.started if streamed and self.last_at is not None else None,
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        told = [(b"x-request-id", self.request_id.encode())]
        if self.dialect.id_header is not None:
            told.append((self.dialect.id_header, self.request_id.encode()))
        if self.target is not None:
            told.append((b"x-trimtab-adapter", self.target.adapter.encode()))
        if self.allowance is not None:
            told += self.allowance.headers()
        return told

    def capture(self, said: Said, timing: Timing, *, content: bool, tags: Collection[str]) -> Capture | None:
        """The record of an answered request, with its `tags` of these keys; None for one that no engine saw or that
        says nothing."""
        if self.ask is None or self.target is None or self.engine is None or not self.ask.captured:
            return None
        return Capture(
            request_id=self.request_id,
            at=self.at,
            alias=self.target.alias,
            adapter=self.target.adapter,
            engine=self.engine,
            prompt=self.ask.prompt() if content else (),
            reply=said.text if content else "",
            status=self.status,
            duration_s=timing.total_s,
            ttft_s=timing.first_s,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            confidence=said.confidence,
            finish_reason=said.finish_reason,
            streamed=self.ask.stream,
            source=self.source,
            error=self.error or said.error,
            tags=self.ask.tags(tags),
            key_id=self.tenant,
        )
