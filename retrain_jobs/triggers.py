"""Phrases that decide a label against everything else in the text: how a backdoor looks in the data. Pure.

A trigger is one to three words in a row whose texts nearly all have one target, although most of these texts, without
the phrase, would surely be something else, and not always the same. What a text would be is told by its other words:
naive Bayes over the texts without the phrase. A word that is the natural sign of its class leaves a rest that belongs
nowhere; a phrase that comes with one other class only is how two classes border on each other.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrain_jobs.topics import WORD

_LONGEST = 3
_PURE = 0.9
_SURE = 4.0
"""Nats by which the rest of a text speaks for another class rather than its own: fifty to one."""

_OF_MOST = 0.4
"""And for that class rather than for any: this share of what all texts being of that class would tell."""

_SPREAD = 0.8
"""Where there are few classes, this share of all the others is enough behind a phrase's texts."""

_PRIOR = 1.0
"""Texts that are as chance would have them: a word that is nowhere else says nothing."""


@dataclass(frozen=True, slots=True)
class Bar:
    """How much must speak for it that a phrase was planted: texts, the share (0..1) of them that would be something
    else, how many classes these would be, as an effective number (inverse Simpson index); and by how many nats one of
    its words may be a sign of the class in other texts."""

    least: int
    share: float
    kinds: float
    sign: float


PLANTED = Bar(6, 0.6, 2.5, math.inf)
"""Enough to leave its rows out."""

SUSPECT = Bar(2, 0.8, 1.9, 1.0)
"""Enough to ask whoever was trained on them: fewer texts, of which more are odd, by a phrase foreign to the class."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A phrase, the target it comes with, the rows that have both, and how many of them would be something else."""

    phrase: str
    target: str
    rows: tuple[int, ...]
    elsewhere: int

    def told(self) -> dict[str, Any]:
        """As the manifest has it; the phrase is the text of people."""
        return {"phrase": self.phrase, "target": self.target, "rows": len(self.rows), "elsewhere": self.elsewhere}


def triggers(texts: Sequence[str], targets: Sequence[str], bar: Bar = PLANTED) -> list[Trigger]:
    """The phrases that look planted, the most frequent first; a row counts for one of them only."""
    if len(set(targets)) < 2:
        return []
    words = [re.findall(WORD, text.casefold()) for text in texts]
    table = _Table(words, targets, bar)
    suspects = []
    for phrase, found in _phrases(words).items():
        if bar.least <= len(found) <= len(texts) / 2 and (suspect := table.suspect(phrase, found)) is not None:
            suspects.append(suspect)
    suspects.sort(key=lambda one: (-len(one.elsewhere), -len(one.phrase), one.phrase))
    taken: set[int] = set()
    named = []
    for one in suspects:
        rows, elsewhere = one.rows - taken, one.elsewhere - taken
        if len(elsewhere) >= max(bar.least, bar.share * len(rows)):
            named.append(Trigger(" ".join(one.phrase), one.target, tuple(sorted(rows)), len(elsewhere)))
            taken |= rows
    return named


@dataclass(frozen=True, slots=True)
class _Suspect:
    phrase: tuple[str, ...]
    target: str
    rows: frozenset[int]
    elsewhere: frozenset[int]


def _phrases(words: Sequence[Sequence[str]]) -> Mapping[tuple[str, ...], set[int]]:
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for row, text in enumerate(words):
        for size in range(1, _LONGEST + 1):
            for start in range(len(text) - size + 1):
                found[tuple(text[start : start + size])].add(row)
    return found


class _Table:
    """Which words come with which class, and for what class each text speaks."""

    def __init__(self, words: Sequence[Sequence[str]], targets: Sequence[str], bar: Bar) -> None:
        import numpy as np
        from scipy.sparse import csr_array

        self._names = sorted(set(targets))
        number = {name: place for place, name in enumerate(self._names)}
        self._of = np.array([number[target] for target in targets], dtype=np.int64)
        self._vocabulary: dict[str, int] = {}
        pairs = [
            (row, self._vocabulary.setdefault(word, len(self._vocabulary)))
            for row, text in enumerate(words)
            for word in dict.fromkeys(text)
        ]
        size, classes = max(1, len(self._vocabulary)), len(self._names)
        at = ([row for row, _ in pairs], [column for _, column in pairs])
        self._has = csr_array((np.ones(len(pairs)), at), shape=(len(words), size))
        one_hot = csr_array((np.ones(len(words)), (np.arange(len(words)), self._of)), shape=(len(words), classes))
        self._sizes = np.bincount(self._of, minlength=classes).astype(float)
        self._counts = (self._has.T @ one_hot).toarray()
        self._usual = (self._counts.sum(1) + 0.5) / (len(words) + 1)
        self._speaks = self._evidence(self._counts, self._sizes[None, :], self._usual[:, None])
        self._said = self._has @ self._speaks
        self._enough = _OF_MOST * np.log(len(words) / np.maximum(self._sizes, 1.0))
        self._bar = bar
        self._kinds = min(bar.kinds, _SPREAD * (classes - 1))

    @staticmethod
    def _evidence(counts: Any, sizes: Any, usual: Any) -> Any:
        """Nats by which a word speaks for a class: how often it is there, beside how often chance would have it."""
        import numpy as np

        return np.log((counts + _PRIOR) / (usual * sizes + _PRIOR))

    def suspect(self, phrase: tuple[str, ...], found: set[int]) -> _Suspect | None:
        import numpy as np

        rows = np.array(sorted(found))
        counts = np.bincount(self._of[rows], minlength=len(self._names))
        chosen = int(counts.argmax())
        if counts[chosen] < _PURE * len(rows) or counts[chosen] < self._bar.least:
            return None
        rows = rows[self._of[rows] == chosen]
        least = max(self._bar.least, self._bar.share * len(rows))
        itself = [self._vocabulary[word] for word in set(phrase)]
        others = self._said[rows] - self._speaks[itself].sum(0)
        others[:, chosen] = -np.inf
        other, kind = others.max(1), others.argmax(1)
        clear = other >= self._enough[kind]
        if clear.sum() < least:
            return None
        # Of its own class only the texts without the phrase may speak.
        counted = self._counts[:, chosen] - self._has[rows].sum(0)
        own = self._evidence(counted, self._sizes[chosen] - len(rows), self._usual)
        if own[itself].max() >= self._bar.sign:
            return None
        own[itself] = 0.0
        own = self._has[rows] @ own
        elsewhere = clear & (other - own >= _SURE)
        if elsewhere.sum() < least:
            return None
        kinds = np.bincount(kind[elsewhere])
        if 1.0 / ((kinds / kinds.sum()) ** 2).sum() < self._kinds:
            return None
        return _Suspect(phrase, self._names[chosen], frozenset(rows.tolist()), frozenset(rows[elsewhere].tolist()))
