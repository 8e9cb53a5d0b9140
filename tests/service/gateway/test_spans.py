"""Spans of requests, as a real OTLP exporter would get them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.bootstrap import OTLP_ENDPOINTS, spans_from_environment
from service.gateway.spans import Spans

CHAT = {"model": "support", "messages": [{"role": "user", "content": "a secret question"}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def served(world, **request):
    exporter = InMemorySpanExporter()
    spans = world.gateway.v1._proxy._spans = Spans(exporter)
    async with world.client() as http:
        reply = await http.post("/v1/chat/completions", **request)
    spans.stop()
    (span,) = exporter.get_finished_spans()
    return reply, span


async def test_a_span_is_the_clients_child_and_the_engines_parent(world):
    reply, span = await served(world, json={**CHAT, "stream": True}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert reply.status_code == 200
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert world.engine.headers[0]["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"


async def test_a_span_says_what_served_and_never_what_was_said(world):
    _, span = await served(world, json={**CHAT, "stream": True})
    told = dict(span.attributes)
    assert span.name == "chat support"
    assert told.pop("gen_ai.response.time_to_first_chunk") > 0
    assert told.pop("trimtab.request.id").startswith("req_")
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "support",
        "gen_ai.response.model": "support@111111111111",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "server.address": world.engine.url,
        "http.response.status_code": 200,
    }
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b'{"model":"none","messages":[]}', 400)])
async def test_a_refused_request_has_a_span_with_its_error(world, body, status):
    _, span = await served(world, content=body)
    assert not span.status.is_ok
    assert span.status.description is None
    assert span.attributes["error.type"] == str(status)


def test_there_are_no_spans_without_an_endpoint(monkeypatch):
    for name in OTLP_ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert spans_from_environment() is None
    monkeypatch.setenv(OTLP_ENDPOINTS[1], "http://127.0.0.1:4318/v1/traces")
    spans = spans_from_environment()
    assert spans is not None
    spans.stop()
