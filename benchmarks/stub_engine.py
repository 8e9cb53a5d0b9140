"""An honest minimal OpenAI-shaped engine: reads the whole request, parses it, answers what vLLM would, does no work.

    python -m benchmarks.stub_engine --port 8001 [--tokens 16] [--gap-ms 0]

One asyncio protocol without a framework, so that in a comparison the thing compared is the bottleneck and not this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, cast

import uvloop

WORDS = ("The", " order", " left", " our", " house", " today", " and", " will", " be", " there", " on", " Friday", ".")


class StubProtocol(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and content-length bodies; POST anything under /v1."""

    def __init__(self, tokens: int, gap_s: float) -> None:
        self._tokens = tokens
        self._gap_s = gap_s
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._stream: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._answer(json.loads(body) if body else {}, chat=b"chat" in head.split(b"\r\n", 1)[0])

    def _answer(self, asked: dict[str, Any], *, chat: bool) -> None:
        assert self._transport is not None
        if asked.get("stream"):
            self._stream = asyncio.ensure_future(self._answer_stream(asked, chat=chat))
            return
        body = _dumps(whole(asked, self._tokens, chat=chat))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _answer_stream(self, asked: dict[str, Any], *, chat: bool) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for event in events(asked, self._tokens, chat=chat):
            data = b"data: " + event + b"\n\n"
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            await asyncio.sleep(self._gap_s)
        self._transport.write(b"0\r\n\r\n")


def whole(asked: dict[str, Any], tokens: int, *, chat: bool) -> dict[str, Any]:
    """A reply that is not streamed."""
    words = [WORDS[i % len(WORDS)] for i in range(tokens)]
    text = "".join(words)
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": logprobs(asked, words, chat=chat), "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "total_tokens": 20 + tokens, "completion_tokens": tokens}
    kind = "chat.completion" if chat else "text_completion"
    return {
        "id": "stub",
        "object": kind,
        "created": 1,
        "model": asked.get("model"),
        "choices": [choice],
        "usage": usage,
    }


def events(asked: dict[str, Any], tokens: int, *, chat: bool) -> list[bytes]:
    """The payloads of a streamed reply, one token each."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    head = {"id": "stub", "object": kind, "created": 1, "model": asked.get("model")}
    out = []
    for number in range(tokens):
        word = WORDS[number % len(WORDS)]
        said: dict[str, Any] = {"delta": {"content": word}} if chat else {"text": word}
        finish = "stop" if number == tokens - 1 else None
        choice = {"index": 0, **said, "logprobs": logprobs(asked, [word], chat=chat), "finish_reason": finish}
        out.append(_dumps({**head, "choices": [choice]}))
    if (asked.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 20, "total_tokens": 20 + tokens, "completion_tokens": tokens}
        out.append(_dumps({**head, "choices": [], "usage": usage}))
    return [*out, b"[DONE]"]


def logprobs(asked: dict[str, Any], words: list[str], *, chat: bool) -> dict[str, Any] | None:
    """As vLLM writes them, when they were asked for."""
    if asked.get("logprobs") in (None, False):
        return None
    if chat:
        entry = [{"token": w, "logprob": -0.25, "bytes": list(w.encode()), "top_logprobs": []} for w in words]
        return {"content": entry}
    tops = [{w: -0.25} for w in words]
    return {
        "text_offset": [0] * len(words),
        "token_logprobs": [-0.25] * len(words),
        "tokens": words,
        "top_logprobs": tops,
    }


def _dumps(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


async def serve(port: int, tokens: int, gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StubProtocol(tokens, gap_s), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of every reply")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between the tokens of a stream")
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.tokens, args.gap_ms / 1000))


if __name__ == "__main__":
    main()
