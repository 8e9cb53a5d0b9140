"""Vectors that are remembered between checks: the same ones, asked for once, and never of two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from service.monitor import embedders
from service.monitor.embedders import Remembered, Vectors


class Counting:
    """Vectors that tell the model and the text's length; `turn` changes the model at the next call."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.model, self.turn = 0, False

    @property
    def id(self) -> str:
        return f"model-{self.model}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.model += self.turn
        self.turn = False
        self.asked.append(list(texts))
        return np.asarray([[self.model, len(text)] for text in texts], np.float32).reshape(-1, 2)


def test_only_new_texts_are_asked_for_each_once() -> None:
    inner = Counting()
    remembered = Remembered(inner)
    np.testing.assert_array_equal(remembered.embed(["a", "bb", "a"]), [[0, 1], [0, 2], [0, 1]])
    np.testing.assert_array_equal(remembered.embed(["ccc", "bb", "\ud800"]), [[0, 3], [0, 2], [0, 1]])
    np.testing.assert_array_equal(remembered.embed(["bb"]), [[0, 2]])
    assert inner.asked == [["a", "bb"], ["ccc", "\ud800"], []]
    assert remembered.embed([]).shape == (0, 2)


def test_vectors_of_another_model_are_forgotten_even_when_no_text_is_new() -> None:
    inner = Counting()
    remembered = Remembered(inner)
    remembered.embed(["a", "bb"])
    inner.turn = True
    np.testing.assert_array_equal(remembered.embed(["bb", "ccc"]), [[1, 2], [1, 3]])
    assert remembered.id == "model-1"
    inner.turn = True
    np.testing.assert_array_equal(remembered.embed(["bb", "ccc"]), [[2, 2], [2, 3]])
    np.testing.assert_array_equal(remembered.embed(["a"]), [[2, 1]])


def test_the_oldest_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "_REMEMBERED_BYTES", 3 * 2 * 4)
    inner = Counting()
    remembered = Remembered(inner)
    remembered.embed(["a", "bb", "ccc", "dddd"])
    np.testing.assert_array_equal(remembered.embed(["a", "bb"]), [[0, 1], [0, 2]])
    assert inner.asked[1] == ["a"]


def test_a_failing_embedder_leaves_what_was_remembered() -> None:
    class Failing(Counting):
        def embed(self, texts: Sequence[str]) -> Vectors:
            if "bad" in texts:
                raise TimeoutError
            return super().embed(texts)

    inner = Failing()
    remembered = Remembered(inner)
    remembered.embed(["a"])
    with pytest.raises(TimeoutError):
        remembered.embed(["a", "bad"])
    remembered.embed(["a"])
    assert inner.asked == [["a"], []]
