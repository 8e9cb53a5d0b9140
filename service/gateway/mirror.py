"""Shadow traffic on a budget of its own: offered after the client's last byte, run in lulls, never felt by a client.

`core/shadow.py` decides; this waits, asks, breaks off and counts. What waits costs the engine nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

from service.core.errors import BadRequest, TrimtabError
from service.core.names import BASE
from service.core.records import ShadowReply
from service.core.routing import Target, holders
from service.core.sampling import in_share
from service.core.shadow import EngineUse, Hold, LoadAverage, ShadowLimits, TokenBudget, hold, must_yield
from service.gateway.ask import Ask, with_fields
from service.gateway.occupancy import Occupancy
from service.gateway.reading import Said
from service.gateway.table import Routes
from service.gateway.upstream import Upstream
from service.gateway.wire import WireError
from service.ports import Clock
from service.settings import Settings
from service.telemetry import GatewayMetrics

_log = logging.getLogger(__name__)

SHADOW_PRIORITY = 100
"""vLLM schedules larger numbers later; clients' requests have 0."""

_LOOK_S = 0.02
"""Between two looks at the engines while shadows wait or run: a few steps of a model."""

_LOAD_LOOKS = 250
"""Of the load average: the last few seconds."""

_BUDGET_TOKENS = 16_384
"""What a lull in the clients' traffic may use of what they earned before."""


@dataclass(frozen=True, slots=True)
class Job:
    """One client request to be answered again by its alias's candidate; `tokens` is what the client's reply took."""

    request_id: str
    ask: Ask[Any]
    alias: str
    candidate: str
    tokens: int
    wait_until: float


@dataclass(slots=True, eq=False)
class _Shadow:
    """A job at an engine; `yielded` once it is broken off for clients."""

    job: Job
    engine: str
    task: asyncio.Task[None]
    yielded: bool = False


class Mirror:
    """Asks candidates what clients asked, when and where that delays no client."""

    def __init__(
        self,
        settings: Settings,
        *,
        routes: Routes,
        occupancy: Occupancy,
        upstream: Upstream,
        metrics: GatewayMetrics,
        clock: Clock,
        record: Callable[[ShadowReply], object],
    ) -> None:
        mirror = self._settings = settings.mirror
        engine = settings.engine
        max_live = mirror.max_live_ratio * engine.max_num_seqs
        self._limits = ShadowLimits(max_live, mirror.max_in_flight, engine.max_loras)
        self._budget = TokenBudget(mirror.token_ratio, _BUDGET_TOKENS)
        self._routes = routes
        self._occupancy = occupancy
        self._upstream = upstream
        self._metrics = metrics
        self._clock = clock
        self._record = record
        self._queue: deque[Job] = deque()
        self._running: set[_Shadow] = set()
        self._working: asyncio.Task[None] | None = None
        self._load: dict[str, LoadAverage] = {}
        self._without_priority: set[str] = set()

    def offer(self, request_id: str, ask: Ask[Any], target: Target, tokens: int) -> None:
        """Perhaps ask the candidate the same; returns at once, whatever becomes of it.

        `tokens` is what the client's request took, prompt and reply.
        """
        candidate = target.candidate
        if candidate is None or not ask.mirrored:
            return
        self._budget.earn(tokens)
        if not in_share(request_id, target.mirror_ratio, salt=candidate):
            return
        self._count(target.alias, "offered")
        job = Job(request_id, ask, target.alias, candidate, tokens, self._clock.now() + self._settings.deadline_s)
        if len(self._queue) >= self._settings.max_queue:
            self._shed(job, Hold.QUEUE_FULL)
            return
        self._queue.append(job)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Drop what waits, abort what runs."""
        self._queue.clear()
        tasks = [shadow.task for shadow in self._running]
        if self._working is not None:
            tasks.append(self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._queue or self._running:
            self._look()
            self._yield()
            self._begin_waiting()
            await self._clock.sleep(_LOOK_S)

    def _look(self) -> None:
        table = self._routes.table
        engines = [engine.url for engine in table.engines] if table else []
        self._load = {url: self._load.get(url) or LoadAverage(_LOAD_LOOKS) for url in engines}
        for url, load in self._load.items():
            load.see(self._occupancy.live(url))

    def _yield(self) -> None:
        now = self._clock.now()
        for engine in {shadow.engine for shadow in self._running}:
            if must_yield(self._use(engine, now), self._limits):
                for shadow in self._running:
                    if shadow.engine == engine and not shadow.yielded:
                        shadow.yielded = True
                        shadow.task.cancel()

    def _begin_waiting(self) -> None:
        """Start what may start, in order of arrival; a candidate that is held back does not hold up the others."""
        now = self._clock.now()
        held: dict[str, Hold] = {}
        waiting: deque[Job] = deque()
        for job in self._queue:
            why = held.get(job.candidate) or self._begin(job, now)
            if why is None:
                continue
            held[job.candidate] = why
            if why is Hold.NO_ENGINE or now > job.wait_until:
                self._shed(job, why)
            else:
                waiting.append(job)
        self._queue = waiting

    def _begin(self, job: Job, now: float) -> Hold | None:
        engine = self._engine(job, now)
        if engine is None:
            return Hold.NO_ENGINE
        if why := hold(self._use(engine, now), self._limits, job.candidate):
            return why
        if not self._budget.allows(job.tokens):
            return Hold.TOKEN_BUDGET
        self._budget.charge(job.tokens)
        shadow = _Shadow(job, engine, asyncio.create_task(self._ask(job, engine)))
        self._running.add(shadow)
        shadow.task.add_done_callback(lambda _: self._ended(shadow))
        return None

    def _engine(self, job: Job, now: float) -> str | None:
        """Where the candidate is resident; None once the alias has moved on."""
        table = self._routes.table
        alias = table.aliases.get(job.alias) if table else None
        if table is None or alias is None or alias.candidate != job.candidate:
            return None
        return self._routes.pick([e.url for e in holders(table, job.candidate)], now)

    def _served_name(self, candidate: str, engine: str) -> str:
        """The engine's word for it: after a promotion the base may answer in shadow, as what was champion before."""
        table = self._routes.table
        if candidate != BASE or table is None:
            return candidate
        return next((view.base_model for view in table.engines if view.url == engine), candidate)

    def _use(self, engine: str, now: float) -> EngineUse:
        candidates = [shadow.job.candidate for shadow in self._running if shadow.engine == engine]
        occupancy, load = self._occupancy, self._load.get(engine)
        return EngineUse(
            live=occupancy.live(engine),
            load_average=load.value if load else inf,
            adapters=occupancy.adapters(engine, now),
            shadows=len(candidates),
            candidates=frozenset(candidates),
        )

    def _ended(self, shadow: _Shadow) -> None:
        self._running.discard(shadow)
        if not shadow.task.cancelled():
            if error := shadow.task.exception():
                _log.error("the shadow of %s failed", shadow.job.request_id, exc_info=error)
                self._count(shadow.job.alias, "failed")
            self._begin_waiting()
        elif shadow.yielded:
            self._count(shadow.job.alias, "yielded")
            self._queue.appendleft(shadow.job)

    async def _ask(self, job: Job, engine: str) -> None:
        at, started = self._clock.now(), perf_counter()
        said, status, error = Said(), 200, None
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                said = await self._reply(job, engine)
            self._budget.charge(said.prompt_tokens + said.completion_tokens - job.tokens)
            error = said.error
        except TimeoutError:
            status, error = 504, "The shadow request took too long."
        except TrimtabError as failure:
            status, error = failure.status, failure.message
        except WireError as failure:
            status, error = 502, f"The engine broke off ({type(failure).__name__})."
        self._count(job.alias, "failed" if error else "sent")
        self._record(
            ShadowReply(
                request_id=job.request_id,
                candidate=job.candidate,
                at=at,
                reply=said.text,
                status=status,
                duration_s=perf_counter() - started,
                confidence=said.confidence,
                completion_tokens=said.completion_tokens,
                error=error,
            )
        )

    async def _reply(self, job: Job, engine: str) -> Said:
        body = job.ask.shadow_body(self._served_name(job.candidate, engine))
        if engine not in self._without_priority:
            try:
                return await self._post(job, engine, with_fields(body, {"priority": SHADOW_PRIORITY}))
            except BadRequest as error:
                if "priority" not in error.message:
                    raise
                _log.warning("an engine does not schedule by priority; start it with --scheduling-policy priority")
                self._without_priority.add(engine)
        return await self._post(job, engine, body)

    async def _post(self, job: Job, engine: str, body: bytes) -> Said:
        self._routes.entered(engine)
        try:
            reply = await self._upstream.open(engine, job.ask.kind.value, body, f"{job.request_id}-shadow")
            with reply:
                reader = job.ask.reader()
                reader.whole(await reply.read())
                return reader.said()
        finally:
            self._routes.left(engine)

    def _count(self, alias: str, outcome: str) -> None:
        self._metrics.mirror_requests.labels(alias, outcome).inc()

    def _shed(self, job: Job, why: Hold) -> None:
        self._count(job.alias, "shed")
        self._metrics.mirror_shed.labels(job.alias, why).inc()
