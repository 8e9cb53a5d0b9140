"""Labels that all of a row's neighbours speak against: wrong by mistake or by intent. Pure.

The rule: of the ten rows with the most similar words (cosine of TF-IDF, at least 0.2) six or more say one and the same
other thing, and none says what this one does. Measured by `python -m benchmarks.poison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from retrain_jobs.topics import WORD

_NEIGHBOURS = 10
_ALIKE = 0.2
_AGREE = 6
_AT_ONCE = 500


def outliers(texts: Sequence[str], targets: Sequence[str]) -> list[int]:
    """The indices of the rows whose label is alone among its neighbours, in order."""
    if len(texts) <= _AGREE:
        return []
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=WORD, dtype=np.float32).fit_transform(texts)
    except ValueError:  # no text has a word
        return []
    most = min(_NEIGHBOURS, len(texts) - 1)
    found = []
    for start in range(0, len(texts), _AT_ONCE):
        likeness = (vectors[start : start + _AT_ONCE] @ vectors.T).toarray()
        itself = np.arange(len(likeness))
        likeness[itself, start + itself] = -1.0
        for row, alike in enumerate(likeness):
            near = np.argsort(-alike, kind="stable")[:most]
            said = Counter(targets[other] for other in near if alike[other] >= _ALIKE)
            if not said:
                continue
            agreed, count = said.most_common(1)[0]
            target = targets[start + row]
            if count >= _AGREE and agreed != target and target not in said:
                found.append(start + row)
    return found
