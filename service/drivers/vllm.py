"""One vLLM server by URL: health, resident adapters, load, unload, warm."""

from __future__ import annotations

from typing import Any

import httpx

from service.core.errors import EngineFailed, Unavailable

PROBE_TIMEOUT_S = 2.0
LOAD_TIMEOUT_S = 60.0


class VllmEngine:
    """The `Engine` port over vLLM's HTTP API; start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."""

    def __init__(self, url: str, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=PROBE_TIMEOUT_S, transport=transport, trust_env=False
        )

    async def ready(self) -> bool:
        try:
            return (await self._http.get("/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async def models(self) -> tuple[str, frozenset[str]]:
        """The base model's served name and the names of the adapters that the engine lists."""
        cards = (await self._ask("GET", "/v1/models", timeout_s=PROBE_TIMEOUT_S))["data"]
        base = next(card["id"] for card in cards if card.get("parent") is None)
        return base, frozenset(card["id"] for card in cards if card.get("parent") is not None)

    async def load(self, name: str, path: str) -> None:
        body = {"lora_name": name, "lora_path": path}
        await self._ask("POST", "/v1/load_lora_adapter", body, timeout_s=LOAD_TIMEOUT_S, unless="already been loaded")

    async def unload(self, name: str) -> None:
        body = {"lora_name": name}
        await self._ask("POST", "/v1/unload_lora_adapter", body, timeout_s=LOAD_TIMEOUT_S, unless="cannot be found")

    async def warm(self, model: str) -> None:
        body = {"model": model, "prompt": "warm", "max_tokens": 1, "temperature": 0}
        await self._ask("POST", "/v1/completions", body, timeout_s=LOAD_TIMEOUT_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float, unless: str | None = None
    ) -> Any:
        """One call; `unless` is what vLLM says when the wish had already come true."""
        try:
            reply = await self._http.request(method, path, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise Unavailable(f"The engine at {self.url} does not answer ({type(error).__name__}).") from error
        if reply.status_code < 400:
            return reply.json() if "json" in reply.headers.get("content-type", "") else None
        if unless is not None and unless in reply.text:
            return None
        hint = ""
        if reply.status_code == 404 and "lora_adapter" in path:
            hint = " Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
        raise EngineFailed(f"The engine at {self.url} refused {path} ({reply.status_code}): {reply.text[:300]}{hint}")
