"""/v1 in OpenAPI: made from the very types that decode requests, so that it cannot lie about them."""

from __future__ import annotations

from typing import Any

import msgspec

from service.gateway.embeddings import EmbeddingsParams
from service.gateway.feedback import FeedbackBody
from service.gateway.messages_params import CountTokensParams, MessagesParams
from service.gateway.params import ChatParams, CompletionParams
from service.gateway.responses_params import ResponsesParams

_REFS = "#/components/schemas/{name}"
_ERROR = "ApiError"

_POSTS: tuple[tuple[str, type, str, str], ...] = (
    ("/v1/chat/completions", ChatParams, "200", "Answer a conversation; streams with stream: true."),
    ("/v1/completions", CompletionParams, "200", "Continue a text; streams with stream: true."),
    ("/v1/responses", ResponsesParams, "200", "Answer an input; nothing is stored; streams with stream: true."),
    ("/v1/messages", MessagesParams, "200", "Answer a conversation, Anthropic's way; streams with stream: true."),
    ("/v1/messages/count_tokens", CountTokensParams, "200", "How many tokens such a conversation has."),
    ("/v1/embeddings", EmbeddingsParams, "200", "Turn texts into vectors, where an embedding engine is configured."),
    ("/v1/feedback", FeedbackBody, "202", "Rate a reply, or say what it should have been."),
)


def v1_paths() -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths and the schemas that they refer to."""
    references, components = msgspec.json.schema_components([body for _, body, _, _ in _POSTS], ref_template=_REFS)
    components[_ERROR] = _error_schema()
    paths: dict[str, Any] = {
        path: {"post": _operation(summary, status, reference)}
        for (path, _, status, summary), reference in zip(_POSTS, references, strict=True)
    }
    paths["/v1/models"] = {"get": _operation("Base models, aliases and adapters.", "200")}
    one = _operation("One of them.", "200")
    one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths["/v1/models/{model}"] = {"get": one}
    return paths, components


def _operation(summary: str, status: str, body: Any = None) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REFS.format(name=_ERROR)}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": ["v1"],
        "responses": {
            status: {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}},
            "4XX": {"description": "Refused", "content": error},
            "5XX": {"description": "Failed", "content": error},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    maybe = {"anyOf": [text, {"type": "null"}]}
    fields = {"message": text, "type": text, "param": maybe, "code": maybe}
    return {
        "type": "object",
        "properties": {"error": {"type": "object", "properties": fields, "required": ["message", "type"]}},
        "required": ["error"],
    }
