"""The engines' HTTP side: pools of connections, and every way in which an engine can fail as one of our errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from service.core.errors import BadRequest, EngineFailed, NotFound, Overloaded, TooLarge, TrimtabError, Unavailable
from service.gateway.reading import engine_message
from service.gateway.wire import ConnectionPool, EngineConnection, WireError

NO_TRACE: Mapping[str, str] = MappingProxyType({})

_IDLE_S = 4.0
"""Below vLLM's own keep-alive of 5 s, so that we do not write on a connection that it is closing."""

_MAX_ERROR_BYTES = 64 * 1024
_JSON = "content-type: application/json\r\n"


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


_models = msgspec.json.Decoder(_Cards)


class EngineLost(EngineFailed):
    """The connection failed before a byte of the reply: asking elsewhere is safe."""


class AdapterMissing(Unavailable):
    """The engine does not hold the adapter that the routing table says it holds; it has probably restarted."""


class Upstream:
    """Requests to engines, by their URLs."""

    def __init__(self, *, connect_timeout_s: float, key: str | None) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._headers = f"content-type: application/json\r\nauthorization: Bearer {key}\r\n" if key else _JSON
        self._pools: dict[str, ConnectionPool] = {}
        self._heads: dict[tuple[str, str], str] = {}
        self._running = False

    async def start(self) -> None:
        self._running = True

    async def stop(self) -> None:
        self._running = False
        for pool in self._pools.values():
            pool.close()

    async def answers(self, engine: str) -> bool:
        """Whether the engine calls itself healthy, in time."""
        found = await self._get(engine, "health")
        return found is not None

    async def models(self, engine: str) -> frozenset[str] | None:
        """The names of what the engine serves; None if it does not answer in time."""
        found = await self._get(engine, "v1/models")
        try:
            return None if found is None else frozenset(card.id for card in _models.decode(found).data)
        except ValueError:
            return None

    async def open(
        self, engine: str, path: str, body: bytes, request_id: str, trace: Mapping[str, str] = NO_TRACE
    ) -> EngineConnection:
        """The engine's reply once its head is there, with status 200; the caller releases or closes it.

        Raises:
            EngineLost: no reply at all; asking another engine is safe.
            TrimtabError: the engine's refusal, in our words and with its message.
        """
        if not self._running:
            raise Unavailable("The gateway is stopping.", retry_after_s=1.0)
        head = self._heads.get((engine, path))
        if head is None:
            head = self._heads[engine, path] = self._head("POST", engine, f"v1/{path}")
        for name in trace:
            head += f"{name}: {trace[name]}\r\n"
        head += f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            reply = await self._pool(engine).ask(head.encode("latin-1"), body)
            if reply.status == 200:
                return reply
            try:
                text = await reply.read(_MAX_ERROR_BYTES)
            except BaseException:
                reply.close()
                raise
        except WireError as error:
            raise EngineLost(f"The engine did not answer ({error}); retry shortly.") from error
        reply.release()
        raise refusal(reply.status, text)

    async def _get(self, engine: str, path: str) -> bytes | None:
        """What the engine answers with status 200; None if it does not, or not within the time to connect."""
        head = self._head("GET", engine, path) + "\r\n"
        with contextlib.suppress(WireError, TimeoutError):
            async with asyncio.timeout(self._connect_timeout_s):
                with await self._pool(engine).ask(head.encode("latin-1")) as reply:
                    body = await reply.read()
                    return body if reply.status == 200 else None
        return None

    def _head(self, method: str, engine: str, path: str) -> str:
        url = urlsplit(engine)
        return f"{method} {url.path.rstrip('/')}/{path} HTTP/1.1\r\nhost: {url.netloc}\r\n{self._headers}"

    def _pool(self, engine: str) -> ConnectionPool:
        pool = self._pools.get(engine)
        if pool is None:
            pool = ConnectionPool(engine, connect_timeout_s=self._connect_timeout_s, idle_s=_IDLE_S)
            self._pools[engine] = pool
        return pool


def refusal(status: int, body: bytes) -> TrimtabError:
    """An engine's error reply as ours: a client's mistake keeps its status, all else is the engine's failure."""
    error = _error_of(body)
    message = engine_message(error) if error else f"The engine answered {status}."
    param = error.get("param") if isinstance(error, dict) and isinstance(error.get("param"), str) else None
    if status in {400, 422}:
        return BadRequest(message, param=param)
    if status == 404 and not isinstance(error, dict):  # vLLM's word for a model that it lacks has more to it
        return NotFound(f"The engine does not have this route: {message}", code="not_supported")
    if status == 404:
        return AdapterMissing(
            "The engine does not hold the adapter yet; retry shortly.", param="model", retry_after_s=1.0
        )
    if status == 413:
        return TooLarge(message, param=param)
    if status == 429:
        return Overloaded(message, retry_after_s=1.0)
    if status == 503:
        return Unavailable(message, retry_after_s=1.0)
    if status in {401, 403}:
        return EngineFailed("The engine refused the gateway's own key; set engine_key to the engine's.")
    if status == 501:
        return NotFound(f"The engine cannot do that: {message}", code="not_supported")
    return EngineFailed(f"The engine failed ({status}): {message}")


def _error_of(body: bytes) -> Any:
    try:
        content = msgspec.json.decode(body)
    except ValueError:
        return None
    return content.get("error") or content.get("detail") if isinstance(content, dict) else None
