"""Bytes in, bytes out: a request is admitted, routed, sent to an engine and its reply passed on as it comes.

The model named in a reply is the engine's word, the adapter that answered: `x-trimtab-adapter` says the same. Bytes are
changed only to hide what was asked for on the side: log-probabilities and the usage event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from service.core.errors import Overloaded, TrimtabError, Unavailable
from service.core.names import user_source
from service.core.records import Capture
from service.core.records import Scope as KeyScope
from service.core.routing import Target, resolve
from service.gateway.admission import Admission
from service.gateway.asgi import JSON, ClientGone, error_headers, read_body, send_bytes, send_json
from service.gateway.ask import Ask, Kind
from service.gateway.confidence import ConfidenceBudget
from service.gateway.dialects import DIALECTS
from service.gateway.embedders import Embedders
from service.gateway.exchange import Exchange
from service.gateway.guard import Guard
from service.gateway.hiding import hide_logprobs
from service.gateway.ids import RequestIds
from service.gateway.keyring import Keyring
from service.gateway.limits import Allowances
from service.gateway.occupancy import Occupancy
from service.gateway.protocol import read_ask
from service.gateway.retries import RetryBudget
from service.gateway.streaming import WRITE, Client, pass_stream
from service.gateway.table import Routes
from service.gateway.tally import UNKNOWN, Tally
from service.gateway.tracing import trace_headers
from service.gateway.upstream import AdapterMissing, EngineLost, Upstream
from service.gateway.wire import EngineConnection, WireError
from service.ports import Clock
from service.settings import Settings

if TYPE_CHECKING:
    from service.gateway.spans import Spans

_log = logging.getLogger(__name__)

CLIENT_GONE = 499
_LAST_WORDS_S = 1.0

Told = Callable[[Exchange, Capture], None]
"""Called after the last byte of an answered request; it may not wait and may not fail."""


class Proxy:
    """Answers every `Kind` of request."""

    def __init__(
        self,
        settings: Settings,
        *,
        keyring: Keyring,
        routes: Routes,
        occupancy: Occupancy,
        embedders: Embedders,
        admission: Admission,
        upstream: Upstream,
        ids: RequestIds,
        tally: Tally,
        clock: Clock,
        told: Told,
        spans: Spans | None = None,
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._routes = routes
        self._occupancy = occupancy
        self._embedders = embedders
        self._admission = admission
        self._upstream = upstream
        self._ids = ids
        self._tally = tally
        self._clock = clock
        self._told = told
        self._spans = spans
        self._allowances = Allowances()
        self._retries = RetryBudget()
        self._confidence = ConfidenceBudget(settings.capture.confidence_per_s if settings.capture.enabled else 0.0)
        self._open = 0

    async def all_told(self) -> None:
        """Return once no request is open: those that the server cut off have had their last words and their record."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _LAST_WORDS_S):
                while self._open:  # noqa: ASYNC110 - an event would cost every request
                    await asyncio.sleep(0.01)

    async def answer(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        self._open += 1
        try:
            await self._answer(kind, scope, receive, send)
        finally:
            self._open -= 1

    async def _answer(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        now = self._clock.now()
        exchange = Exchange(self._ids.new(now), now, DIALECTS[kind], trace=trace_headers(scope))
        if self._spans is not None:
            exchange.span, exchange.trace = self._spans.begin(kind.value, exchange.trace, exchange.request_id)
        try:
            with Guard(scope, self._settings.gateway.deadline_s) as guard:
                await self._admit(kind, exchange, scope, receive)
                await self._serve(exchange, Client(send, guard, scope.get("extensions", {}).get(WRITE)))
        except ClientGone:
            exchange.status, exchange.error = CLIENT_GONE, "The client went away."
        except TrimtabError as error:
            await self._fail(exchange, send, error)
        except asyncio.CancelledError:  # the server's time to drain is over
            await self._fail(exchange, send, Unavailable("The gateway stopped; ask again.", retry_after_s=1.0))
        except Exception:
            _log.exception("request %s failed", exchange.request_id)
            await self._fail(exchange, send, TrimtabError("The gateway failed; its log names the request's id."))
        finally:
            self._tell(kind, exchange)

    async def _admit(self, kind: Kind, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        key = self._keyring.check(exchange.dialect.key(scope), KeyScope.INFER)
        if key is not None:
            exchange.tenant = key.id
            exchange.allowance = self._allowances.of(key, exchange.at)
            if exchange.allowance is not None:
                exchange.allowance.enter(exchange.at)
        body = await read_body(scope, receive, self._settings.gateway.max_body_bytes)
        ask = exchange.ask = read_ask(kind, body, self._settings.gateway)
        exchange.reader = ask.reader()
        exchange.target = self._target(ask, exchange)
        if ask.user:
            exchange.source = user_source(ask.user)
        elif key is not None:
            exchange.source = f"key:{key.id}"

    def _target(self, ask: Ask[Any], exchange: Exchange) -> Target:
        if ask.kind is Kind.EMBEDDINGS:
            return self._embedders.resolve(ask.model)
        table = self._routes.at(exchange.at)
        if table is None:
            raise Unavailable(
                "The routing table has not been read from the store yet; retry shortly.", retry_after_s=1.0
            )
        alias = table.aliases.get(ask.model)
        has_canary = alias is not None and alias.canary_ratio > 0.0
        sticky = ask.user or (ask.conversation().hex() if has_canary else exchange.request_id)
        return resolve(table, ask.model, sticky)

    async def _serve(self, exchange: Exchange, client: Client) -> None:
        ask, target = exchange.ask, exchange.target
        assert ask is not None
        assert target is not None
        lane = self._admission.lane(target.alias)
        try:
            await lane.enter()
        except Overloaded:
            self._tally.shed(target.alias, "queue_full")
            raise
        try:
            self._retries.earn()
            tried: list[str] = []
            exchange.measured = ask.captured and self._confidence.take(exchange.at, self._open)
            conversation = ask.conversation() if len(target.engines) > 1 else None
            while True:
                engine = self._routes.pick(target.engines, exchange.at, tried, conversation=conversation)
                assert engine is not None
                tried.append(engine)
                try:
                    await self._ask_engine(exchange, ask, target, engine, client)
                    return
                except (EngineLost, AdapterMissing) as error:
                    self._routes.suspect(engine, self._clock.now())
                    if len(tried) > 1 or len(target.engines) == 1 or not self._retries.spend():
                        raise error
        finally:
            if exchange.measured:
                self._confidence.leave()
            lane.leave()

    async def _ask_engine(self, exchange: Exchange, ask: Ask[Any], target: Target, engine: str, client: Client) -> None:
        self._routes.entered(engine)
        self._occupancy.entered(engine, target.adapter)
        try:
            body = ask.engine_body(target.served_model, confidence=exchange.measured, tenant=exchange.tenant)
            reply = await self._upstream.open(engine, ask.kind.value, body, exchange.request_id, exchange.trace)
            exchange.engine = engine
            with reply:
                if ask.stream:
                    await pass_stream(exchange, ask, reply, client)
                else:
                    await self._pass_whole(exchange, ask, reply, client)
        finally:
            self._routes.left(engine)
            self._occupancy.left(engine, target.adapter, self._clock.now())

    async def _pass_whole(self, exchange: Exchange, ask: Ask[Any], reply: EngineConnection, client: Client) -> None:
        try:
            body = await reply.read()
        except WireError as error:
            raise EngineLost("The engine broke off its answer; retry shortly.") from error
        shown = hide_logprobs(body) if exchange.measured and not ask.wants_logprobs else body
        exchange.status = 200
        exchange.head_sent = True
        client.guard.complete()
        await send_bytes(client.send, 200, shown, [JSON, *exchange.headers()])
        assert exchange.reader is not None
        exchange.reader.whole(body)

    async def _fail(self, exchange: Exchange, send: Send, error: TrimtabError) -> None:
        exchange.status, exchange.error = error.status, error.message
        # A client that takes nothing does not take this either.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                if not exchange.head_sent:
                    body = exchange.dialect.error(error, exchange.request_id)
                    await send_json(send, error.status, body, [*error_headers(error), *exchange.headers()])
                else:
                    event = exchange.dialect.event(error, exchange.request_id)
                    await send({"type": "http.response.body", "body": event})

    def _tell(self, kind: Kind, exchange: Exchange) -> None:
        capture = self._count(exchange)
        if capture is not None:
            self._told(exchange, capture)
        if self._spans is not None and exchange.span is not None:
            self._spans.end(exchange.span, kind.value, exchange.status, capture)

    def _count(self, exchange: Exchange) -> Capture | None:
        """Add the exchange to the metrics and to its key's account; its record, if an engine answered."""
        target = exchange.target
        if target is None or exchange.engine is None:
            alias, adapter = (target.alias, target.adapter) if target else (UNKNOWN, UNKNOWN)
            self._tally.refused(alias, adapter, exchange.status)
            return None
        timing = exchange.timing()
        assert exchange.reader is not None
        said = exchange.reader.said()
        if exchange.allowance is not None:
            exchange.allowance.charge(said.prompt_tokens + said.completion_tokens)
        self._tally.served(target.alias, target.adapter, exchange.status, timing, said)
        tags = self._settings.slice_keys(target.alias)
        return exchange.capture(said, timing, content=self._settings.capture.content, tags=tags)
