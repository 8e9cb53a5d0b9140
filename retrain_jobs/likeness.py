"""When two prompts are the same text, or nearly: exact digests of normalised text, and Jaccard likeness of shingles."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

from retrain_jobs.examples import Turn

_GAPS = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Case, accents' encoding, punctuation and spacing do not make a text another one."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _GAPS.sub(" ", folded).strip() or folded.strip()


def prompt_text(prompt: Sequence[Turn]) -> str:
    """The normalised text of a prompt; roles keep a system prompt and a question apart."""
    return "\n".join(f"{turn.role}: {normalise(turn.content)}" for turn in prompt)


def prompt_key(prompt: Sequence[Turn]) -> str:
    """SHA-256 of the normalised prompt: equal for prompts that differ only in case, punctuation or spacing."""
    return sha256(prompt_text(prompt).encode("utf-8", "surrogatepass")).hexdigest()


class NearIndex:
    """Finds whether a text has a near twin: Jaccard likeness of character shingles of at least `threshold`.

    Exact, and fast by prefix filtering (Chaudhuri et al., 2006): sets that alike share one of their rarest shingles.
    What is rare is told by `texts` and `among`; which order that gives makes it slower or faster, never wrong.
    """

    def __init__(
        self, texts: Iterable[str] = (), *, among: Iterable[str] = (), threshold: float = 0.9, size: int = 5
    ) -> None:
        self._threshold = threshold
        self._size = size
        self._sets: list[frozenset[str]] = []
        self._index: dict[str, list[int]] = defaultdict(list)
        sets = [_shingles(text, size) for text in texts]
        self._frequency = Counter(shingle for found in sets for shingle in found)
        self._frequency.update(shingle for text in among for shingle in _shingles(text, size))
        for found in sets:
            self._add(found)

    def add(self, text: str) -> None:
        """From now on it is one of the texts."""
        self._add(_shingles(text, self._size))

    def _add(self, found: frozenset[str]) -> None:
        for shingle in self._rarest(found):
            self._index[shingle].append(len(self._sets))
        self._sets.append(found)

    def __contains__(self, text: str) -> bool:
        found = _shingles(text, self._size)
        candidates = {number for shingle in self._rarest(found) for number in self._index.get(shingle, ())}
        return any(_jaccard(found, self._sets[number]) >= self._threshold for number in candidates)

    def _rarest(self, found: frozenset[str]) -> list[str]:
        keep = len(found) - math.ceil(self._threshold * len(found)) + 1
        return sorted(found, key=lambda shingle: (self._frequency[shingle], shingle))[:keep]


def _shingles(text: str, size: int) -> frozenset[str]:
    return frozenset(text[start : start + size] for start in range(max(1, len(text) - size + 1)))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)
