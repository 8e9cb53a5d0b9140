"""The control plane's HTTP face: admin API under /api/v1 and the console. This module only composes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, FastAPI

from service.control.context import AddAdapter, Authorize, Control
from service.control.erasure import erasure_routes
from service.control.faults import add_fault_handlers
from service.control.gate import PREFIX, AdminGate
from service.control.overview import overview
from service.control.quality import QualityBoard
from service.control.routes_adapters import adapter_routes
from service.control.routes_aliases import alias_routes
from service.control.routes_console import console_routes
from service.control.routes_history import history_routes
from service.control.routes_keys import key_routes
from service.control.starts import alert_routes
from service.control.views import View
from service.ports import Clock, Store
from service.settings import Settings


def create_control_app(
    store: Store,
    settings: Settings,
    *,
    authorize: Authorize,
    on_change: Callable[[], Awaitable[None]],
    clock: Clock,
    adapters: AddAdapter,
) -> FastAPI:
    """Admin API and console over `store`.

    Args:
        authorize: raises Unauthenticated or Forbidden unless the headers carry a key with the scope; returns its name.
        on_change: awaited after each change, so that this process's gateway serves it at once.
        adapters: checks, stores and registers the adapter in a folder.
    """
    board = QualityBoard(store, settings, clock)
    control = Control(store, settings, authorize, on_change, clock, adapters, board)
    app = FastAPI(title="Trimtab control", version="1", redoc_url=None)
    api = APIRouter(prefix=PREFIX)

    @api.get("/status", tags=["status"])
    async def status() -> View:
        """Everything that the console shows, in one reply."""
        return await overview(control)

    for routes in (alias_routes, adapter_routes, history_routes, key_routes, alert_routes, erasure_routes):
        api.include_router(routes(control))
    app.include_router(api)
    app.include_router(console_routes(control))
    app.add_middleware(AdminGate, authorize=authorize)
    add_fault_handlers(app)
    return app
