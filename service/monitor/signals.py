"""How strange each request looks beside the reference, in several ways: larger is stranger, NaN is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.core.drift import Kind
from service.monitor.betting import SHIFT, TAIL, TOPIC, Bet, Tilt
from service.monitor.embedders import Vectors
from service.monitor.features import Column, Features
from service.monitor.neighbours import Neighbours
from service.monitor.novelty import CONFIDENCE, DOUBT, EMBEDDING, FRAGMENTS, WORDING, WORDS, Novelty, Told
from service.monitor.scrub import scrub
from service.monitor.words import Unseen, Vocabulary

NOVELTY = "novelty"
WORDED = "novel_words"
MANY = "many_unseen_words"
RARITY = "rare_reply"
REPLY = "reply"

_MOST_REPLIES = 10
_LEAST = 20
_LEAST_SHARE = 0.5

_NUMERIC: Mapping[str, Kind] = {
    "prompt_chars": Kind.INPUT,
    "prompt_tokens": Kind.INPUT,
    "prompt_non_alphabetic": Kind.INPUT,
    "prompt_word_variety": Kind.INPUT,
    FRAGMENTS: Kind.INPUT,
    "reply_chars": Kind.OUTPUT,
    "reply_tokens": Kind.OUTPUT,
    "refusal": Kind.OUTPUT,
}
_SIGNS = (CONFIDENCE, EMBEDDING, FRAGMENTS, WORDS)


@dataclass(frozen=True, slots=True)
class Signal:
    """One column of strangeness, the kind of drift that it shows, its part of the bets, and in words what moved."""

    name: str
    kind: Kind
    weight: float
    bets: tuple[Bet | Tilt, ...]
    told: str = ""


class Signals:
    """The signals that a reference supports, and their values for it and for later requests.

    A reference request is measured against the others and a later one against as many, so that without drift both
    have the same distribution.
    """

    def __init__(self, reference: Features, near: Neighbours | None) -> None:
        """`near`: of the reference's prompts; None without an embedder."""
        self._words = Vocabulary(reference.prompts)
        self._near = near
        self._replies = Counter(reference.replies)
        self._frequent = tuple(reply for reply, n in self._replies.most_common(_MOST_REPLIES) if n > 1)
        within = near.within() if near is not None else None
        told = _numbers(reference, self._words.within(), within)
        own = np.asarray([self._replies[reply] - 1 for reply in reference.replies], np.float64)
        self._novelty = Novelty({name: told[name] for name in _SIGNS if _enough(told[name])})
        columns = self._columns(reference, told, own, inside=True)
        kept = [signal for signal in self._all() if _enough(columns[signal.name])]
        self.signals: tuple[Signal, ...] = tuple(kept)
        self.reference = self._matrix(columns)

    @property
    def vary(self) -> bool:
        """Whether requests of the reference differ in anything: where all are alike, there is nothing to compare."""
        return any(np.unique(column[np.isfinite(column)]).size > 1 for column in self.reference.T)

    def measure(self, current: Features, vectors: Vectors | None) -> Column:
        """The strangeness of later requests, shape [requests, signals]."""
        far = self._near.distance(vectors) if self._near is not None and vectors is not None else None
        told = _numbers(current, self._words.unseen(current.prompts), far)
        seen = np.asarray([self._replies[reply] for reply in current.replies], np.float64)
        return self._matrix(self._columns(current, told, seen, inside=False))

    def _all(self) -> Sequence[Signal]:
        sides = [
            Signal(f"{name} {way}", kind, 0.005, SHIFT, f"{name.replace('_', ' ')} {way}")
            for name, kind in _NUMERIC.items()
            for way in ("up", "down")
        ]
        replies = [
            Signal(f"{REPLY} {i}", Kind.OUTPUT, 0.003, SHIFT, f"more replies “{scrub(reply, limit=40)}”")
            for i, reply in enumerate(self._frequent)
        ]
        return [
            Signal(NOVELTY, Kind.INPUT, 0.75, TOPIC, "new topics that the model is unsure of"),
            Signal(WORDED, Kind.INPUT, 1.1, TOPIC, "new topics in words of their own"),
            Signal(EMBEDDING, Kind.INPUT, 0.08, TAIL, "far from all reference requests"),
            Signal(WORDS, Kind.INPUT, 0.01, TAIL, "words unseen in the reference"),
            Signal(MANY, Kind.INPUT, 0.2, TAIL, "many unseen words at once"),
            Signal(f"{CONFIDENCE} down", Kind.OUTPUT, 0.08, TAIL, "confidence down"),
            Signal(f"{CONFIDENCE} up", Kind.OUTPUT, 0.01, SHIFT, "confidence up"),
            Signal(RARITY, Kind.OUTPUT, 0.02, TAIL, "replies rare in the reference"),
            *sides,
            *replies,
        ]

    def _columns(self, features: Features, told: Told, seen: Column, *, inside: bool) -> dict[str, Column]:
        columns = {name: told[name] for name in (EMBEDDING, WORDS, MANY)}
        columns[f"{CONFIDENCE} down"], columns[f"{CONFIDENCE} up"] = told[CONFIDENCE], -told[CONFIDENCE]
        columns[RARITY] = -seen
        columns[NOVELTY] = self._novelty.of(told, DOUBT, inside=inside)
        columns[WORDED] = self._novelty.of(told, WORDING, inside=inside)
        for name in _NUMERIC:
            columns[f"{name} up"], columns[f"{name} down"] = told[name], -told[name]
        for i, reply in enumerate(self._frequent):
            columns[f"{REPLY} {i}"] = np.asarray([float(one == reply) for one in features.replies])
        return columns

    def _matrix(self, columns: Mapping[str, Column]) -> Column:
        if not self.signals:
            return np.empty((len(columns[NOVELTY]), 0))
        return np.column_stack([columns[signal.name] for signal in self.signals])


def _numbers(features: Features, unseen: Unseen, far: Column | None) -> dict[str, Column]:
    chars = np.maximum(features.columns["prompt_chars"], 1.0)
    told = {name: features.columns[name] for name in _NUMERIC if name in features.columns}
    told[FRAGMENTS] = features.columns["prompt_tokens"] / chars
    told[CONFIDENCE] = -features.columns[CONFIDENCE]
    told[WORDS], told[MANY] = unseen.evidence, unseen.count
    told[EMBEDDING] = far if far is not None else np.full(len(features), np.nan)
    return told


def _enough(values: Column) -> bool:
    finite = int(np.isfinite(values).sum())
    return finite >= _LEAST and finite >= _LEAST_SHARE * len(values)
