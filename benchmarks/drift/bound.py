"""The least delay that any detector may have at a rate of false alarms: ln(ARL) / KL (Lorden 1971).

KL is the relative entropy of the drifted requests to the reference's, estimated on held-out requests: the density ratio
of novel to known is learned by boosted trees with five-fold cross-fitting, on the same signals that the detector sees,
and enters the Donsker-Varadhan formula, which in expectation is no more than the true KL.
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.drift.runs import SHARES, Where
from benchmarks.drift.streams import DECLARED
from service.monitor.evidence import Rows
from service.monitor.novelty import CONFIDENCE, EMBEDDING, WORDS


def bounds(where: Where, seed: int) -> dict[str, dict[float, float]]:
    """The bound by share: on all signals, and on confidence, distance and unseen words alone."""
    world = where.world(seed)
    names = [signal.name for signal in world.stream.signals.signals]
    novel = [names.index(name) for name in (f"{CONFIDENCE} down", EMBEDDING, WORDS)]
    return {
        "all signals": _bounds(world.known, world.novel),
        "confidence, distance, words": _bounds(world.known[:, novel], world.novel[:, novel]),
    }


def _bounds(known: Rows, novel: Rows) -> dict[float, float]:
    rows, is_novel = np.vstack([known, novel]), np.r_[np.zeros(len(known)), np.ones(len(novel))]
    trees = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, max_leaf_nodes=12, l2_regularization=1.0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chance = cross_val_predict(trees, rows, is_novel, cv=folds, method="predict_proba")[:, 1]
    ratio = chance / (1 - chance) * len(known) / len(novel)
    found = {}
    for share in SHARES:
        log = np.log(1 - share + share * ratio)
        before, after = log[is_novel == 0], log[is_novel == 1]
        kl = (1 - share) * before.mean() + share * after.mean() - math.log(np.exp(before).mean())
        found[share] = math.log(DECLARED) / float(kl)
    return found
