"""The ASGI application of one port: /v1 goes straight to the data plane, the rest to FastAPI. It only composes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service import __version__
from service.core.errors import BadRequest, NotFound, TrimtabError
from service.core.records import Scope as KeyScope
from service.gateway.describe import v1_paths
from service.gateway.gateway import Gateway
from service.gateway.v1 import MethodNotAllowed

_CONTROL = ("/api", "/console")


class Application:
    """`/v1/*` → the plain ASGI data plane; `/api`, `/console` → the control app; the rest → the shell."""

    def __init__(self, gateway: Gateway, shell: FastAPI, control: FastAPI | None) -> None:
        self._v1 = gateway.v1
        self.shell = shell
        self.control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.shell(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith("/v1/"):
            await self._v1(scope, receive, send)
        elif self.control is not None and path.startswith(_CONTROL):
            await self.control(scope, receive, send)
        else:
            await self.shell(scope, receive, send)


def create_app(gateway: Gateway, *, control: FastAPI | None = None) -> Application:
    """Everything that one port serves; its lifespan starts and stops the gateway (and the control app's own)."""

    @contextlib.asynccontextmanager
    async def lifespan(shell: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await gateway.start()
            stack.push_async_callback(gateway.stop)
            if control is not None:
                await stack.enter_async_context(control.router.lifespan_context(control))
            yield

    shell = FastAPI(title="Trimtab", version=__version__, redoc_url=None, lifespan=lifespan)
    _add_routes(shell, gateway, with_console=control is not None)
    _add_fault_handlers(shell)
    shell.openapi = lambda: _openapi(shell, control)  # type: ignore[method-assign]
    return Application(gateway, shell, control)


def _add_routes(shell: FastAPI, gateway: Gateway, *, with_console: bool) -> None:
    @shell.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @shell.get("/ready", tags=["operation"])
    async def ready() -> dict[str, str]:
        """A request could be answered now; 503 with the reason otherwise."""
        gateway.check_ready()
        return {"status": "ready"}

    @shell.get("/metrics", tags=["operation"])
    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        gateway.authorize(request.headers, KeyScope.METRICS)
        return Response(generate_latest(gateway.registry), media_type=CONTENT_TYPE_LATEST)

    if with_console:

        @shell.get("/", include_in_schema=False)
        async def home() -> Response:
            return Response(status_code=307, headers={"location": "/console"})


def _add_fault_handlers(shell: FastAPI) -> None:
    @shell.exception_handler(TrimtabError)
    async def ours(request: Request, error: TrimtabError) -> Response:
        return _reply(error)

    @shell.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 404:
            return _reply(NotFound(f"There is no {path}; /docs lists the routes.", code="unknown_url"))
        if error.status_code == 405:
            return _reply(MethodNotAllowed(f"{path} does not take {request.method}."), error.headers)
        return _reply(BadRequest(str(error.detail)), error.headers)

    @shell.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _reply(BadRequest(f"The request is wrong: {error.errors()[0]['msg']}."))

    @shell.exception_handler(Exception)
    async def other(request: Request, error: Exception) -> Response:
        return _reply(TrimtabError("The gateway failed; its log says why."))


def _reply(error: TrimtabError, headers: Any = None) -> JSONResponse:
    told = dict(headers or {})
    if error.retry_after_s is not None:
        told["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        told["www-authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, told)


def _openapi(shell: FastAPI, control: FastAPI | None) -> dict[str, Any]:
    """One description of all routes: the shell's, the control app's and /v1's own."""
    if shell.openapi_schema is None:
        schema = FastAPI.openapi(shell)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        paths, components = v1_paths()
        schema["paths"] |= paths
        schemas.update(components)
        if control is not None:
            admin = control.openapi()
            schema["paths"] |= admin.get("paths", {})
            schemas.update(admin.get("components", {}).get("schemas", {}))
    return shell.openapi_schema or {}
