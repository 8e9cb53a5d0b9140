"""What the new requests are about: those that a classifier tells from the reference's, clustered, named and dated.

A linear classifier (ridge regression) learns to tell the current window's requests from the reference's by their
embeddings, and each request is scored by a classifier that did not see it (leave-one-out, in closed form). Where the
windows are alike, current requests score above the reference's 90th percentile one time in ten; more of them do where
something is new, and the hypergeometric tail says how sure that is: a classifier two-sample test (Lopez-Paz & Oquab,
ICLR 2017). What began within the window shows best in its end, so its last half and quarter are tried too (Bonferroni).
The requests above the threshold are the new ones; k-means parts them where they fall into several topics.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from service.monitor.change_point import share_changed
from service.monitor.embedders import Vectors
from service.monitor.features import Column, Features
from service.monitor.neighbours import Neighbours
from service.monitor.scrub import scrub

_MOST = 1000
"""Requests of a window that the classifier learns from, evenly spread over it."""

_MOST_DIMENSIONS = 256
_RIDGE = 10.0
"""Times the mean eigenvalue. On CLINC150 anything from 1 to 30 does about as well."""

_ENDS = (1.0, 0.5, 0.25)
_TEST = 0.9
_THRESHOLDS = (0.99, 0.95, 0.9)
_KEPT = 0.7
"""The strictest threshold that keeps so much of what is new decides who is, and what "unseen" means."""

_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
_LEAST = 20
_CHANCE = 0.001
_TOPICS = 3
_APART = 0.1
_EXAMPLES = 3
_WORDS = 3
_UNSEEN = 0.011
_WORD = re.compile(r"[^\W\d_]{3,}")
_STAND_IN = re.compile(r"\[[a-z-]+\]")
"""What `scrub` puts in place of a personal pattern."""

Members = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """A window's requests: their texts, and their directions in the embedding space, shape [n, d]."""

    prompts: Sequence[str]
    directions: Vectors


@dataclass(frozen=True, slots=True)
class Topic:
    """New requests of one kind.

    `members` are those of the current window that are told surely, `began` is the index since which there are such;
    `share` is how many of the requests since then are new, told surely or not; `before`: of the reference's requests
    the share that looks as new; `chance`: of the like without drift.
    """

    members: Members
    began: int
    share: float
    before: float
    chance: float
    words: tuple[str, ...]
    examples: tuple[str, ...]

    @property
    def is_unseen(self) -> bool:
        return self.before < _UNSEEN


@dataclass(frozen=True, slots=True)
class _Scores:
    """How new each request looks to a classifier that did not see it; `chance`: of as many new ones without drift."""

    known: Column
    new: Column
    chance: float


def find_topics(reference: Window, current: Window, *, seed: int) -> tuple[Topic, ...]:
    """What is new in the current window, the most frequent topic first; none where nothing stands out."""
    ours, theirs = _finite(reference.directions), _finite(current.directions)
    if min(len(ours), len(theirs)) < _LEAST:
        return ()
    known, new = _reduced(reference.directions[ours], current.directions[theirs])
    scores = min((_scores(known, new, end) for end in _ENDS), key=lambda found: found.chance)
    chance = scores.chance * len(_ENDS)
    if chance > _CHANCE:
        return ()
    threshold, before = _threshold(scores)
    members = np.zeros(len(current.directions), np.bool_)
    members[theirs[scores.new > threshold]] = True
    began = share_changed(members, before)
    share = max(_share(scores, theirs >= began), float(members[began:].mean()))
    found = []
    for part in _parted(members, current.directions, seed):
        of_all = share * float(part.sum() / members.sum())
        words, examples = telling_words(_texts(current, part), reference.prompts), _examples(current, part)
        found.append(Topic(part, began, of_all, before, chance, words, examples))
    return tuple(sorted(found, key=lambda topic: -topic.share))


def topics_of(
    neighbours: Neighbours | None, vectors: Vectors | None, reference: Features, current: Features, *, seed: int
) -> tuple[Topic, ...]:
    """The topics of a current window with these `vectors`; none without embeddings."""
    if neighbours is None or vectors is None:
        return ()
    known = Window(reference.prompts, neighbours.known)
    return find_topics(known, Window(current.prompts, neighbours.directions(vectors)), seed=seed)


def telling_words(texts: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """The words that set `texts` apart from `others`, the most telling first.

    How many more of the texts hold a word, as log-odds of which 95% is sure (Woolf, 1955, with Haldane's half), weighed
    by how many do. Only words of at least a tenth of the texts, of three, and at the least twice as likely.
    """
    here, there = _frequencies(texts), _frequencies(others)
    scored = []
    for word, n in here.counts.items():
        m = there.counts[word]
        sides = (n + 0.5, here.texts - n + 0.5, m + 0.5, there.texts - m + 0.5)
        sure = (
            math.log(sides[0] / sides[1]) - math.log(sides[2] / sides[3]) - 1.645 * math.sqrt(sum(1 / x for x in sides))
        )
        if n >= max(3, 0.1 * here.texts) and sure > math.log(2):
            scored.append((sure * math.sqrt(n / here.texts), word))
    return tuple(word for _, word in sorted(scored, key=lambda one: (-one[0], one[1]))[:_WORDS])


@dataclass(frozen=True, slots=True)
class _Frequencies:
    counts: Counter[str]
    texts: int


def _frequencies(texts: Iterable[str]) -> _Frequencies:
    """In how many of the texts each word is."""
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        counts.update({word.lower() for word in _WORD.findall(_STAND_IN.sub(" ", scrub(text, limit=2000)))})
        total += 1
    return _Frequencies(counts, total)


def _finite(directions: Vectors) -> NDArray[np.intp]:
    return np.flatnonzero(np.isfinite(directions).all(1))


def _spread(n: int) -> NDArray[np.intp]:
    return np.linspace(0, n - 1, min(n, _MOST)).astype(np.intp)


def _reduced(known: Vectors, new: Vectors) -> tuple[Column, Column]:
    """Both windows on the axes in which they vary most, together: that is blind to which is which."""
    pooled = np.concatenate([known, new]).astype(np.float64)
    pooled -= pooled.mean(0)
    if pooled.shape[1] > _MOST_DIMENSIONS:
        sample = pooled[_spread(len(pooled))]
        _, axes = np.linalg.eigh(sample.T @ sample)
        pooled = pooled @ axes[:, -_MOST_DIMENSIONS:]
    return pooled[: len(known)], pooled[len(known) :]


def _scores(known: Column, new: Column, end: float) -> _Scores:
    """Learn to tell the last part of the window from the reference; score all requests."""
    start = len(new) - max(_LEAST, int(end * len(new)))
    ours, theirs = _spread(len(known)), max(0, start) + _spread(len(new) - max(0, start))
    told = np.concatenate([np.zeros(len(ours)), np.ones(len(theirs))])
    learned = np.concatenate([known[ours], new[theirs]])
    mean = learned.mean(0)
    left, sizes, right = np.linalg.svd(learned - mean, full_matrices=False)
    ridge = _RIDGE * float((sizes**2).mean())
    shrunk = sizes**2 / np.maximum(sizes**2 + ridge, 1e-12)
    fitted = left @ (shrunk * (left.T @ (told - told.mean()))) + told.mean()
    leverage = np.minimum((left**2) @ shrunk + 1 / len(told), 1 - 1e-9)
    unseen = told - (told - fitted) / (1 - leverage)
    weights = right.T @ (sizes / np.maximum(sizes**2 + ridge, 1e-12) * (left.T @ (told - told.mean())))
    scores = [(part - mean) @ weights + told.mean() for part in (known, new)]
    scores[0][ours], scores[1][theirs] = unseen[: len(ours)], unseen[len(ours) :]
    edge = np.quantile(unseen[: len(ours)], _TEST)
    above = unseen > edge
    chance = hypergeom.sf(above[len(ours) :].sum() - 1, len(told), len(theirs), above.sum())
    return _Scores(scores[0], scores[1], float(chance))


def _threshold(scores: _Scores) -> tuple[float, float]:
    """Above which a request is new, and the reference's share above it."""
    edges = [float(np.quantile(scores.known, level)) for level in _THRESHOLDS]
    befores = [float((scores.known > edge).mean()) for edge in edges]
    gains = [float((scores.new > edge).mean()) - before for edge, before in zip(edges, befores, strict=True)]
    chosen = next(i for i, gain in enumerate(gains) if gain >= _KEPT * max(gains))
    return edges[chosen], befores[chosen]


def _share(scores: _Scores, since: Members) -> float:
    """How many of the requests are new, if the others are as the reference's: at the threshold that tells it surest."""
    best, share = 0.0, 0.0
    for level in _SHARES:
        edge = np.quantile(scores.known, level)
        before, after = float((scores.known > edge).mean()), float((scores.new[since] > edge).mean())
        sure = (after - before) / math.sqrt(max(1e-9, after * (1 - after) + before * (1 - before)))
        if sure > best:
            best, share = sure, (after - before) / max(1e-9, 1 - before)
    return share


def _parted(members: Members, directions: Vectors, seed: int) -> list[Members]:
    """The members in one topic, or in a few where they lie well apart."""
    of = np.flatnonzero(members)
    best: tuple[float, NDArray[np.int32] | None] = (_APART, None)
    for k in range(2, min(_TOPICS, len(of) // 10) + 1):
        labels = KMeans(k, n_init=3, random_state=seed).fit(directions[of]).labels_
        if len(np.unique(labels)) == k and np.bincount(labels).min() >= 5:
            apart = float(silhouette_score(directions[of], labels))
            best = max(best, (apart, labels), key=lambda found: found[0])
    if best[1] is None:
        return [members]
    parts = []
    for label in np.unique(best[1]):
        part = np.zeros(len(members), np.bool_)
        part[of[best[1] == label]] = True
        parts.append(part)
    return parts


def _texts(window: Window, members: Members) -> list[str]:
    return [window.prompts[i] for i in np.flatnonzero(members)]


def _examples(window: Window, members: Members) -> tuple[str, ...]:
    """The most typical texts, scrubbed."""
    of = np.flatnonzero(members)
    apart = np.linalg.norm(window.directions[of] - window.directions[of].mean(0), axis=1)
    texts = dict.fromkeys(scrub(window.prompts[i]) for i in of[np.argsort(apart, kind="stable")])
    return tuple(text for text in texts if text)[:_EXAMPLES]
