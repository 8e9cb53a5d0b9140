"""Texts into groups by their words: k-means on TF-IDF, each group named by the words that tell it apart. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MOST = 20
_WORDS = 3
WORD = r"(?u)\b\w+\b"
"""What counts as a word, as a regular expression."""


def topics(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """The name of each text's group: up to three words, none where there are too few texts to tell groups."""
    size = max(1, min(_MOST, round(math.sqrt(len(texts) / 2))))
    if size == 1:
        return [""] * len(texts)
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, max_df=0.5, token_pattern=WORD)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # no word that is not in most of them
        return [""] * len(texts)
    words = vectorizer.get_feature_names_out()
    fitted = KMeans(min(size, len(set(texts))), n_init=1, random_state=seed).fit(vectors)
    names = []
    for centre in fitted.cluster_centers_:
        names.append(" ".join(words[i] for i in centre.argsort()[::-1][:_WORDS] if centre[i] > 0))
    return [names[label] for label in fitted.labels_]
