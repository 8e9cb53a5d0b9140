"""Words that the reference has never seen: the plainest sign of a new topic, and one that people understand.

A word one slip away from a seen one is *misspelled* and says less, or typing errors would look like topics; one that
is a seen word short of a letter counts as seen. Such words share a form, themselves or short of one letter: the
deletion neighbourhood (Bocek, Hunt and Stiller, "Fast similarity search in large dictionaries", University of Zurich
2007).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.monitor.features import Column

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")
_MOST_WORDS = 500
_SLIPPED = range(4, 24)
"""Letters of words that may be misspelled: among shorter ones too many others are near, longer ones are no words."""

_ODDS, _MISSPELLED_ODDS = 16.0, 4.0
"""A new topic's words are unseen, or look misspelled, with so many times the odds of a known one's. Chosen among 6
to 32 on six pools of requests, and 1 to 8 on four: less serves long texts and texts full of errors, more short ones
without."""

_SEVERAL = -1


def words(text: str) -> list[str]:
    """The first 500 words in lower case; those with a digit count as one word, since each order number would be new."""
    found = _WORD.findall(text[: 16 * _MOST_WORDS].lower())[:_MOST_WORDS]
    return ["0" if not word.isalpha() and _DIGIT.search(word) else word for word in found]


@dataclass(frozen=True, slots=True)
class Unseen:
    """Of each request, how many different words it has that no other request of the reference has, misspelled ones
    aside, and how likely so many of so many are on a new topic (the logarithm of a likelihood ratio); NaN without
    words."""

    count: Column
    evidence: Column


class Vocabulary:
    """The words of a reference."""

    def __init__(self, reference: Sequence[str]) -> None:
        self._sets = [frozenset(words(text)) for text in reference]
        seen = _only((word, i) for i, found in enumerate(self._sets) for word in found)
        self._seen_in = _only((form, i) for word, i in seen.items() for form in _forms(word))
        """Of each form of a word, the only reference request that has it, or `_SEVERAL`."""
        self._known = frozenset(form for form, i in self._seen_in.items() if i == _SEVERAL)
        unseen, misspelled, total = self._counts(enumerate(self._sets)).sum(0)
        self._usual = (unseen + 1) / (total + 2), misspelled / (total + 2)

    def within(self) -> Unseen:
        """Of each reference request among the others."""
        return self._unseen(self._sets, range(len(self._sets)))

    def unseen(self, texts: Sequence[str]) -> Unseen:
        """Of other requests. One reference request is left out in turn, so that both are measured against as many."""
        found = [frozenset(words(text)) for text in texts]
        return self._unseen(found, (i % len(self._sets) for i in range(len(found))))

    def _unseen(self, requests: Sequence[frozenset[str]], left_out: Iterable[int]) -> Unseen:
        unseen, misspelled, total = self._counts(zip(left_out, requests, strict=True)).T
        usual, slips = self._usual
        evidence = (
            unseen * math.log(_ODDS)
            + misspelled * math.log(_MISSPELLED_ODDS)
            - total * math.log(1 + (_ODDS - 1) * usual + (_MISSPELLED_ODDS - 1) * slips)
        )
        return Unseen(*(np.where(total > 0, column, np.nan) for column in (unseen, evidence)))

    def _counts(self, requests: Iterable[tuple[int, frozenset[str]]]) -> Column:
        """How many words of each are unseen, misspelled, and there, shape [n, 3]; the numbered request is left out."""
        found = []
        for out, words_of in requests:
            new = [word for word in words_of - self._known if self._seen_in.get(word, out) == out]
            unseen = sum(all(self._seen_in.get(form, out) == out for form in _forms(word)) for word in new)
            found.append((unseen, len(new) - unseen, len(words_of)))
        return np.asarray(found, np.float64).reshape(-1, 3)


def _only(seen: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Of each key the only number that it is seen with, or `_SEVERAL`."""
    found: dict[str, int] = {}
    for key, number in seen:
        if found.setdefault(key, number) != number:
            found[key] = _SEVERAL
    return found


def _forms(word: str) -> Iterator[str]:
    """A word, then the same short of each letter in turn."""
    yield word
    if len(word) in _SLIPPED:
        for i in range(len(word)):
            yield word[:i] + word[i + 1 :]
