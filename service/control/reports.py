"""Evidently's HTML reports: found by a strict name, shown in a sandbox, opened by a link that lives a minute."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from pathlib import Path

from fastapi.responses import FileResponse

from service.core.errors import Forbidden, NotFound
from service.ports import Store

TICKET_LIFE_S = 60.0
SECRET = "report-tickets"
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.html")
_SEARCHED = 2000


async def report_file(store: Store, reports_dir: Path, check_id: str) -> FileResponse:
    """The report of one drift check; NotFound when there is none, or the worker has removed it."""
    checks = await store.drift_checks(limit=_SEARCHED)
    check = next((c for c in checks if c.id == check_id), None)
    if check is None:
        raise NotFound(f"There is no drift check {check_id!r}; GET /api/v1/drift lists them.")
    name = check.report or ""
    path = reports_dir / name
    if not _NAME.fullmatch(name) or not path.is_file() or path.is_symlink():
        raise NotFound(f"The report of drift check {check_id!r} is not kept any more (drift.keep_reports).")
    headers = {"content-security-policy": SANDBOX, "x-content-type-options": "nosniff", "cache-control": "no-store"}
    return FileResponse(path, media_type="text/html", headers=headers)


def make_ticket(secret: bytes, check_id: str, now: float) -> str:
    """Leave to open one report in a new tab, where a browser sends no key."""
    until = str(int(now + TICKET_LIFE_S))
    return f"{until}.{_signature(secret, check_id, until)}"


def check_ticket(secret: bytes, check_id: str, ticket: str, now: float) -> None:
    """Raise Forbidden for a ticket that is forged, for another report, or too old."""
    until, _, signature = ticket.partition(".")
    genuine = hmac.compare_digest(signature.encode(), _signature(secret, check_id, until).encode())
    if not genuine or not until.isdigit() or int(until) < now:
        raise Forbidden("This link has expired; open it from the console again.", code="link_expired")


def _signature(secret: bytes, check_id: str, until: str) -> str:
    return hmac.new(secret, f"{check_id}|{until}".encode(), sha256).hexdigest()
