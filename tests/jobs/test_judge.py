"""A judge model over HTTP: both orders, ties, failures, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from retrain_jobs.judge import KEY_VARIABLE, Duel, Judge, Verdict, summarize
from retrain_jobs.lease import JobStopped
from service.settings import JudgeSettings

SETTINGS = JudgeSettings(url="http://judge.example/v1", model="wise", concurrency=2)


def judged(answer: Callable[[str], httpx.Response | str], *duels: Duel) -> list[Verdict]:
    """Verdicts of a judge that answers each question so."""

    def handle(request: httpx.Request) -> httpx.Response:
        said = answer(json.loads(request.content)["messages"][0]["content"])
        if isinstance(said, httpx.Response):
            return said
        return httpx.Response(200, json={"choices": [{"message": {"content": said}}]})

    judge = Judge(SETTINGS, httpx.MockTransport(handle))
    verdicts = judge.compare(duels)
    judge.close()
    return verdicts


def likes(word: str) -> Callable[[str], str]:
    def answer(question: str) -> str:
        _, a = question.split("Reply A:")
        a, b = a.split("Reply B:")
        return "A" if word in a else "b." if word in b else "TIE"

    return answer


def test_a_preference_counts_when_it_holds_in_both_orders() -> None:
    duels = [Duel("?", "old", "good"), Duel("?", "good", "new"), Duel("?", "old", "new"), Duel("?", "same", " same ")]
    assert judged(likes("good"), *duels) == [Verdict.WIN, Verdict.LOSS, Verdict.TIE, Verdict.TIE]


def test_a_judge_that_prefers_the_first_contradicts_itself() -> None:
    assert judged(lambda question: "A", Duel("?", "old", "new")) == [Verdict.CONTRADICTED]


@pytest.mark.parametrize(
    "said", ["I cannot say", "", httpx.Response(500), httpx.Response(200, json={"choices": []}), httpx.Response(200)]
)
def test_a_judge_that_fails_makes_a_tie_that_is_counted(said: httpx.Response | str) -> None:
    verdicts = judged(lambda question: said, Duel("?", "old", "new"))
    assert verdicts == [Verdict.FAILED]
    assert summarize(verdicts, seed=0)["failed"] == summarize(verdicts, seed=0)["ties"] == 1


def test_a_judge_that_does_not_answer_in_time_has_failed() -> None:
    def late(question: str) -> str:
        raise httpx.ReadTimeout("late")

    assert judged(late, Duel("?", "old", "new")) == [Verdict.FAILED]


def test_a_judge_that_is_away_is_given_up() -> None:
    asked: list[str] = []

    def away(question: str) -> str:
        asked.append(question)
        raise httpx.ConnectError("refused")

    assert judged(away, *[Duel(f"{n}?", "old", "new") for n in range(200)]) == [Verdict.FAILED] * 200
    assert len(asked) < 50


def test_what_ends_the_job_ends_the_judging() -> None:
    asked: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(200, json={"choices": [{"message": {"content": "TIE"}}]})

    def stop() -> None:
        raise JobStopped("taken over")

    with pytest.raises(JobStopped):
        Judge(SETTINGS, httpx.MockTransport(handle)).compare([Duel(f"{n}?", "old", "new") for n in range(500)], stop)
    assert len(asked) < 500


def test_equal_replies_are_not_asked_about() -> None:
    def never(question: str) -> str:
        raise AssertionError("asked")

    assert judged(never, Duel("?", "same", "same")) == [Verdict.TIE]


def test_the_key_is_sent_and_the_question_holds_both_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "TIE"}}]})

    judge = Judge(SETTINGS, httpx.MockTransport(handle))
    judge.compare([Duel("why {a}?", "old {b}", "new")])
    assert [request.headers["authorization"] for request in seen] == ["Bearer secret"] * 2
    body = json.loads(seen[0].content)
    assert body["model"] == "wise"
    assert all(text in body["messages"][0]["content"] for text in ("why {a}?", "old {b}", "new"))


def test_wins_are_summed_up_by_hand() -> None:
    found = summarize([Verdict.WIN] * 6 + [Verdict.LOSS, Verdict.TIE, Verdict.CONTRADICTED, Verdict.FAILED], seed=0)
    assert (found["n"], found["wins"], found["losses"], found["ties"]) == (10, 6, 1, 3)
    assert found["net_wins"] == pytest.approx(0.5)
    assert found["ci"][0] <= 0.5 <= found["ci"][1]
    assert found["p"] == pytest.approx(2 * 8 / 128)
    assert summarize([], seed=0) == {"n": 0}
