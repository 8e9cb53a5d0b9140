"""Embeddings by URL: batches, keys, servers that fail or lie, and a model that is changed under the same name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
import pytest

from service.core.errors import Unavailable
from service.core.window import Sizes, choose_windows
from service.monitor import url_embedder
from service.monitor.check import Checker, Memory
from service.monitor.embedders import Vectors
from service.monitor.url_embedder import UrlEmbedder
from service.settings import AliasSettings, DriftSettings
from tests.service.monitor.test_check import NoReports
from tests.service.monitor.traffic import ALIAS, later, traffic

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_embedder, "_PAUSE_S", 0.0)


class Server:
    """Bags of hashed words; `seed` is its model."""

    def __init__(self) -> None:
        self.seed, self.size, self.requests = 0, 16, 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.failing: list[httpx.Response] = []
        self.away = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        self.headers.append(request.headers)
        body = json.loads(request.content)
        self.bodies.append(body)
        if self.away:
            return httpx.Response(500)
        if self.failing:
            return self.failing.pop(0)
        data = [{"index": i, "embedding": self.vector(text)} for i, text in enumerate(body["input"])]
        return httpx.Response(200, json={"data": data[::-1], "model": body["model"]})

    def vector(self, text: str) -> list[float]:
        found = np.zeros(self.size)
        for word in text.split():
            digest = int.from_bytes(sha256(f"{self.seed}{word}".encode()).digest()[:4], "big")
            found += np.random.default_rng(digest).normal(size=self.size)
        return [float(value) for value in found]


def embedder_on(handler: Handler, url: str = "http://e/v1") -> UrlEmbedder:
    return UrlEmbedder(url, "small", transport=httpx.MockTransport(handler))


def test_it_asks_in_batches_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_EMBEDDER_KEY", "sesame\n")
    server = Server()
    embedder = embedder_on(server)
    texts = [f"text {i}" for i in range(150)] + ["", "x" * 20_000]
    found = embedder.embed(texts)
    assert (found.shape, found.dtype) == ((152, 16), np.float32)
    np.testing.assert_allclose(found[7], server.vector("text 7"), rtol=1e-6)
    assert [len(body["input"]) for body in server.bodies] == [64, 64, 25]
    assert server.bodies[0]["model"] == "small"
    assert server.headers[0]["authorization"] == "Bearer sesame"
    assert server.bodies[2]["input"][-2] == " "
    assert len(server.bodies[2]["input"][-1]) == 8000
    assert embedder.embed([]).shape == (0, 16)


@pytest.mark.parametrize("url", ["http://e/v1", "http://e/v1/", "http://e/v1/embeddings"])
def test_the_url_may_name_the_api_or_the_route(url: str) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.0]}]})

    embedder_on(handler, url).embed([])
    assert asked == ["http://e/v1/embeddings"]


def test_what_passes_is_tried_again_and_what_stays_is_told() -> None:
    server = Server()
    server.failing = [httpx.Response(503), httpx.Response(429)]
    assert embedder_on(server).embed(["a"]).shape == (1, 16)
    server.failing = [httpx.Response(503, text="busy")] * 3
    with pytest.raises(Unavailable, match=r"answered 503 \(busy\); check drift\.embedder"):
        embedder_on(server).embed(["a"])
    server.requests, server.failing = 0, [httpx.Response(401, text="no key")]
    with pytest.raises(Unavailable, match="set TRIMTAB_EMBEDDER_KEY"):
        embedder_on(server).embed(["a"])
    assert server.requests == 1

    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("it took too long")

    with pytest.raises(Unavailable, match=r"does not answer \(it took too long\)"):
        embedder_on(gone).embed(["a"])


@pytest.mark.parametrize(
    "told",
    [
        {"data": []},
        {"oops": 1},
        {"data": [{"index": 0, "embedding": "base64"}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]},
        [1],
    ],
)
def test_what_is_no_embeddings_api(told: Any) -> None:
    with pytest.raises(Unavailable, match="must speak OpenAI's embeddings API"):
        embedder_on(lambda request: httpx.Response(200, json=told)).embed(["a"])
    with pytest.raises(Unavailable, match="must speak OpenAI's embeddings API"):
        embedder_on(lambda request: httpx.Response(200, text="<html>")).embed(["a"])


def test_another_model_under_the_same_name_is_another_embedder() -> None:
    server = Server()
    embedder = embedder_on(server)
    embedder.embed(["a"])
    first = embedder.id
    embedder.embed(["b"])
    assert embedder.id == first
    server.seed = 1
    embedder.embed(["a"])
    second = embedder.id
    assert second != first
    server.size = 8
    embedder.embed(["a"])
    assert embedder.id not in (first, second)


class Counting:
    """Notes whose vectors are asked for."""

    def __init__(self, embedder: UrlEmbedder) -> None:
        self._embedder = embedder
        self.asked: list[int] = []

    @property
    def id(self) -> str:
        return self._embedder.id

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(len(texts))
        return self._embedder.embed(texts)


def test_a_changed_embedder_gets_a_new_calibration_and_one_that_is_away_is_done_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = DriftSettings(reference_size=300, current_size=100)
    server = Server()
    embedder = Counting(embedder_on(server))
    checker, memory = Checker(settings, NoReports(), embedder), Memory()
    reference = traffic(1, 300)
    windows = choose_windows(reference, traffic(2, 100, start=later(reference)), Sizes(300, 100))

    def check() -> tuple[str, bool]:
        told = checker.check(ALIAS, windows, AliasSettings(), memory, fresh=100, now=5000.0)
        return told.verdict, any(score["detector"] == "embedding" for score in told.scores)

    assert check() == ("STABLE", True)
    known = embedder.asked.count(300)
    assert check() == ("STABLE", True)
    assert embedder.asked.count(300) == known, "the reference is embedded once"
    server.seed = 1
    assert check() == ("STABLE", True), "vectors of two models were compared"
    assert embedder.asked.count(300) > known
    server.size = 8
    assert check() == ("STABLE", True)
    server.away = True
    with caplog.at_level(logging.WARNING):
        assert check() == ("STABLE", False)
    server.away = False
    assert "This check goes without the embedding detector: The embedder at http://e/v1" in caplog.text
    assert check() == ("STABLE", True)
