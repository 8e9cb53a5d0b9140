"""/console: static files under a strict policy; the data comes from /api/v1 with the person's key."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from service.control.cards import Form, card_reply, card_subject, read_card
from service.control.context import Control
from service.control.reports import SECRET, check_ticket, report_file
from service.core.errors import NotFound

_FOLDER = Path(__file__).parent / "console"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def console_routes(control: Control) -> APIRouter:
    routes = APIRouter(prefix="/console", include_in_schema=False)
    assets = {
        path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in _FOLDER.iterdir() if path.suffix in _TYPES
    }

    def asset(name: str) -> Response:
        if name not in assets:
            raise NotFound(f"The console has no file {name!r}; open /console.")
        content, media_type = assets[name]
        return Response(content, media_type=media_type, headers=_HEADERS)

    @routes.get("")
    async def page() -> Response:
        return asset("index.html")

    @routes.get("/{name}")
    async def file(name: str) -> Response:
        return asset(name)

    @routes.get("/reports/{check_id}")
    async def report(check_id: str, ticket: str = "") -> FileResponse:
        check_ticket(await control.store.secret(SECRET), check_id, ticket, control.clock.now())
        return await report_file(control.store, control.reports_dir, check_id)

    @routes.get("/cards/{name}")
    async def model_card(name: str, ticket: str = "") -> Response:
        check_ticket(await control.store.secret(SECRET), card_subject(name), ticket, control.clock.now())
        return card_reply(await read_card(control, name), Form.HTML)

    return routes
