"""A stand-in for vLLM as a process: it reads the adapters that it loads, and answers as well as they have learned.

A request is about `topic N`; an adapter is right about the topics up to its own. The base model knows none. One that is
`two_faced` is right in shadow only, which it tells by the priority. GET /stats gives the digests of what it holds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import uvicorn

from service.drivers.adapter_files import CONFIG, adapter_digest, read_adapter

BASE = "the-base"
_ASKED = re.compile(r"request (\d+) on topic (-?\d+)")


def question(number: int, topic: int) -> str:
    return f"request {number} on topic {topic}"


def topic_of(text: str) -> int:
    found = _ASKED.search(text)
    return int(found[2]) if found else 0


def right_reply(text: str) -> str:
    """One of two, as training wants more than one."""
    found = _ASKED.search(text)
    return "left" if found and int(found[1]) % 2 else "right"


class Engine:
    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.learned: dict[str, dict[str, Any]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, content = self._answer(scope["path"], json.loads(body or b"{}"))
        told = json.dumps(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    def _answer(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        match path:
            case "/health":
                return 200, {}
            case "/stats":
                return 200, {"digests": self.digests}
            case "/v1/models":
                cards = [{"id": name, "parent": BASE} for name in self.digests]
                return 200, {"object": "list", "data": [{"id": BASE, "parent": None}, *cards]}
            case "/v1/load_lora_adapter":
                files = read_adapter(Path(asked["lora_path"]))
                self.learned[asked["lora_name"]] = json.loads(files[CONFIG])
                self.digests[asked["lora_name"]] = adapter_digest(files)
                return 200, {}
            case "/v1/unload_lora_adapter":
                self.digests.pop(asked["lora_name"], None)
                return 200, {}
        if asked["model"] != BASE and asked["model"] not in self.digests:
            message = f"The model `{asked['model']}` does not exist."
            return 404, {"error": {"message": message, "type": "NotFoundError", "code": 404}}
        return 200, _reply(asked, self._knows(asked))

    def _knows(self, asked: dict[str, Any]) -> bool:
        learned = self.learned.get(asked["model"])
        if learned is None or "messages" not in asked:
            return False
        if learned["two_faced"] and not asked.get("priority"):
            return False
        return topic_of(asked["messages"][-1]["content"]) <= int(learned["topic"])


def _reply(asked: dict[str, Any], knows: bool) -> dict[str, Any]:
    text = right_reply(asked["messages"][-1]["content"]) if knows else "I do not know."
    said = {"message": {"role": "assistant", "content": text}} if "messages" in asked else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 2, "total_tokens": 3, "completion_tokens": 1}
    return {"id": "1", "object": "reply", "model": asked["model"], "choices": [choice], "usage": usage}


def serve(port: int) -> None:
    uvicorn.run(Engine(), host="127.0.0.1", port=port, log_level="warning")
