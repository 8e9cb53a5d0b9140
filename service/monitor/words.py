"""Words that the reference has never seen: the plainest sign of a new topic, and one that people understand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.monitor.features import Column

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")
_MOST_WORDS = 500
_ODDS = 16.0
"""A new topic's words are unseen with so many times the odds of a known one's. Of 4 to 32 it was best, or nearly so, on
six pools of requests; less serves long texts, more serves short ones."""


def words(text: str) -> list[str]:
    """The first 500 words in lower case; those with a digit count as one word, since each order number would be new."""
    found = _WORD.findall(text[: 16 * _MOST_WORDS].lower())[:_MOST_WORDS]
    return ["0" if _DIGIT.search(word) else word for word in found]


@dataclass(frozen=True, slots=True)
class Unseen:
    """Of each request, how many different words it has that no other request of the reference has, and how likely so
    many of so many are on a new topic (the logarithm of a likelihood ratio); NaN without words."""

    count: Column
    evidence: Column


class Vocabulary:
    """The words of a reference."""

    def __init__(self, reference: Sequence[str]) -> None:
        self._sets = [frozenset(words(text)) for text in reference]
        self._seen = Counter(word for found in self._sets for word in found)
        known = sum(map(len, self._sets))
        alone = sum(times == 1 for times in self._seen.values())
        self._rate = (alone + 1) / (known + 2)

    def within(self) -> Unseen:
        """Of each reference request among the others."""
        return self._unseen(zip(self._sets, self._sets, strict=True))

    def unseen(self, texts: Sequence[str]) -> Unseen:
        """Of other requests. One reference request is left out in turn, so that both are measured against as many."""
        found = (frozenset(words(text)) for text in texts)
        return self._unseen((one, self._sets[i % len(self._sets)]) for i, one in enumerate(found))

    def _unseen(self, pairs: Iterable[tuple[frozenset[str], frozenset[str]]]) -> Unseen:
        counts, totals = [], []
        for found, left_out in pairs:
            counts.append(sum(self._seen[word] <= (word in left_out) for word in found) if found else math.nan)
            totals.append(len(found))
        count, total = np.asarray(counts, np.float64), np.asarray(totals, np.float64)
        return Unseen(count, count * math.log(_ODDS) - total * math.log(1 + (_ODDS - 1) * self._rate))
