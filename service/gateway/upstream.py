"""The engines' HTTP side: one pooled client, and every way in which an engine can fail as one of our errors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from service.core.errors import BadRequest, EngineFailed, NotFound, Overloaded, TooLarge, TrimtabError, Unavailable
from service.gateway.reading import engine_message

NO_TRACE: Mapping[str, str] = MappingProxyType({})

_IDLE_S = 4.0
"""Below vLLM's own keep-alive of 5 s, so that we do not write on a connection that it is closing."""

_MAX_ERROR_BYTES = 64 * 1024
_LARGE_BODY = 2**20
_READ_BUFFER = 2**16
"""Of each reply, and as much again: what a client who stops reading makes us hold."""


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
    """POST to an engine, by its URL."""

    def __init__(self, *, connect_timeout_s: float, key: str | None) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._urls: dict[tuple[str, str], URL] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S, ttl_dns_cache=10),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            trust_env=False,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def answers(self, engine: str) -> bool:
        """Whether the engine calls itself healthy, in time."""
        if self._session is None:
            return False
        timeout = aiohttp.ClientTimeout(total=self._connect_timeout_s)
        try:
            async with self._session.get(f"{engine}/health", timeout=timeout) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def models(self, engine: str) -> frozenset[str] | None:
        """The names of what the engine serves; None if it does not answer in time."""
        if self._session is None:
            return None
        timeout = aiohttp.ClientTimeout(total=self._connect_timeout_s)
        try:
            async with self._session.get(f"{engine}/v1/models", headers=self._headers, timeout=timeout) as reply:
                cards = _models.decode(await reply.read()).data if reply.status == 200 else None
        except (aiohttp.ClientError, OSError, ValueError):
            return None
        return None if cards is None else frozenset(card.id for card in cards)

    async def open(
        self, engine: str, path: str, body: bytes, request_id: str, trace: Mapping[str, str] = NO_TRACE
    ) -> aiohttp.ClientResponse:
        """The engine's reply once its head is there, with status 200; the caller closes it.

        Raises:
            EngineLost: no reply at all; asking another engine is safe.
            TrimtabError: the engine's refusal, in our words and with its message.
        """
        if self._session is None:
            raise Unavailable("The gateway is stopping.", retry_after_s=1.0)
        url = self._urls.get((engine, path))
        if url is None:
            url = self._urls[engine, path] = URL(f"{engine}/v1/{path}")
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        headers = {**self._headers, **trace, "x-request-id": request_id}
        try:
            reply = await self._session.post(url, data=data, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise EngineLost(f"The engine did not answer ({type(error).__name__}); retry shortly.") from error
        if reply.status == 200:
            return reply
        try:
            text = await reply.content.read(_MAX_ERROR_BYTES)
        except aiohttp.ClientError as error:
            raise EngineLost("The engine broke off its answer; retry shortly.") from error
        finally:
            reply.close()
        raise refusal(reply.status, text)


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
