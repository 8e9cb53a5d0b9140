"""Which requests are worth a person's time: those the model doubts, from every kind of request there is. Pure.

The rule: requests without a label are grouped by their words (k-means on TF-IDF). The groups are dealt a place each in
turn, the most doubted group first, one that is about a drifted topic two places; within a group the least confident
request comes first, requests without a confidence last, and near duplicates of what was taken are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrain_jobs.examples import Turn, turns
from retrain_jobs.likeness import NearIndex, prompt_key, prompt_text
from retrain_jobs.topics import topics
from service.core.records import Capture, Labelled

DRIFTED_PLACES = 2
"""How many places in a round a group about a drifted topic gets."""

_MANY = 50


@dataclass(frozen=True, slots=True)
class Chosen:
    """A request to be labelled; `text` is its prompt as a person reads it, `topic` the words of its group."""

    capture: Capture
    text: str
    topic: str
    drifted: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    capture: Capture
    prompt: tuple[Turn, ...]

    @property
    def doubt(self) -> float:
        """0 (sure) to 1; a request without a confidence counts as sure."""
        confidence = self.capture.confidence
        return 0.0 if confidence is None else 1.0 - min(1.0, math.exp(confidence))

    @property
    def text(self) -> str:
        if len(self.prompt) == 1:
            return self.prompt[0].content
        return "\n".join(f"{turn.role}: {turn.content}" for turn in self.prompt)


def choose(rows: Sequence[Labelled], count: int, drifted: Collection[str] = (), *, seed: int = 0) -> list[Chosen]:
    """Up to `count` requests, the first ones the most worth it; `drifted` are the words of the drifted topics."""
    rows = sorted(rows, key=lambda row: (row.capture.at, row.capture.request_id))
    labelled = {prompt_key(prompt) for row in rows if row.feedback and (prompt := turns(row.capture.prompt))}
    asked = _distinct((row.capture for row in rows if row.feedback is None), labelled)
    groups = _grouped(asked, seed)
    doubts = {topic: sum(one.doubt for one in group) / len(group) for topic, group in groups.items()}
    order = sorted(groups, key=lambda topic: (-doubts[topic], topic))
    moved = _single_words(drifted)
    about = {topic: not moved.isdisjoint(topic.split()) for topic in order}
    left = {topic: sorted(groups[topic], key=lambda one: (-one.doubt, one.capture.request_id)) for topic in order}
    chosen: list[Chosen] = []
    seen = NearIndex(among=(prompt_text(one.prompt) for one in asked))
    while len(chosen) < count and any(left.values()):
        for topic in order:
            for _ in range(DRIFTED_PLACES if about[topic] else 1):
                found = _next_unlike(left[topic], seen)
                if found is not None and len(chosen) < count:
                    seen.add(prompt_text(found.prompt))
                    chosen.append(Chosen(found.capture, found.text, topic, about[topic]))
    return chosen


def classes_of(rows: Sequence[Labelled]) -> list[str]:
    """The targets that people gave, where they are classes: few, and most given several times; else none."""
    given = [row.feedback.expected.strip() for row in rows if row.feedback and row.feedback.expected]
    kinds = sorted({target for target in given if target})
    return kinds if 2 <= len(kinds) <= min(_MANY, len(given) // 3) else []


def topics_words(topics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The words of a drift check's topics."""
    return [str(word) for topic in topics for word in topic.get("words", ())]


def _distinct(captures: Iterable[Capture], labelled: Collection[str]) -> list[_Asked]:
    """Requests that say something, each text once, none that has a label."""
    found: dict[str, _Asked] = {}
    for capture in captures:
        prompt = turns(capture.prompt)
        if prompt and any(turn.content.strip() for turn in prompt) and (key := prompt_key(prompt)) not in labelled:
            found.setdefault(key, _Asked(capture, prompt))
    return list(found.values())


def _grouped(asked: Sequence[_Asked], seed: int) -> dict[str, list[_Asked]]:
    groups: dict[str, list[_Asked]] = {}
    for one, topic in zip(asked, topics([one.prompt[-1].content for one in asked], seed=seed), strict=True):
        groups.setdefault(topic, []).append(one)
    return groups


def _single_words(phrases: Iterable[str]) -> frozenset[str]:
    return frozenset(word for phrase in phrases for word in phrase.casefold().split())


def _next_unlike(left: list[_Asked], seen: NearIndex) -> _Asked | None:
    while left:
        found = left.pop(0)
        if prompt_text(found.prompt) not in seen:
            return found
    return None
