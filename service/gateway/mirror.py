"""Shadow traffic on a budget of its own: offered after the client's last byte, shed first, never felt by a client."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import aiohttp

from service.core.errors import BadRequest, TrimtabError
from service.core.records import ShadowReply
from service.core.routing import Target, holders
from service.core.sampling import in_share
from service.gateway.admission import Admission
from service.gateway.protocol import Ask, with_fields
from service.gateway.reading import Reader, Said
from service.gateway.table import Routes
from service.gateway.upstream import Upstream
from service.ports import Clock
from service.settings import MirrorSettings
from service.telemetry import GatewayMetrics

_log = logging.getLogger(__name__)

SHADOW_PRIORITY = 100
"""vLLM schedules larger numbers later; clients' requests have 0."""


@dataclass(frozen=True, slots=True)
class Job:
    """One client request to be answered again by its alias's candidate."""

    request_id: str
    ask: Ask
    alias: str
    candidate: str


class Mirror:
    """Runs at most `max_in_flight` shadow requests, and none while clients keep the engines busy."""

    def __init__(
        self,
        settings: MirrorSettings,
        *,
        routes: Routes,
        admission: Admission,
        upstream: Upstream,
        metrics: GatewayMetrics,
        clock: Clock,
        record: Callable[[ShadowReply], object],
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._admission = admission
        self._upstream = upstream
        self._metrics = metrics
        self._clock = clock
        self._record = record
        self._queue: deque[Job] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._without_priority: set[str] = set()

    def offer(self, request_id: str, ask: Ask, target: Target) -> None:
        """Perhaps ask the candidate the same; returns at once, whatever becomes of it."""
        candidate = target.candidate
        if candidate is None or not in_share(request_id, target.mirror_ratio, salt=candidate):
            return
        self._count(target.alias, "offered")
        if len(self._queue) >= self._settings.max_queue or self._busy():
            self._count(target.alias, "shed")
            return
        self._queue.append(Job(request_id, ask, target.alias, candidate))
        if len(self._running) < self._settings.max_in_flight:
            task = asyncio.create_task(self._drain())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Drop what waits, abort what runs."""
        self._queue.clear()
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _busy(self) -> bool:
        return self._admission.in_flight > self._settings.max_live_in_flight

    async def _drain(self) -> None:
        while self._queue:
            job = self._queue.popleft()
            engine = None if self._busy() else self._engine(job)
            if engine is None:
                self._count(job.alias, "shed")
                continue
            try:
                await self._ask(job, engine)
            except Exception:
                _log.exception("the shadow of %s failed", job.request_id)
                self._count(job.alias, "failed")

    def _engine(self, job: Job) -> str | None:
        """Where the candidate is resident; None once the alias has moved on."""
        table = self._routes.table
        alias = table.aliases.get(job.alias) if table else None
        if table is None or alias is None or alias.candidate != job.candidate:
            return None
        return self._routes.pick([e.url for e in holders(table, job.candidate)], self._clock.now())

    async def _ask(self, job: Job, engine: str) -> None:
        at, started = self._clock.now(), perf_counter()
        said, status, error = Said(), 200, None
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                said = await self._reply(job, engine)
            error = said.error
        except TimeoutError:
            status, error = 504, "The shadow request took too long."
        except TrimtabError as failure:
            status, error = failure.status, failure.message
        except (aiohttp.ClientError, OSError) as failure:
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
        body = job.ask.shadow_body(job.candidate)
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
            async with reply:
                reader = Reader()
                reader.whole(await reply.read())
                return reader.said()
        finally:
            self._routes.left(engine)

    def _count(self, alias: str, outcome: str) -> None:
        self._metrics.mirror_requests.labels(alias, outcome).inc()
