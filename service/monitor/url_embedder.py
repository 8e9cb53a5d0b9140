"""Vectors from a server that speaks OpenAI's /embeddings: a hosted model, or vLLM with `--runner pooling`.

A text of our own goes with every call. When its vector turns, the server has another model under the same name: the
embedder's id changes, and with it the reference is calibrated anew, so that vectors of two models are never compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from service.core.errors import ConfigError, Unavailable

Vectors = NDArray[np.float32]

KEY_VARIABLE = "TRIMTAB_EMBEDDER_KEY"
_BATCH = 64
_MAX_CHARS = 8000
_TIMEOUT_S = 30.0
_TRIES = 3
_PAUSE_S = 0.5
_PROBE = "When will my order arrive?"
_SAME = 0.99
_WORTH_TRYING = frozenset({408, 409, 429, 500, 502, 503, 504})


class UrlEmbedder:
    """`url` is the API's base, such as https://api.example.com/v1; the key comes from TRIMTAB_EMBEDDER_KEY."""

    def __init__(self, url: str, model: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        """Raises ConfigError without the model's name, which the API asks for."""
        if not model:
            raise ConfigError(
                "drift.embedder is a URL, so drift.embedder_model must name the model there.",
                param="drift.embedder_model",
            )
        base = url.rstrip("/")
        self._url = base if base.endswith("/embeddings") else f"{base}/embeddings"
        self._model = model
        key = os.environ.get(KEY_VARIABLE, "").strip()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=_TIMEOUT_S, headers=headers, transport=transport)
        self._probe: Vectors | None = None
        self._generation = 0

    @property
    def id(self) -> str:
        """Of the vectors that the last call returned."""
        return f"url:{self._url}#{self._model}#{self._generation}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, shape [n, d], asked for in batches.

        Raises:
            Unavailable: the server does not answer, refuses, or answers something else.
        """
        asked = [_PROBE, *(text[:_MAX_CHARS] or " " for text in texts)]
        found = [self._ask(asked[start : start + _BATCH]) for start in range(0, len(asked), _BATCH)]
        if len({part.shape[1] for part in found}) > 1:
            raise self._wrong("vectors of several lengths in one reply")
        vectors = np.concatenate(found)
        self._look_at(vectors[0])
        return vectors[1:]

    def _look_at(self, probe: Vectors) -> None:
        known = self._probe
        if known is not None and not (known.shape == probe.shape and _likeness(known, probe) >= _SAME):
            self._generation += 1
        self._probe = probe

    def _ask(self, batch: Sequence[str]) -> Vectors:
        body = {"model": self._model, "input": list(batch), "encoding_format": "float"}
        reply = self._send(body)
        try:
            data = sorted(reply.json()["data"], key=lambda one: one["index"])
            vectors = np.asarray([one["embedding"] for one in data], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise self._wrong("no list of embeddings") from error
        if vectors.ndim != 2 or len(vectors) != len(batch) or vectors.shape[1] == 0:
            raise self._wrong(f"{len(vectors)} embeddings for {len(batch)} texts")
        return vectors

    def _send(self, body: Mapping[str, Any]) -> httpx.Response:
        for left in reversed(range(_TRIES)):
            try:
                reply = self._http.post(self._url, json=body)
            except httpx.HTTPError as error:
                if not left:
                    why = str(error) or type(error).__name__
                    raise Unavailable(
                        f"The embedder at {self._url} does not answer ({why}); check drift.embedder."
                    ) from error
            else:
                if reply.is_success:
                    return reply
                if not left or reply.status_code not in _WORTH_TRYING:
                    raise self._refused(reply)
            time.sleep(_PAUSE_S * (_TRIES - left))
        raise AssertionError("the last try returns or raises")

    def _refused(self, reply: httpx.Response) -> Unavailable:
        told = " ".join(reply.text.split())[:200]
        remedy = f"set {KEY_VARIABLE} to a key of it" if reply.status_code in (401, 403) else "check drift.embedder"
        return Unavailable(f"The embedder at {self._url} answered {reply.status_code} ({told}); {remedy}.")

    def _wrong(self, what: str) -> Unavailable:
        return Unavailable(f"The embedder at {self._url} answered {what}; it must speak OpenAI's embeddings API.")


def _likeness(one: Vectors, other: Vectors) -> float:
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length > 0 else 1.0
