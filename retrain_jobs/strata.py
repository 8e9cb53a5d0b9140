"""Which rows stand for all: frequent targets keep their share, in a sample as on each side of a split. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from retrain_jobs.examples import Example, Reason, Slice
from retrain_jobs.options import Options
from service.core.sampling import position

FEW = 3
"""A target seen at least this often is a class of its own; rarer ones share one stratum."""

RARE = ""


def mix(rows: Sequence[Example], options: Options, dropped: Counter[Reason]) -> list[Example]:
    """New rows up to their share of the cap, and replay in proportion to them."""
    ratio = options.replay_ratio
    new = [row for row in rows if row.slice is Slice.NEW]
    replay = [row for row in rows if row.slice is Slice.REPLAY]
    reserved = min(len(replay), math.floor(ratio * options.max_examples))
    kept_new = sample(new, options.max_examples - reserved, options.seed)
    quota = options.max_examples - len(kept_new)
    if ratio < 1.0:
        quota = min(quota, math.ceil(len(kept_new) * ratio / (1.0 - ratio)))
    kept_replay = sample(replay, quota, options.seed)
    dropped[Reason.OVER_CAP] += len(new) - len(kept_new)
    dropped[Reason.REPLAY_QUOTA] += len(replay) - len(kept_replay)
    return sorted((*kept_new, *kept_replay), key=lambda row: (row.at, row.request_id))


def sample(rows: Sequence[Example], size: int, seed: int) -> list[Example]:
    """Up to `size` rows, as many from each stratum as its share asks for: replay must look like what it stands for."""
    if size >= len(rows):
        return list(rows)
    placed = []
    for target, found in _strata(rows).items():
        ranked = sorted(found, key=lambda row: rank(row, seed))
        placed += [((place + 0.5) / len(ranked), target, row) for place, row in enumerate(ranked)]
    return [row for _, _, row in sorted(placed, key=lambda entry: entry[:2])[:size]]


def split(rows: Sequence[Example], holdout_ratio: float) -> tuple[list[Example], list[Example]]:
    """The newest share of each slice's strata is held out: the candidate will meet what comes after, too."""
    train: list[Example] = []
    heldout: list[Example] = []
    for source in Slice:
        owed = 0.0
        for found in _strata([row for row in rows if row.slice is source]).values():
            ordered = sorted(found, key=lambda row: (row.at, row.request_id))
            owed += holdout_ratio * len(ordered)
            count = min(round(owed), len(ordered) - 1)
            owed -= count
            train += ordered[: len(ordered) - count]
            heldout += ordered[len(ordered) - count :]
    return train, heldout


def _strata(rows: Sequence[Example]) -> dict[str, list[Example]]:
    """Rows by target where it is frequent, all others together; in the targets' order."""
    frequency = Counter(row.target for row in rows)
    strata: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        strata[row.target if frequency[row.target] >= FEW else RARE].append(row)
    return dict(sorted(strata.items()))


def rank(row: Example, seed: int) -> float:
    return position(row.request_id, f"retrain/{seed}")
