"""A test double for vLLM: same fields, same order, same events, over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from tests.service.gateway.apis import APIS

BASE_MODEL = "base-model"
ADAPTER = "support@111111111111"
CANDIDATE = "support@222222222222"
LOGPROB = math.log(0.5)


class StubEngine:
    """Answers like vLLM 0.32 over HTTP: same fields, same order, same SSE. Its knobs make it fail on purpose."""

    def __init__(self) -> None:
        self.url = ""
        self.healthy = True
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.words = ["Hello", " wor", "ld"]
        self.models = [BASE_MODEL]
        self.running = 0
        self.aborted = 0
        self.gate: asyncio.Event | None = None
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.refuses_model = ""
        self.dies_after: int | None = None
        self.ends_after: int | None = None
        self.knows_priority = True
        self.pause_s = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await self._json(send, 200 if self.healthy else 503, {})
            return
        if scope["path"] == "/v1/models":
            await self._json(send, 200, {"object": "list", "data": [{"id": name} for name in self.models]})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = json.loads(body)
        self.requests.append(asked)
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        refusal = self.refusal
        if asked.get("priority") and not self.knows_priority:
            refusal = (400, {"error": {"message": "Got priority 100 but priority scheduling is off", "code": 400}})
        if asked["model"] == self.refuses_model:
            refusal = (500, {"error": {"message": "boom", "code": 500}})
        if refusal:
            await self._json(send, *refusal)
            return
        answering = asyncio.create_task(self._answer(scope["path"], asked, send, self.gate))
        self.running += 1
        leaving = asyncio.create_task(receive())
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.aborted += 1
            else:
                answering.result()
        finally:
            self.running -= 1
            for task in (answering, leaving):
                task.cancel()

    async def _answer(self, path: str, asked: dict[str, Any], send: Any, gate: asyncio.Event | None) -> None:
        if gate is not None:
            await gate.wait()
        if api := APIS.get(path):
            whole, events = api(asked, self.words)
        else:
            chat = path.endswith("chat/completions")
            whole, events = self._whole(chat, asked), self._events(chat, asked)
        if not asked.get("stream"):
            await self._json(send, 200, whole)
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, event in enumerate(events):
            if self.dies_after is not None and number >= self.dies_after:
                raise ConnectionError("the stub dies on purpose")
            if number == self.ends_after:
                break
            name, content = event if isinstance(event, tuple) else ("", event)
            data = content if isinstance(content, str) else _dumps(content)
            told = f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"
            await send({"type": "http.response.body", "body": told.encode(), "more_body": True})
            await asyncio.sleep(self.pause_s)
        await send({"type": "http.response.body", "body": b""})

    def _whole(self, chat: bool, asked: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for index in range(asked.get("n") or 1):
            text = "".join(self.words)
            said = {"message": {"role": "assistant", "content": text, "refusal": None}} if chat else {"text": text}
            logprobs = self._logprobs(chat, asked, self.words)
            choices.append({"index": index, **said, "logprobs": logprobs, "finish_reason": "stop", "stop_reason": None})
        return {
            "id": "chatcmpl-1" if chat else "cmpl-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 1,
            "model": asked["model"],
            "choices": choices,
            "usage": {"prompt_tokens": 7, "total_tokens": 7 + len(self.words), "completion_tokens": len(self.words)},
        }

    def _events(self, chat: bool, asked: dict[str, Any]) -> list[Any]:
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": asked["model"],
        }
        events: list[Any] = []
        if chat:
            first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            events.append({**head, "choices": [first]})
        for number, word in enumerate(self.words):
            said = {"delta": {"content": word}} if chat else {"text": word}
            last = number == len(self.words) - 1
            choice = {
                "index": 0,
                **said,
                "logprobs": self._logprobs(chat, asked, [word]),
                "finish_reason": "stop" if last else None,
            }
            events.append({**head, "choices": [choice]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": len(self.words)}
            events.append({**head, "choices": [], "usage": usage})
        return [*events, "[DONE]"]

    def _logprobs(self, chat: bool, asked: dict[str, Any], words: list[str]) -> Any:
        if not chat:
            if asked.get("logprobs") is None:
                return None
            return {
                "text_offset": [0] * len(words),
                "token_logprobs": [LOGPROB] * len(words),
                "tokens": words,
                "top_logprobs": [{w: LOGPROB} for w in words],
            }
        if not asked.get("logprobs"):
            return None
        return {
            "content": [{"token": w, "logprob": LOGPROB, "bytes": list(w.encode()), "top_logprobs": []} for w in words]
        }

    async def _json(self, send: Any, status: int, content: Any) -> None:
        body = _dumps(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _dumps(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
