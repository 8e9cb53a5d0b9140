"""How much a request looks like one about a new topic: several signs of it in one number.

The number is the logarithm of a density ratio, new topics' over the reference's, up to a constant: an exponential
tilting of the signs. A bet on it pays 1 on average however wrong the weights are and however the signs depend on each
other, since it is held against the same number of the requests to compare with (see `betting.Tilt`); the weights only
decide how soon it wins. They were chosen by the mean growth of such bets on six pools of requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from service.monitor.features import Column

CONFIDENCE = "confidence"
EMBEDDING = "embedding"
FRAGMENTS = "tokens_per_char"
WORDS = "unseen_words"

DOUBT: Mapping[str, float] = {CONFIDENCE: 0.55, EMBEDDING: 0.25, FRAGMENTS: 0.15, WORDS: 0.2}
"""Topics that the model is unsure of."""

WORDING: Mapping[str, float] = {CONFIDENCE: 0.55, FRAGMENTS: 0.45, WORDS: 0.85}
"""Topics in words of their own; where texts are long or full of new words anyway, it says little."""

_USUAL, _BEYOND = 0.9, 3 * math.log(16.0)
"""Evidence of words counts up to three new words more than nine of ten reference requests have, or one odd request
among those to compare with would silence the bets."""

Told = Mapping[str, Column]


class Novelty:
    """The signs of the reference's requests, to see others against."""

    def __init__(self, signs: Told) -> None:
        """`signs`: of the reference, larger is stranger; a sign that is not there is left out."""
        self._ladders = {name: _ladder(column) for name, column in signs.items()}
        words = self._ladders.get(WORDS)
        self._most = float(np.quantile(words, _USUAL)) + _BEYOND if words is not None else 0.0

    def of(self, signs: Told, weights: Mapping[str, float], *, inside: bool) -> Column:
        """The weighted sum over the signs; NaN where one is unknown. `inside`: they are the reference's own."""
        used = [name for name in weights if name in self._ladders]
        parts = [weights[name] * self._sign(name, signs[name], inside=inside) for name in used]
        return np.sum(parts, axis=0) if parts else np.full(len(signs[WORDS]), np.nan)

    def _sign(self, name: str, values: Column, *, inside: bool) -> Column:
        """Of words the evidence itself, of all else -log of the share of reference requests that are as strange."""
        if name == WORDS:
            return np.minimum(values, self._most)
        ladder = self._ladders[name]
        stranger = len(ladder) - np.searchsorted(ladder, values, "left")
        share = stranger / len(ladder) if inside else (stranger + 1) / (len(ladder) + 1)
        return np.where(np.isfinite(values), -np.log(np.maximum(share, 1 / (len(ladder) + 1))), np.nan)


def _ladder(values: Column) -> Column:
    return np.sort(values[np.isfinite(values)])
