"""The plain ASGI app below /v1: a path, a method, a handler; nothing else stands before the hot path."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from service.core.errors import NotFound, TrimtabError, Unavailable
from service.core.records import Scope as KeyScope
from service.core.routing import RoutingTable
from service.gateway.asgi import ClientGone, error_headers, read_body, send_json
from service.gateway.ask import Kind
from service.gateway.capture import Outbox
from service.gateway.dialects import DIALECTS, OPENAI, any_key
from service.gateway.embedders import Embedders
from service.gateway.feedback import read_feedback
from service.gateway.ids import RequestIds
from service.gateway.keyring import Keyring
from service.gateway.models import list_models, one_model
from service.gateway.proxy import Proxy
from service.gateway.table import Routes
from service.ports import Clock
from service.settings import GatewaySettings
from service.telemetry import GatewayMetrics

_log = logging.getLogger(__name__)

_MODEL = "/v1/models/"
_STORED = "/v1/responses/"

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class MethodNotAllowed(TrimtabError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class V1:
    """Everything that apps call."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        proxy: Proxy,
        keyring: Keyring,
        routes: Routes,
        embedders: Embedders,
        ids: RequestIds,
        outbox: Outbox,
        metrics: GatewayMetrics,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._keyring = keyring
        self._routes = routes
        self._embedders = embedders
        self._ids = ids
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self._handlers: dict[str, tuple[str, Handler]] = {
            "/v1/feedback": ("POST", self._feedback),
            "/v1/models": ("GET", self._models),
        }
        self._kinds = {f"/v1/{kind.value}": kind for kind in Kind}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = self._kinds.get(scope["path"])
        if kind is not None and scope["method"] == "POST":
            await self._proxy.answer(kind, scope, receive, send)
            return
        try:
            await self._route(scope)(scope, receive, send)
        except ClientGone:
            return
        except TrimtabError as error:
            await self._refuse(scope, send, error)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await self._refuse(scope, send, TrimtabError("The gateway failed; its log says why."))

    def _route(self, scope: Scope) -> Handler:
        path, method = scope["path"], scope["method"]
        if path.startswith(_STORED):
            raise NotFound("Replies are not stored here, so that nobody can read another's: there is none to fetch.")
        if path not in self._handlers and path not in self._kinds and not path.startswith(_MODEL):
            raise NotFound(f"There is no {path}; /docs lists the routes.", code="unknown_url")
        allowed = self._allowed(path)
        if method.encode() != allowed:
            raise MethodNotAllowed(f"{path} takes {allowed.decode()} only.")
        return self._handlers[path][1] if path in self._handlers else self._model

    def _allowed(self, path: str) -> bytes:
        if path in self._kinds:
            return b"POST"
        return self._handlers[path][0].encode() if path in self._handlers else b"GET"

    async def _refuse(self, scope: Scope, send: Send, error: TrimtabError) -> None:
        kind = self._kinds.get(scope["path"])
        dialect = OPENAI if kind is None else DIALECTS[kind]
        name, request_id = self._request_id()
        extra = [(b"allow", self._allowed(scope["path"]))] if isinstance(error, MethodNotAllowed) else []
        body = dialect.error(error, request_id.decode())
        await send_json(send, error.status, body, [*error_headers(error), *extra, (name, request_id)])

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_key(scope, KeyScope.INFER)
        await send_json(send, 200, list_models(self._table(), self._embedders.models), [self._request_id()])

    async def _model(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_key(scope, KeyScope.INFER)
        name = scope["path"][len(_MODEL) :]
        await send_json(send, 200, one_model(self._table(), self._embedders.models, name), [self._request_id()])

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        """202 means that it is on the disk here and will reach the store."""
        self._check_key(scope, KeyScope.FEEDBACK)
        body = await read_body(scope, receive, self._settings.max_body_bytes)
        feedback = read_feedback(body, self._ids, self._clock.now())
        if not self._outbox.put(feedback):
            raise Unavailable("The spool is full, because the store is away; retry later.", retry_after_s=5.0)
        await self._outbox.write()
        for kind, value in (("rating", feedback.rating), ("expected", feedback.expected)):
            if value is not None:
                self._metrics.feedback.labels(kind).inc()
        reply = {"object": "feedback", "id": feedback.id, "request_id": feedback.request_id}
        await send_json(send, 202, reply, [self._request_id()])

    def _check_key(self, scope: Scope, wanted: KeyScope) -> None:
        self._keyring.check(any_key(scope), wanted)

    def _table(self) -> RoutingTable:
        if self._routes.table is None:
            raise Unavailable(
                "The routing table has not been read from the store yet; retry shortly.", retry_after_s=1.0
            )
        return self._routes.table

    def _request_id(self) -> tuple[bytes, bytes]:
        return b"x-request-id", self._ids.new(self._clock.now()).encode()
