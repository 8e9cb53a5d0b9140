"""The candidate through an engine's HTTP: what agrees, what does not, and what comes of an engine that is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from retrain_jobs.lease import JobStopped
from retrain_jobs.served import Expected, Question, ask_served, compared
from service.core.records import EngineView
from service.core.routing import RoutingTable
from service.settings import AliasSettings, RetrainSettings, Settings

NEW, OLD = "support@222222222222", "support@111111111111"
QUESTIONS = [Question([{"role": "user", "content": f"kind {n}"}], f"kind {n}", 9) for n in range(10)]
EXPECTED = [Expected(f"kind {n}", 1.0) for n in range(10)]
SETTINGS = Settings(retrain=RetrainSettings(served_wait_s=0.5), engine_key="k")


@dataclass
class Registry:
    """A store whose engines load what is wanted after so many looks."""

    engines: Sequence[str] = ("http://one", "http://two")
    looks: int = 2
    asked: int = 0

    async def routing(self) -> RoutingTable:
        self.asked += 1
        resident = frozenset({OLD, NEW} if self.asked > self.looks else {OLD})
        return RoutingTable(engines=tuple(EngineView(url, True, resident, 0.0, "the-base") for url in self.engines))


def streamed(*parts: str, end: bool = True) -> httpx.Response:
    chunks = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"delta": {"content": part}}]} for part in parts]
    chunks += [{"choices": [], "usage": {}}]  # type: ignore[dict-item]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if end else [])
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content="".join(lines))


def right(body: dict[str, Any]) -> httpx.Response:
    text = body["messages"][0]["content"]
    return streamed(text[:3], text[3:])


async def served(
    answer: Callable[[dict[str, Any]], httpx.Response], registry: Registry | None = None, champion: str = OLD,
    seen: list[httpx.Request] | None = None, settings: Settings = SETTINGS, expected: Sequence[Expected] = EXPECTED,
) -> dict[str, Any]:  # fmt: skip
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return answer(json.loads(request.content))

    asked = await ask_served(
        registry or Registry(), settings, NEW, champion, QUESTIONS, waiting=lambda: None,  # type: ignore[arg-type]
        transport=httpx.MockTransport(handle),
    )  # fmt: skip
    return compared(asked, QUESTIONS, expected, settings.alias("support"), settings.retrain)


async def test_an_engine_that_says_what_pytorch_said_agrees() -> None:
    seen: list[httpx.Request] = []
    registry = Registry()
    found = await served(right, registry, seen=seen)
    assert (found["n"], found["failed"], found["engines"]) == (10, 0, 2)
    assert (found["served"], found["pytorch"], found["difference"], found["same_replies"]) == (1.0, 1.0, 0.0, 1.0)
    assert found["agrees"] is True
    assert found["ttft"]["n"] == 10
    assert registry.asked == 3
    assert {request.url.host for request in seen} == {"one", "two"}
    assert all(request.headers["authorization"] == "Bearer k" for request in seen)
    models = [json.loads(request.content)["model"] for request in seen]
    assert models.count(NEW) == models.count(OLD) == 10


async def test_the_base_model_is_asked_by_the_engines_word_for_it() -> None:
    seen: list[httpx.Request] = []
    await served(right, champion="base", seen=seen)
    assert {json.loads(request.content)["model"] for request in seen} == {NEW, "the-base"}


async def test_other_replies_do_not_agree_however_good_they_are_on_average() -> None:
    """PyTorch was wrong on every other row, and the engine on all the others."""
    mixed = [Expected("x", float(n % 2)) for n in range(len(QUESTIONS))]

    def other(body: dict[str, Any]) -> httpx.Response:
        text = body["messages"][0]["content"]
        return streamed(text if int(text[-1]) % 2 == 0 else "no")

    found = await served(other, expected=mixed)
    assert (found["served"], found["pytorch"], found["difference"]) == (0.5, 0.5, 1.0)
    assert found["agrees"] is False


@pytest.mark.parametrize(
    "broken",
    [
        lambda: httpx.Response(404, json={"error": {"message": "no such model"}}),
        lambda: httpx.Response(200, content=b"data: {\n\n"),
        lambda: httpx.Response(200, content=b'data: {"error": "out of memory"}\n\n'),
        lambda: streamed("kind", end=False),
        lambda: httpx.Response(200, content=b""),
    ],
)
async def test_an_engine_that_answers_nothing_is_no_evidence(broken: Callable[[], httpx.Response]) -> None:
    found = await served(lambda body: broken())
    assert (found["n"], found["failed"]) == (0, 10)
    assert "none of 10" in found["reason"]


async def test_a_request_that_fails_once_is_asked_again_and_many_failures_do_not_agree() -> None:
    tries: dict[str, int] = {}

    def stumbles(body: dict[str, Any]) -> httpx.Response:
        text = body["messages"][0]["content"]
        tries[text + body["model"]] = tries.get(text + body["model"], 0) + 1
        if text == "kind 3" and tries[text + body["model"]] == 1:
            return httpx.Response(503)
        return httpx.Response(500) if text in {"kind 1", "kind 2"} else right(body)

    found = await served(stumbles)
    assert (found["n"], found["failed"], found["difference"]) == (8, 2, 0.0)
    assert found["agrees"] is False


async def test_engines_that_never_load_the_adapter_are_waited_for_so_long() -> None:
    found = await served(right, Registry(looks=10**9))
    assert found["n"] == 0
    assert "Of 2 ready engines 0 had loaded the adapter" in found["reason"]
    assert "served_wait_s" in found["reason"]


async def test_without_any_engine_nobody_waits() -> None:
    registry = Registry(engines=())
    assert "nobody loads" in (await served(right, registry))["reason"]
    assert registry.asked == 1


async def test_a_lost_lease_ends_the_wait() -> None:
    def lost() -> None:
        raise JobStopped("taken over")

    with pytest.raises(JobStopped):
        await ask_served(Registry(looks=9), SETTINGS, NEW, OLD, QUESTIONS, waiting=lost)  # type: ignore[arg-type]


async def test_the_alias_scorer_judges_what_the_engine_says() -> None:
    loose = Settings(aliases={"support": AliasSettings(scorer="classification")}, retrain=SETTINGS.retrain)
    found = await served(lambda body: streamed(body["messages"][0]["content"].upper()), settings=loose)
    assert (found["served"], found["agrees"]) == (1.0, True)
    assert found["same_replies"] == 0.0
