"""How uvicorn runs a gateway: unready from the signal on, exit code 0 once all is told, no dawdling connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from service.gateway.connections import Connection, Patience
from service.gateway.gateway import Gateway
from service.settings import Settings

_LOOK_EVERY_S = 1.0
_LOOK_AT = 20

_KEEP_ALIVE_S = 75.0
"""Above the 60 s that load balancers keep an idle connection, so that they never write on one that we are closing."""

_CROWDED_S = 2.0
"""The patience with unfinished requests while connections use a quarter of the process's file descriptors."""

_MAX_FILES = 2**20


class Server(uvicorn.Server):
    """Serves `app` where the settings say, until SIGINT or SIGTERM."""

    def __init__(self, app: ASGIApp, gateway: Gateway, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.server.host,
                port=settings.server.port,
                loop="none",
                http=Connection,
                ws="none",
                proxy_headers=False,
                log_level=settings.log_level,
                access_log=False,
                timeout_keep_alive=int(_KEEP_ALIVE_S),
                timeout_graceful_shutdown=int(settings.server.drain_s),
            )
        )
        self._gateway = gateway
        given = settings.gateway
        self._patience = Patience(given.head_timeout_s, given.body_timeout_s, given.stall_timeout_s)
        self._hurried = replace(
            self._patience,
            head_s=min(given.head_timeout_s, _CROWDED_S),
            body_s=min(given.body_timeout_s, _CROWDED_S),
        )

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        crowd = _raise_file_limit() // 4
        gc.collect()
        gc.freeze()  # what was loaded by now stays: no collection shall walk through it again
        looking = asyncio.create_task(self._look(crowd))
        try:
            await super().serve(sockets)
        finally:
            looking.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.drain()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own would raise the signal again at the end: the store stayed open and the exit code were not 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def _look(self, crowd: int) -> None:
        """Once a second at each connection, at a few at a time: a thousand cut off at once would delay all others, and
        would come again at once."""
        while True:
            connections = tuple(self.server_state.connections)
            patience = self._patience if len(connections) < crowd else self._hurried
            parts = max(1, math.ceil(len(connections) / _LOOK_AT))
            for part in range(parts):
                _end_dawdlers(connections[part * _LOOK_AT : (part + 1) * _LOOK_AT], patience, _most(parts))
                await asyncio.sleep(_LOOK_EVERY_S / parts)


def _most(parts: int) -> int:
    """How many connections may be ended in each of so many parts of a second: about 20 in all, or a tenth of all."""
    return max(_LOOK_AT // 10, _LOOK_AT // parts)


def _end_dawdlers(connections: Iterable[object], patience: Patience, most: int) -> None:
    now = asyncio.get_running_loop().time()
    dawdling = [one for one in connections if isinstance(one, Connection) and one.dawdles(now, patience)]
    for connection in dawdling[:most]:
        connection.end(patience)


def _raise_file_limit() -> int:
    """As many file descriptors as this process may have: each client's and engine's connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_FILES if limit == resource.RLIM_INFINITY else min(limit, _MAX_FILES)
