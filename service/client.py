"""The control API as the command line uses it, and how its answers are printed.

httpx and rich are imported where they are used: the commands that start a process load this module too, and would hold
them for as long as it runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.core.cycle import CycleState
from service.core.errors import BadRequest, TrimtabError, Unavailable
from service.core.progress import told_of_cycle
from service.settings import Settings

if TYPE_CHECKING:
    import httpx
    from rich.table import Table

ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})
_TIMEOUT_S = 30.0
_BEFORE_SHADOW = frozenset({CycleState.OPEN, CycleState.TRAINING, CycleState.EVALUATING})


class Api:
    """Calls of `/api/v1`; failures become errors with the server's own message."""

    def __init__(self, settings: Settings, url: str | None) -> None:
        host = settings.server.host if settings.server.host not in {"0.0.0.0", "::"} else "127.0.0.1"
        self._base = (url or f"http://{host}:{settings.server.port}").rstrip("/") + "/api/v1"
        key = os.environ.get("TRIMTAB_KEY")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, **query: str | None) -> Any:
        return self._ask("GET", path, params={k: v for k, v in query.items() if v is not None}).json()

    def text(self, path: str, **query: str) -> str:
        """What is not JSON."""
        return self._ask("GET", path, params=query).text

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("POST", path, json=body).json()

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path).json()

    def upload_adapter(self, alias: str, folder: Path) -> Any:
        if not folder.is_dir():
            raise BadRequest(f"There is no folder {folder}; give the folder that holds adapter_config.json.")
        if not (folder / "adapter_config.json").is_file():
            raise BadRequest(f"The folder {folder} holds no adapter_config.json, so it is no PEFT adapter.")
        files = [("files", (f.name, f.read_bytes())) for f in sorted(folder.iterdir()) if f.name in ADAPTER_FILES]
        return self._ask("POST", "/adapters", data={"alias": alias}, files=files).json()

    def _ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        import httpx

        try:
            with httpx.Client(timeout=_TIMEOUT_S, headers=self._headers, trust_env=False) as http:
                reply = http.request(method, self._base + path, **kwargs)
        except httpx.UnsupportedProtocol as error:
            raise BadRequest(f"{self._base} is no address; give --url one such as http://127.0.0.1:8080.") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Trimtab does not answer at {self._base}; start it with `trimtab up` or give --url."
            ) from error
        if reply.status_code >= 400:
            raise TrimtabError(_message(reply))
        return reply


def follow(api: Api, cycle: str, say: Callable[[str], None], every_s: float = 1.0) -> Mapping[str, Any]:
    """Say how the cycle goes until its candidate is trained and judged, or it has ended; the cycle as it is then."""
    while True:
        found: Mapping[str, Any] = api.get(f"/cycles/{cycle}")
        if found["state"] not in _BEFORE_SHADOW:
            return found
        say(told_of_cycle(found))
        time.sleep(every_s)


def unix_seconds(moment: str) -> float:
    """An ISO 8601 moment; without a time zone it is this machine's."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{moment!r} is not a moment; write it like 2026-11-20T14:05.", param="at") from error


def show(data: Any, as_json: bool) -> None:
    """Print as JSON, or as a table for a person."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
        return
    from rich.console import Console

    # A pipe has no width: let rows be as long as they are.
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
    rows = next((v for v in data.values() if isinstance(v, list)), None) if isinstance(data, Mapping) else data
    if isinstance(rows, list) and isinstance(data, Mapping) and len(data) <= 2:
        console.print(_table(rows) if rows else "None.")
        return
    for key, value in data.items():
        console.print(f"[bold]{key}[/bold]: {_cell(key, value)}")


def _table(rows: list[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    columns = [k for k, v in rows[0].items() if not isinstance(v, list | dict)]
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(column, row.get(column)) for column in columns))
    return table


def _cell(key: str, value: Any) -> str:
    if isinstance(value, int | float) and (key == "at" or key.endswith(("_at", "_since"))):
        return datetime.fromtimestamp(value).astimezone().isoformat(" ", "seconds") if value else ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else str(value)


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.request.url} answered {reply.status_code}."
