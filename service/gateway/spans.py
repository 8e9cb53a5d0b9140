"""OpenTelemetry spans of requests, when the environment names an OTLP endpoint. What was said is never in them.

Names follow the GenAI semantic conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/), and the
endpoint comes from OpenTelemetry's own variables (`service.bootstrap.spans_from_environment`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.core.records import Capture

OPERATIONS = {
    "chat/completions": "chat", "responses": "chat", "messages": "chat", "completions": "text_completion",
}  # fmt: skip

_context = TraceContextTextMapPropagator()


class Spans:
    """One span a request, a child of the client's and the parent of the engine's."""

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "trimtab-gateway")})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("trimtab", __version__)

    def begin(self, path: str, trace: Mapping[str, str], request_id: str) -> tuple[Span, Mapping[str, str]]:
        """The span and the trace context that the engine gets."""
        operation = OPERATIONS.get(path, path)
        span = self._tracer.start_span(
            operation,
            context=_context.extract(trace),
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "vllm",
                "trimtab.request.id": request_id,
            },
        )
        onward: dict[str, str] = {}
        _context.inject(onward, set_span_in_context(span))
        return span, onward

    def end(self, span: Span, path: str, status: int, capture: Capture | None) -> None:
        """Close the span; `capture` is there if an engine answered. Messages stay out: they may quote a prompt."""
        span.set_attribute("http.response.status_code", status)
        if capture is not None:
            span.update_name(f"{OPERATIONS.get(path, path)} {capture.alias}")
            span.set_attributes(
                {
                    "gen_ai.request.model": capture.alias,
                    "gen_ai.response.model": capture.adapter,
                    "gen_ai.usage.input_tokens": capture.prompt_tokens,
                    "gen_ai.usage.output_tokens": capture.completion_tokens,
                    "gen_ai.response.finish_reasons": [capture.finish_reason] if capture.finish_reason else [],
                    "server.address": capture.engine,
                }
            )
            if capture.ttft_s is not None:
                span.set_attribute("gen_ai.response.time_to_first_chunk", capture.ttft_s)
        if status >= 400:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
