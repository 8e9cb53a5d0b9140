"""The candidate as clients will meet it: asked through the engines, and held against what PyTorch said.

A job touches no engine's adapters. It tells the store which adapter it wants to ask, the controller has every engine
load it under its digest's name, and the job waits until the store says that it is there (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from retrain_jobs.score import bootstrap
from service.core.errors import EngineFailed
from service.core.names import BASE
from service.core.records import EngineView
from service.core.routing import holders
from service.drivers.scorers import score
from service.ports import Registry
from service.settings import AliasSettings, RetrainSettings, Settings

POLL_S = 0.2
CONCURRENCY = 4
"""Few, since clients are being served by the same engines."""

REQUEST_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """One row to put to the engines."""

    messages: Sequence[Mapping[str, str]]
    target: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The candidate's reply to a question in PyTorch, and its score."""

    reply: str
    score: float


@dataclass(frozen=True, slots=True)
class Heard:
    """An engine's reply; `ttft_s` is the time to its first token, None where there was none."""

    text: str
    ttft_s: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """To each question what candidate and champion said on one of the `engines`, None where the request failed; or
    `reason`, why no engine was asked."""

    engines: int
    replies: Sequence[tuple[Heard | None, Heard | None]] = ()
    reason: str | None = None


async def ask_served(
    registry: Registry, settings: Settings, adapter: str, champion: str, questions: Sequence[Question], *,
    waiting: Callable[[], None], transport: httpx.AsyncBaseTransport | None = None,
) -> Asked:  # fmt: skip
    """Put the questions to adapter and champion on the engines.

    Args:
        waiting: called while the adapter is not loaded yet; what it raises ends the evaluation.
    """
    engines = await _holding(registry, adapter, settings.retrain.served_wait_s, waiting)
    if isinstance(engines, str):
        return Asked(0, reason=engines)
    headers = {"authorization": f"Bearer {settings.engine_key}"} if settings.engine_key else {}
    async with httpx.AsyncClient(
        headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False, transport=transport
    ) as http:
        gate = asyncio.Semaphore(CONCURRENCY)

        async def both(number: int, question: Question) -> tuple[Heard | None, Heard | None]:
            """Candidate and champion in turn on one engine; who goes first alternates."""
            engine = engines[number % len(engines)]
            names = [adapter, engine.base_model if champion == BASE else champion]
            async with gate:
                heard = {name: await _ask(http, engine.url, name, question) for name in names[:: 1 - 2 * (number % 2)]}
            return heard[names[0]], heard[names[1]]

        replies = await asyncio.gather(*(both(number, question) for number, question in enumerate(questions)))
    return Asked(len(engines), replies)


def compared(
    asked: Asked, questions: Sequence[Question], expected: Sequence[Expected], alias: AliasSettings,
    knobs: RetrainSettings,
) -> dict[str, Any]:  # fmt: skip
    """What the engines said beside what PyTorch said; the shape is that of `evaluation["served"]`."""
    if asked.reason is not None:
        return {"n": 0, "reason": asked.reason}
    replies = [reply for reply, _ in asked.replies]
    told = agreement(questions, expected, replies, alias, knobs.served_tolerance)
    return told | {"engines": asked.engines, "ttft": first_tokens(asked.replies, seed=knobs.seed)}


def agreement(
    questions: Sequence[Question], expected: Sequence[Expected], replies: Sequence[Heard | None],
    alias: AliasSettings, tolerance: float,
) -> dict[str, Any]:  # fmt: skip
    """Whether the engine's replies score as PyTorch's did: row by row, so that gains cannot hide losses.

    None stands for a request that failed; more of them than the tolerance is no agreement either.
    """
    pairs = [
        (wanted, reply.text, score(alias.scorer, reply.text, question.target, None, alias.pattern) or 0.0)
        for question, wanted, reply in zip(questions, expected, replies, strict=True)
        if reply is not None
    ]
    failed = len(questions) - len(pairs)
    if not pairs:
        return {"n": 0, "failed": failed, "reason": f"The engines answered none of {len(questions)} requests."}
    difference = math.fsum(abs(value - wanted.score) for wanted, _, value in pairs) / len(pairs)
    return {
        "n": len(pairs),
        "failed": failed,
        "served": math.fsum(value for _, _, value in pairs) / len(pairs),
        "pytorch": math.fsum(wanted.score for wanted, _, _ in pairs) / len(pairs),
        "difference": difference,
        "same_replies": sum(text.split() == wanted.reply.split() for wanted, text, _ in pairs) / len(pairs),
        "tolerance": tolerance,
        "agrees": difference <= tolerance and failed <= tolerance * len(questions),
    }


def first_tokens(replies: Sequence[tuple[Heard | None, Heard | None]], *, seed: int) -> dict[str, Any]:
    """Median time to the first token of candidate and champion on the same rows and engines, and by which share the
    candidate's is longer with the 95% interval of the mean log-ratio."""
    times = [
        (a.ttft_s, b.ttft_s) for a, b in replies if a is not None and b is not None and a.ttft_s and b.ttft_s
    ]  # fmt: skip
    if not times:
        return {"n": 0}
    ratios = [round(math.log(candidate / champion), 4) for candidate, champion in times]
    low, high = bootstrap(ratios, seed=seed)
    return {
        "n": len(times),
        "candidate_s": round(statistics.median(a for a, _ in times), 4),
        "champion_s": round(statistics.median(b for _, b in times), 4),
        "longer": math.expm1(math.fsum(ratios) / len(ratios)),
        "ci": [math.expm1(low), math.expm1(high)],
    }


async def _holding(
    registry: Registry, adapter: str, wait_s: float, waiting: Callable[[], None]
) -> list[EngineView] | str:
    """The ready engines once all of them hold the adapter; or why there are none."""
    deadline = time.monotonic() + wait_s
    while True:
        table = await registry.routing()
        ready, found = holders(table, BASE), holders(table, adapter)
        if ready and len(found) == len(ready):
            return list(found)
        if not table.engines:
            return "No controller has told of an engine, so nobody loads the adapter."
        if time.monotonic() > deadline:
            loaded = f"Of {len(ready)} ready engines {len(found)} had loaded the adapter"
            return f"{loaded} after {wait_s:.0f} s (retrain.served_wait_s)."
        waiting()
        await asyncio.sleep(POLL_S)


async def _ask(http: httpx.AsyncClient, url: str, model: str, question: Question) -> Heard | None:
    """One streamed, greedy reply; a second attempt where the first failed, then None."""
    for _ in range(2):
        try:
            return await _stream(http, url, model, question)
        except (httpx.HTTPError, EngineFailed):
            continue
    return None


async def _stream(http: httpx.AsyncClient, url: str, model: str, question: Question) -> Heard:
    body = {
        "model": model, "messages": list(question.messages), "temperature": 0, "max_tokens": question.max_tokens,
        "stream": True,
    }  # fmt: skip
    began, ttft_s, parts = time.monotonic(), None, list[str]()
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:"):
                continue
            if data == "[DONE]":
                return Heard("".join(parts).strip(), ttft_s)
            if content := _content(data):
                ttft_s = ttft_s if parts else time.monotonic() - began
                parts.append(content)
    raise EngineFailed(f"The engine at {url} ended a reply before its end.")


def _content(data: str) -> str:
    try:
        choices = json.loads(data)["choices"]
        return str(choices[0]["delta"].get("content") or "") if choices else ""
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise EngineFailed(f"The engine sent what is no part of a reply: {data[:100]}.") from error
