"""When something began: the most likely single change in a row of requests (Hinkley, Biometrika 57, 1970)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.monitor.features import Column


def share_changed(is_member: NDArray[np.bool_], before: float) -> int:
    """Where a share rose: the index from which on the row looks least like `before` (0..1).

    Maximum likelihood of one change from the known share `before` to the share of what follows; a share that did not
    rise does not count. 0 where the whole row is of the new kind.
    """
    n = len(is_member)
    before = min(max(before, 0.5 / (n + 1)), 1 - 0.5 / (n + 1))
    members = np.cumsum(is_member[::-1])[::-1].astype(np.float64)
    left = np.arange(n, 0, -1, dtype=np.float64)
    share = np.clip(members / left, 1e-9, 1 - 1e-9)
    gain = members * np.log(share / before) + (left - members) * np.log((1 - share) / (1 - before))
    gain[share <= before] = 0.0
    return int(np.argmax(gain))


def mean_changed(values: Column, before: float) -> int:
    """Where a mean moved away from `before`, as `share_changed` for numbers of constant spread; NaN says nothing."""
    apart = np.nan_to_num(values - before)
    known = np.isfinite(values)
    sums, left = np.cumsum(apart[::-1])[::-1], np.cumsum(known[::-1])[::-1]
    return int(np.argmax(sums**2 / np.maximum(left, 1)))
