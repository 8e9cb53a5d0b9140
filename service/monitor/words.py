"""Words that the reference has never seen: the plainest sign of a new topic, and one that people understand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from service.monitor.features import Column

_WORD = re.compile(r"\w+")
_MOST_WORDS = 500


def words(text: str) -> list[str]:
    """The first 500 words in lower case; numbers count as one word, since each would be new."""
    return ["0" if word.isdigit() else word for word in _WORD.findall(text[: 16 * _MOST_WORDS].lower())[:_MOST_WORDS]]


class Vocabulary:
    """How many of a request's words occur in no other request of the reference, as a share; NaN without words."""

    def __init__(self, reference: Sequence[str]) -> None:
        self._sets = [frozenset(words(text)) for text in reference]
        self._seen = Counter(word for found in self._sets for word in found)

    def within(self) -> Column:
        """Of each reference request among the others."""
        return np.asarray([self._unseen(found, found) for found in self._sets], np.float64)

    def unseen(self, texts: Sequence[str]) -> Column:
        """Of other requests. One reference request is left out in turn, so that both are measured against as many."""
        found = (frozenset(words(text)) for text in texts)
        return np.asarray([self._unseen(one, self._sets[i % len(self._sets)]) for i, one in enumerate(found)])

    def new_words(self, text: str) -> list[str]:
        return [word for word in dict.fromkeys(words(text)) if word not in self._seen]

    def _unseen(self, found: frozenset[str], left_out: frozenset[str]) -> float:
        if not found:
            return math.nan
        return sum(self._seen[word] <= (word in left_out) for word in found) / len(found)
