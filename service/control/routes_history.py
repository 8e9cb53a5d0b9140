"""/api/v1/{cycles,drift,events} and /api/v1/aliases/NAME/history: what happened and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from service.control.context import Control
from service.control.history import history, served_at
from service.control.overview import cycle_and_job
from service.control.reports import SECRET, TICKET_LIFE_S, make_ticket, report_file
from service.control.views import View, cycle_view, drift_view, record_view

Limit = Annotated[int, Query(ge=1, le=500)]
_CYCLE_EVENTS = 500


def history_routes(control: Control) -> APIRouter:
    routes = APIRouter()
    store = control.store

    @routes.get("/cycles", tags=["cycles"])
    async def cycles(alias: str | None = None, open_only: bool = False, limit: Limit = 50) -> View:
        """Newest first."""
        found = await store.cycles(alias, open_only=open_only, limit=limit)
        return {"data": [cycle_view(cycle) for cycle in found]}

    @routes.get("/cycles/{cycle_id}", tags=["cycles"])
    async def cycle(cycle_id: str) -> View:
        """One cycle with its evidence, its job's progress and its events."""
        found = await store.cycle(cycle_id)
        return await cycle_and_job(control, found, await store.events(found.alias, limit=_CYCLE_EVENTS))

    @routes.get("/drift", tags=["drift"])
    async def drift(alias: str | None = None, limit: Limit = 50, slice: str | None = None) -> View:
        """Drift checks, newest first, of aliases or of one `slice` (key=value); `latest` has one for each alias."""
        checks = await store.drift_checks(alias, limit=limit, slice=slice)
        names = [alias] if alias else [found.name for found in await store.aliases()]
        newest = {name: await store.drift_checks(name, limit=1) for name in names}
        return {
            "data": [drift_view(check) for check in checks],
            "latest": {name: drift_view(found[0]) for name, found in newest.items() if found},
        }

    @routes.get("/drift/{check_id}/report", tags=["drift"], response_class=FileResponse)
    async def report(check_id: str) -> FileResponse:
        """Evidently's HTML report of one check."""
        return await report_file(store, control.reports_dir, check_id)

    @routes.get("/drift/{check_id}/report-link", tags=["drift"])
    async def report_link(check_id: str) -> View:
        """A link to the report that works without a key for a minute, relative to /console."""
        ticket = make_ticket(await store.secret(SECRET), check_id, control.clock.now())
        return {"href": f"console/reports/{check_id}?ticket={ticket}", "valid_s": TICKET_LIFE_S}

    @routes.get("/aliases/{name}/history", tags=["aliases"])
    async def alias_history(name: str, at: Annotated[float | None, Query(allow_inf_nan=False)] = None) -> View:
        """What the alias served, newest first; with `at` (Unix seconds), what it served then and why."""
        if at is not None:
            return await served_at(store, name, at)
        return {"data": await history(store, name)}

    @routes.get("/events", tags=["events"])
    async def events(alias: str | None = None, after_id: Annotated[int, Query(ge=0)] = 0, limit: Limit = 100) -> View:
        """The audit log, newest first."""
        return {"data": [record_view(e) for e in await store.events(alias, after_id=after_id, limit=limit)]}

    return routes
