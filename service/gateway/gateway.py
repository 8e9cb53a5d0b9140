"""The data plane of one process, put together: what it is built from, what runs in its background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from service.core.errors import TrimtabError, Unavailable
from service.core.records import Capture, Key, Scope
from service.core.routing import RoutingTable
from service.drivers.failpoints import Failpoint, reach
from service.gateway.admission import Admission
from service.gateway.capture import Outbox
from service.gateway.embedders import Embedders
from service.gateway.exchange import Exchange
from service.gateway.ids import RequestIds
from service.gateway.keyring import Keyring
from service.gateway.mirror import Mirror
from service.gateway.occupancy import Occupancy
from service.gateway.proxy import Proxy
from service.gateway.shipping import Shipping
from service.gateway.table import Routes
from service.gateway.tally import Tally
from service.gateway.upstream import Upstream
from service.gateway.v1 import V1
from service.ports import Clock
from service.settings import Settings
from service.telemetry import GatewayMetrics

if TYPE_CHECKING:
    from service.gateway.spans import Spans

_log = logging.getLogger(__name__)

_STALE_POLLS = 3.0
"""After so many polls without an answer of the store nobody can say that a key is unknown."""

_HEAR_AGAIN_S = 2.0


class Gateway:
    """Serves /v1 between `start` and `stop`.

    Args:
        load_routing: the store's routing snapshot, read every `gateway.routing_poll_s`.
        load_keys: the issued keys, read every `gateway.keys_poll_s`.
        shipping: what takes captures, shadow replies and feedback to the store.
        secret: signs request ids; the same for all gateways over one store.
        spans: where a span of each request goes.
        notices: yields whenever the routing may have changed, for a store that can tell.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        load_routing: Callable[[], Awaitable[RoutingTable]],
        load_keys: Callable[[], Awaitable[Sequence[Key]]],
        shipping: Shipping,
        secret: bytes,
        metrics: GatewayMetrics,
        registry: CollectorRegistry,
        clock: Clock,
        spans: Spans | None = None,
        notices: Callable[[], AsyncIterator[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self._load_routing = load_routing
        self._load_keys = load_keys
        self._notices = notices
        self._metrics = metrics
        self._clock = clock
        self._spans = spans
        self._keyring = Keyring(
            settings.server.keys_required, stale_after_s=_STALE_POLLS * settings.gateway.keys_poll_s, clock=clock
        )
        self._routes = Routes(settings.gateway.settle_s)
        self._embedders = Embedders(settings.embedding_engines)
        self._upstream = Upstream(connect_timeout_s=settings.gateway.connect_timeout_s, key=settings.engine_key)
        self._outbox = Outbox(settings.state_dir / "spool", settings.capture, shipping, metrics, clock)
        admission = Admission(settings.gateway, metrics)
        occupancy = Occupancy()
        ids = RequestIds(secret)
        self._mirror = Mirror(
            settings, routes=self._routes, occupancy=occupancy, upstream=self._upstream, metrics=metrics, clock=clock,
            record=self._outbox.put,
        )  # fmt: skip
        self._proxy = Proxy(
            settings, keyring=self._keyring, routes=self._routes, embedders=self._embedders, occupancy=occupancy,
            admission=admission, upstream=self._upstream, ids=ids, tally=Tally(metrics), clock=clock, told=self._told,
            spans=spans,
        )  # fmt: skip
        self.v1 = V1(
            settings.gateway, proxy=self._proxy, keyring=self._keyring, routes=self._routes, embedders=self._embedders,
            ids=ids, outbox=self._outbox, metrics=metrics, clock=clock,
        )  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []
        self._serving = False
        metrics.routing_age.set_function(lambda: clock.now() - self._routes.confirmed_at)

    async def start(self) -> None:
        """Begin to serve; with the store away it starts unready and keeps trying."""
        await self._outbox.start()
        await self._upstream.start()
        self._serving = True
        polls = (
            (self.refresh, self.settings.gateway.routing_poll_s, "routing table"),
            (self._read_keys, self.settings.gateway.keys_poll_s, "keys"),
            (self._probe, self.settings.gateway.probe_s, "engines' health"),
        )
        for read, _, what in polls:
            await self._attempt(read, what, tell=True)
        self._tasks = [asyncio.create_task(self._poll(*poll)) for poll in polls]
        if self._notices is not None:
            self._tasks.append(asyncio.create_task(self._follow(self._notices)))

    async def stop(self) -> None:
        """Unready at once; shadows are dropped, captures written and shipped."""
        self._serving = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._proxy.all_told()
        await self._mirror.stop()
        await self._upstream.stop()
        await self._outbox.stop()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.stop)

    def drain(self) -> None:
        """Tell load balancers to go elsewhere; requests are still answered."""
        self._serving = False

    async def refresh(self) -> None:
        """Read the routing table now: what a flip in this process calls, so that the next request sees it."""
        table = await self._load_routing()
        reach(Failpoint.TABLE_READ)
        before = self._routes.table
        if self._routes.swap(table, self._clock.now()):
            reach(Failpoint.TABLE_SWAPPED)
            for engine in table.engines:
                self._metrics.engine_up.labels(engine.url).set(engine.ready)
            for url in {e.url for e in before.engines} - {e.url for e in table.engines} if before else ():
                self._metrics.engine_up.remove(url)

    def authorize(self, headers: Mapping[str, str], scope: Scope) -> str | None:
        """The name of the key that these headers carry (None where keys are optional); raises unless it may."""
        return self._keyring.authorize(headers, scope)

    def check_ready(self) -> None:
        """Raise Unavailable, with the reason, unless requests can be answered."""
        if not self._serving:
            raise Unavailable("The gateway is stopping or has not started.", retry_after_s=1.0)
        if self._routes.table is None:
            raise Unavailable("The routing table has not been read from the store yet.", retry_after_s=1.0)
        if not self._routes.ready_engines:
            raise Unavailable("No engine is ready yet; `trimtab up` prints where its log is.", retry_after_s=1.0)

    def _told(self, exchange: Exchange, capture: Capture) -> None:
        if not self.settings.capture.enabled:
            return
        self._outbox.put(capture)
        if capture.status == 200 and capture.error is None and exchange.ask and exchange.target:
            tokens = capture.prompt_tokens + capture.completion_tokens
            self._mirror.offer(exchange.request_id, exchange.ask, exchange.target, tokens)

    async def _probe(self) -> None:
        await asyncio.gather(*map(self._learn_models, self._embedders.engines))
        engines = [engine.url for engine in self._routes.table.engines] if self._routes.table else []
        answers = await asyncio.gather(*map(self._upstream.answers, engines))
        for url, answered in zip(engines, answers, strict=True):
            self._routes.probed(url, answered)

    async def _learn_models(self, engine: str) -> None:
        models = await self._upstream.models(engine)
        self._routes.probed(engine, models is not None)
        if models is not None:
            self._embedders.listed(engine, models)

    async def _read_keys(self) -> None:
        self._keyring.swap(await self._load_keys())

    async def _poll(self, read: Callable[[], Awaitable[None]], every_s: float, what: str) -> None:
        well = True
        while True:
            await self._clock.sleep(every_s)
            well = await self._attempt(read, what, tell=well)

    async def _follow(self, notices: Callable[[], AsyncIterator[None]]) -> None:
        """Read the table at each notice; while none can come, the poll alone does so."""
        while True:
            try:
                async for _ in notices():
                    await self._attempt(self.refresh, "routing table", tell=False)
            except TrimtabError as error:
                _log.info("no notices of flips come: %s", error.message)
            await self._clock.sleep(_HEAR_AGAIN_S)

    async def _attempt(self, read: Callable[[], Awaitable[None]], what: str, *, tell: bool) -> bool:
        """The store may be away for a while: what was read last stays in force."""
        try:
            await read()
        except Exception as error:
            if tell:
                _log.warning("the %s could not be read, the last one stays in force: %s", what, error)
            return False
        return True
