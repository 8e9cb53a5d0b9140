"""An honest minimal OpenAI-shaped engine: reads the whole request, parses it, answers what vLLM would, does no work.

    python -m benchmarks.stub_engine --port 8001 [--tokens 16] [--gap-ms 0]

One asyncio protocol without a framework, so that in a comparison the thing compared is the bottleneck and not this.
`POST /pace {"tokens": 64, "gap_ms": 20}` changes how the requests from then on are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from functools import lru_cache
from typing import Any, cast

import uvloop

WORDS = ("The", " order", " left", " our", " house", " today", " and", " will", " be", " there", " on", " Friday", ".")

MODELS = {"object": "list", "data": [{"id": "base", "object": "model"}]}
"""What every GET gets: the list of models, which as a health check's reply is as good as any."""


class Pace:
    """How replies are given: so many tokens; in streams with `gap_s` between the times at which two are due."""

    def __init__(self, tokens: int, gap_s: float) -> None:
        self.tokens = tokens
        self.gap_s = gap_s


class StubProtocol(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and content-length bodies."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
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
            self._answer(head.split(b"\r\n", 1)[0], json.loads(body) if body else {})

    def _answer(self, request_line: bytes, asked: dict[str, Any]) -> None:
        if request_line.startswith(b"get "):
            self._answer_json(MODELS)
        elif b" /pace " in request_line:
            self._pace.tokens, self._pace.gap_s = asked["tokens"], asked["gap_ms"] / 1000
            self._answer_json({})
        elif asked.get("stream"):
            self._stream = asyncio.ensure_future(self._answer_stream(asked, chat=b"chat" in request_line))
        else:
            self._answer_json(whole(asked, self._pace.tokens, chat=b"chat" in request_line))

    def _answer_json(self, content: dict[str, Any]) -> None:
        assert self._transport is not None
        body = _dumps(content)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _answer_stream(self, asked: dict[str, Any], *, chat: bool) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        tokens, gap_s = self._pace.tokens, self._pace.gap_s
        model = str(asked.get("model"))
        with_logprobs = asked.get("logprobs") not in (None, False)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        started = loop.time()
        for number in range(tokens):
            word, last = WORDS[number % len(WORDS)], number == tokens - 1
            self._transport.write(_framed(event(model, word, last, with_logprobs, chat)))
            await asyncio.sleep(max(0.0, started + (number + 1) * gap_s - loop.time()))
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._transport.write(_framed(_dumps({**_head(model, chat), "choices": [], "usage": _usage(tokens)})))
        self._transport.write(_framed(b"[DONE]") + b"0\r\n\r\n")


def whole(asked: dict[str, Any], tokens: int, *, chat: bool) -> dict[str, Any]:
    """A reply that is not streamed."""
    words = [WORDS[i % len(WORDS)] for i in range(tokens)]
    text = "".join(words)
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    wanted = asked.get("logprobs") not in (None, False)
    told = logprobs(words, chat=chat) if wanted else None
    choice = {"index": 0, **said, "logprobs": told, "finish_reason": "stop"}
    kind = "chat.completion" if chat else "text_completion"
    head = {"id": "stub", "object": kind, "created": 1, "model": asked.get("model")}
    return {**head, "choices": [choice], "usage": _usage(tokens)}


@lru_cache(maxsize=256)
def event(model: str, word: str, last: bool, with_logprobs: bool, chat: bool) -> bytes:
    """One token of a streamed reply as JSON; kept, since in a comparison the stub's own work is not the subject."""
    said: dict[str, Any] = {"delta": {"content": word}} if chat else {"text": word}
    told = logprobs([word], chat=chat) if with_logprobs else None
    choice = {"index": 0, **said, "logprobs": told, "finish_reason": "stop" if last else None}
    return _dumps({**_head(model, chat), "choices": [choice]})


def logprobs(words: list[str], *, chat: bool) -> dict[str, Any]:
    """As vLLM writes them."""
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


def _head(model: str, chat: bool) -> dict[str, Any]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {"id": "stub", "object": kind, "created": 1, "model": model}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 20, "total_tokens": 20 + tokens, "completion_tokens": tokens}


def _framed(payload: bytes) -> bytes:
    """A server-sent event in a chunk of HTTP."""
    return b"%x\r\ndata: %b\n\n\r\n" % (len(payload) + 8, payload)


def _dumps(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


async def serve(port: int, tokens: int, gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    pace = Pace(tokens, gap_s)
    server = await loop.create_server(lambda: StubProtocol(pace), "127.0.0.1", port, backlog=2048)
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
