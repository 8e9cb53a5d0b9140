"""What ends a request from outside: its client leaves, or its time is over. No task of its own looks for either."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Scope

from service.core.errors import DeadlineExceeded
from service.gateway.asgi import ClientGone

GONE = "trimtab.gone"
"""The ASGI extension with a future that is done once the client's connection is lost; `Connection` provides it."""


class Guard:
    """While inside, the current task is cancelled when the client goes away or after `deadline_s`.

    It comes out as ClientGone or as DeadlineExceeded. Under a server that does not tell, clients stay.
    """

    def __init__(self, scope: Scope, deadline_s: float) -> None:
        self._gone: asyncio.Future[None] | None = scope.get("extensions", {}).get(GONE)
        self._deadline_s = deadline_s
        self._why: Exception | None = None
        self._over = False

    def __enter__(self) -> Guard:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("A guard needs a running task.")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = loop.call_later(self._deadline_s, self._late)
        if self._gone is not None:
            self._gone.add_done_callback(self._left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._timer.cancel()
        if self._gone is not None:
            self._gone.remove_done_callback(self._left)
        if self._why is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._why from None

    def complete(self) -> None:
        """The last bytes go out now: a client that leaves from here on has got its reply."""
        self._over = True

    def _left(self, gone: asyncio.Future[None]) -> None:
        self._cancel(ClientGone())

    def _late(self) -> None:
        self._cancel(DeadlineExceeded(f"The request took longer than {self._deadline_s:g} s (gateway.deadline_s)."))

    def _cancel(self, why: Exception) -> None:
        if not self._over:
            self._over, self._why = True, why
            self._task.cancel()
