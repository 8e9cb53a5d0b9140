"""The door of the admin API: nothing under /api/v1 is read before the key, the origin and the size are good."""

from __future__ import annotations

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.control.context import PERSON, Authorize
from service.control.faults import fault_reply
from service.core.errors import BadRequest, Forbidden, TooLarge, TrimtabError
from service.core.records import Scope as KeyScope

PREFIX = "/api/v1"
MAX_BODY_BYTES = 2**20
MAX_ADAPTER_BYTES = 4 * 2**30
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})


class AdminGate:
    """Plain ASGI middleware; it leaves the actor's name in the request's state."""

    def __init__(self, app: ASGIApp, authorize: Authorize) -> None:
        self._app = app
        self._authorize = authorize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The very path that the router will look at: any other reading of it would be a way past this door.
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        limit = MAX_ADAPTER_BYTES if path == f"{PREFIX}/adapters" else MAX_BODY_BYTES
        try:
            actor = self._admit(scope["method"], Headers(scope=scope), limit)
        except TrimtabError as error:
            await fault_reply(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        await self._app(scope, _bounded(receive, limit), _private(send))

    def _admit(self, method: str, headers: Headers, limit: int) -> str:
        actor = self._authorize(headers, KeyScope.ADMIN) or PERSON
        # Where keys are optional, a page of another site could otherwise have the browser post for it.
        if method not in _SAFE and headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise Forbidden(
                "Changes are accepted from this server's own pages and from programs, not from other sites."
            )
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise BadRequest("The content-length header is not a number.")
        if int(length) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes.")
        return actor


def _bounded(receive: Receive, limit: int) -> Receive:
    """A body without a declared length is bounded as it comes."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"The body is over the limit of {limit} bytes.")
        return message

    return bounded


def _private(send: Send) -> Send:
    """What an admin reads is neither cached nor sniffed."""

    async def private(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return private
