"""A stub engine as a process of its own, which counts what it runs: for tests of the gateway alone.

    python -m tests.service.gateway.counting_engine --port 8001 [--slots 64] [--first-ms 0] [--tokens 4] [--gap-ms 0]
        [--load-ms 0]

Like vLLM it runs `slots` requests at once and queues the rest, knows only the adapters that were loaded since it
started, and aborts a request whose connection closes. GET /stats tells its counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

from tests.service.gateway.apis import APIS, Event

BASE = "base"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


@dataclass
class State:
    slots: asyncio.Semaphore
    first_s: float
    gap_s: float
    tokens: int
    load_s: float
    id: str
    running: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    resident: set[str] = field(default_factory=set)

    def stats(self) -> dict[str, Any]:
        return {
            "running": self.running, "counts": self.counts, "served": self.served, "paths": self.paths,
            "resident": sorted(self.resident),
        }  # fmt: skip


class Connection(asyncio.Protocol):
    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._state.counts["aborted"] += 1
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        self._buffer.clear()
        self._answer(bytes(head).split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        state = self._state
        state.paths[path] += 1
        if path == "/health":
            self._json(200, {})
        elif path == "/stats":
            self._json(200, state.stats())
        elif path == "/v1/models":
            adapters = [{"id": name, "parent": BASE} for name in sorted(state.resident)]
            self._json(200, {"object": "list", "data": [{"id": BASE, "parent": None}, *adapters]})
        elif path == "/v1/load_lora_adapter":
            asyncio.get_running_loop().call_later(state.load_s, self._loaded, json.loads(body)["lora_name"])
        elif path == "/v1/unload_lora_adapter":
            state.resident.discard(json.loads(body)["lora_name"])
            self._json(200, {})
        elif path in {"/v1/chat/completions", "/v1/completions", *APIS}:
            asked = json.loads(body)
            if asked["model"] != BASE and asked["model"] not in state.resident:
                state.counts["missing"] += 1
                message = f"The model `{asked['model']}` does not exist."
                self._json(404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})
                return
            if path in APIS:
                self._reply(*APIS[path](asked, ["x"]), streamed=bool(asked.get("stream")))
                return
            self._task = asyncio.get_running_loop().create_task(self._generate(asked, chat="chat" in path))
        else:
            self._json(404, {"detail": "Not Found"})

    def _loaded(self, name: str) -> None:
        self._state.resident.add(name)
        self._json(200, {})

    def _reply(self, reply: dict[str, Any], events: list[Event], *, streamed: bool) -> None:
        if not streamed:
            self._json(200, reply)
            return
        self._transport.write(STREAM)
        for name, data in events:
            self._event(b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(data).encode()))
        self._transport.write(LAST)

    async def _generate(self, asked: dict[str, Any], *, chat: bool) -> None:
        state = self._state
        async with state.slots:
            state.running += 1
            try:
                await asyncio.sleep(state.first_s)
                tokens = asked.get("max_tokens") or state.tokens
                if asked.get("stream"):
                    await self._stream(asked["model"], tokens, chat=chat)
                else:
                    await asyncio.sleep(state.gap_s * tokens)
                    self._json(200, whole(asked["model"], tokens, chat=chat))
                state.served[asked["model"]] += 1
            finally:
                state.running -= 1

    async def _stream(self, model: str, tokens: int, *, chat: bool) -> None:
        self._transport.write(STREAM)
        for number in range(tokens):
            said: dict[str, Any] = {"delta": {"content": "x"}} if chat else {"text": "x"}
            choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop" if number == tokens - 1 else None}
            await self._writable.wait()
            self._chunk({"id": self._state.id, "object": "chunk", "model": model, "choices": [choice]})
            await asyncio.sleep(self._state.gap_s)
        self._chunk(None)
        self._transport.write(LAST)

    def _chunk(self, content: dict[str, Any] | None) -> None:
        self._event(b"data: %b\n\n" % (json.dumps(content).encode() if content else b"[DONE]"))

    def _event(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _json(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def whole(model: str, tokens: int, *, chat: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"message": {"role": "assistant", "content": "x" * tokens}} if chat else {"text": "x"}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 2, "total_tokens": 2 + tokens, "completion_tokens": tokens}
    return {"id": "1", "object": "reply", "model": model, "choices": [choice], "usage": usage}


async def serve(port: int, state: State) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=100_000, help="requests that run at once")
    parser.add_argument("--first-ms", type=float, default=0.0, help="from a slot to the first token")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between tokens")
    parser.add_argument("--tokens", type=int, default=4, help="of a reply without max_tokens")
    parser.add_argument("--load-ms", type=float, default=0.0, help="that loading an adapter takes")
    parser.add_argument("--width", type=int, default=1, help="characters of an event's id")
    args = parser.parse_args()
    state = State(
        asyncio.Semaphore(args.slots),
        args.first_ms / 1e3,
        args.gap_ms / 1e3,
        args.tokens,
        args.load_ms / 1e3,
        "x" * args.width,
    )
    uvloop.run(serve(args.port, state))


if __name__ == "__main__":
    main()
