"""What the new requests are about: clusters of both windows' requests that the current one holds more of.

k-means runs over both windows together, blind to which window a request is of. So a cluster's part in each is a fair
2x2 table, and Fisher's exact test says how sure it is that its share rose (Bonferroni over every cluster looked at).
Several numbers of clusters are tried: the surest cluster of any counts first, then those that overlap little with it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from sklearn.cluster import KMeans

from service.monitor.change_point import share_changed
from service.monitor.embedders import Vectors
from service.monitor.features import Features
from service.monitor.neighbours import Neighbours
from service.monitor.scrub import scrub

_CLUSTERS = (2, 3, 5, 8, 12, 18, 27)
_OVERLAP = 0.5
_MOST = 1500
"""Requests of a window that are clustered, evenly spread over it: a topic of a few percent shows in that many."""

_LEAST = 20
_CHANCE = 0.01
_LEAST_GAIN = 0.02
_TOPICS = 3
_EXAMPLES = 3
_WORDS = 3
_UNSEEN = 0.01
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
    """Requests of one kind that became more frequent.

    `members` are those of the current window, `began` the index since which they are frequent; `share` is theirs among
    the requests since then, `before` among the reference's; `chance`: of such a rise without drift.
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


def find_topics(reference: Window, current: Window, *, seed: int) -> tuple[Topic, ...]:
    """The topics whose share rose beyond chance, the surest first; none where nothing stands out."""
    ours, theirs = _usable(reference.directions), _usable(current.directions)
    if min(len(ours), len(theirs)) < _LEAST:
        return ()
    pooled = np.concatenate([reference.directions[ours], current.directions[theirs]])
    found: list[_Cluster] = []
    looked_at = 0
    for k in _CLUSTERS:
        if len(pooled) < 10 * k:
            break
        clusters = KMeans(k, n_init=3, random_state=seed).fit(pooled)
        known, new = _members(clusters, reference), _members(clusters, current)
        found += [_Cluster.of(new == i, known == i, clusters.cluster_centers_[i]) for i in range(k)]
        looked_at += k
    topics: list[Topic] = []
    for cluster in sorted(found, key=lambda one: one.chance):
        began = share_changed(cluster.members, cluster.before)
        share = float(cluster.members[began:].mean())
        if cluster.chance * looked_at > _CHANCE or len(topics) == _TOPICS:
            break
        apart = not any(_overlap(cluster.members, topic.members) > _OVERLAP for topic in topics)
        if apart and share - cluster.before > _LEAST_GAIN:
            topics.append(_told(reference, current, cluster, began, share, cluster.chance * looked_at))
    return tuple(topics)


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
class _Cluster:
    """A cluster's requests of the current window, its share of the reference, and how likely chance is."""

    members: Members
    centre: Vectors
    before: float
    chance: float

    @classmethod
    def of(cls, new: Members, known: Members, centre: Vectors) -> _Cluster:
        chance = _chance(int(new.sum()), len(new), int(known.sum()), len(known))
        return cls(new, centre, float(known.mean()), chance)


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


def _usable(directions: Vectors) -> NDArray[np.intp]:
    finite = np.flatnonzero(np.isfinite(directions).all(1))
    if len(finite) <= _MOST:
        return finite
    return np.asarray(finite[np.linspace(0, len(finite) - 1, _MOST).astype(np.intp)])


def _members(clusters: KMeans, window: Window) -> NDArray[np.int32]:
    """The cluster of each request; -1 for one without a direction."""
    placed = clusters.predict(np.nan_to_num(window.directions))
    return np.where(np.isfinite(window.directions).all(1), placed, -1)


def _overlap(one: Members, other: Members) -> float:
    """Of the smaller one's requests, the share that the other has too."""
    return float((one & other).sum() / max(1, min(one.sum(), other.sum())))


def _chance(new: int, of_new: int, known: int, of_known: int) -> float:
    table = [[new, of_new - new], [known, of_known - known]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def _told(
    reference: Window, current: Window, cluster: _Cluster, began: int, share: float, chance: float
) -> Topic:  # fmt: skip
    of = np.flatnonzero(cluster.members)
    texts = [current.prompts[i] for i in of]
    apart = np.linalg.norm(current.directions[of] - cluster.centre, axis=1)
    examples = dict.fromkeys(scrub(texts[i]) for i in np.argsort(apart, kind="stable"))
    shown = tuple(text for text in examples if text)[:_EXAMPLES]
    words = telling_words(texts, reference.prompts)
    return Topic(cluster.members, began, share, cluster.before, min(1.0, chance), words, shown)
