"""What every route of the control plane works with; `bootstrap` fills it, routes only read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.control.quality import QualityBoard
from service.core.records import Adapter, Scope
from service.ports import Clock, Store
from service.settings import Settings

PERSON = "person"
"""The actor of a change where keys are not required, so that nobody was named."""

Authorize = Callable[[Mapping[str, str], Scope], str | None]
"""Request headers and the scope that is asked for → the key's name, if there is one.

Raises Unauthenticated or Forbidden.
"""


class AddAdapter(Protocol):
    """Check a folder's files, put them into the adapter store and register them; raises BadAdapter."""

    async def __call__(self, alias: str, folder: Path) -> Adapter: ...


@dataclass(frozen=True, slots=True)
class Control:
    """The parts behind the routes. `on_change` makes this process's gateway serve a change at once."""

    store: Store
    settings: Settings
    authorize: Authorize
    on_change: Callable[[], Awaitable[None]]
    clock: Clock
    add_adapter: AddAdapter
    board: QualityBoard

    @property
    def reports_dir(self) -> Path:
        return self.settings.state_dir / "reports"
