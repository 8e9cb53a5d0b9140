"""Asking champion and candidate: how far it is told all along, so that a job can be stopped at any question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from retrain_jobs import evaluate
from retrain_jobs.encode import Encoded
from retrain_jobs.generate import Reply
from retrain_jobs.items import Item
from retrain_jobs.known_replies import KnownReplies
from service.settings import AliasSettings


def items(**groups: int) -> list[Item]:
    return [
        Item(Encoded((n,), (1,)), "yes", group, f"{group}-{n}", [])
        for group, size in groups.items()
        for n in range(size)
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were asked at once; every reply is `yes`."""
    found: list[int] = []

    def answered(
        model: Any, base: Any, rows: Sequence[Encoded], *, max_new_tokens: int, on_share: Callable[[float], None]
    ) -> tuple[list[Reply], list[float]]:
        found.append(len(rows))
        on_share(0.5)
        on_share(1.0)
        return [Reply((1,), -0.1)] * len(rows), [0.2] * len(rows)

    monkeypatch.setattr(evaluate, "answered", answered)
    monkeypatch.setattr(evaluate._Examiner, "prefers", lambda self: [])
    return found


def examiner(folder: Path) -> evaluate._Examiner:
    base: Any = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids, **_: "yes"))
    return evaluate._Examiner(None, base, AliasSettings(), KnownReplies(folder))


def test_the_share_that_is_done_grows_from_the_first_question_to_the_last(tmp_path: Path, asked: list[int]) -> None:
    shares: list[float] = []
    side = examiner(tmp_path).ask("one", items(new=3, golden=4), items(slip=1), shares.append)
    assert asked == [4, 4]
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert [answer.score for answer in side.answers] == [1.0] * 7
    assert side.perturbed == [1.0]


def test_what_the_progress_raises_ends_the_golden_set_too_and_nothing_is_kept(tmp_path: Path, asked: list[int]) -> None:
    def stop(share: float) -> None:
        if share > 0.6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        examiner(tmp_path).ask("one", items(new=4, golden=4), [], stop)
    assert list(tmp_path.iterdir()) == []


def test_a_golden_set_alone_is_asked_once(tmp_path: Path, asked: list[int]) -> None:
    for _ in range(2):
        side = examiner(tmp_path).ask("one", items(golden=5), [], lambda share: None)
        assert len(side.answers) == 5
    assert asked == [5]
