"""Every failure of the control plane leaves in one shape: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.core.errors import BadRequest, NotFound, TooLarge, TrimtabError

_BY_STATUS: dict[int, type[TrimtabError]] = {404: NotFound, 413: TooLarge}


def add_fault_handlers(app: FastAPI) -> None:
    """Answer errors of the domain, of validation, of routing, and the unforeseen."""

    @app.exception_handler(TrimtabError)
    async def known(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, TrimtabError)
        return fault_reply(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return fault_reply(_explain(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = str(error.detail)
        if error.status_code == 404:
            message = f"There is nothing at {request.url.path}; /docs lists the routes."
        reply = fault_reply(_BY_STATUS.get(error.status_code, BadRequest)(message))
        reply.status_code = error.status_code
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> JSONResponse:
        return fault_reply(TrimtabError("The server failed while answering; its log has the details."))


def fault_reply(error: TrimtabError) -> JSONResponse:
    """The HTTP reply of one error."""
    headers = {"cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def _explain(errors: Sequence[Any]) -> BadRequest:
    """The first fault, by the name of its field."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "path"})
    if first["type"] == "json_invalid":
        return BadRequest("The body is not valid JSON.", code="invalid_json")
    if not where:
        return BadRequest(f"The body is wrong: {first['msg']}; send a JSON object with content-type application/json.")
    return BadRequest(f"{where}: {first['msg']}.", param=where)
