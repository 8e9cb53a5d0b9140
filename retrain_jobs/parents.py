"""What a merge of adapters is judged by: labelled rows that none of them has learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retrain_jobs.dataset import Dataset, without
from retrain_jobs.examples import Reason
from retrain_jobs.options import Options
from service.core.errors import Conflict, NotFound
from service.core.merging import Merge, require_alike
from service.ports import Store


async def for_merging(store: Store, dataset: Dataset, merge: Merge, options: Options, base: str) -> Dataset:
    """The held-out rows alone, without those that the adapters or their own parents were trained on.

    Raises:
        Conflict: too few rows are left, or the adapters cannot become one over the base model with the digest `base`.
        NotFound: one of the adapters is not there any more.
    """
    parents = [await store.adapter(name) for name in merge.adapters]
    require_alike(parents, merge.method)
    if parents[0].base_digest != base:
        raise Conflict("The adapters to merge are for another base model than `model` names.", code="other_base")
    learned = await _learned(store, merge.adapters)
    seen = [row for row in dataset.heldout if row.request_id in learned]
    judging = without(without(dataset, dataset.train, Reason.NOT_TRAINED), seen, Reason.PARENT_TRAINED)
    needed = max(1, math.floor(options.min_examples * options.holdout_ratio))
    if len(judging.heldout) < needed:
        left_out = ", ".join(f"{reason} {n}" for reason, n in sorted(judging.dropped.items())) or "none"
        raise Conflict(
            f"Too few rows to judge the merged adapter by: {len(judging.heldout)} of {dataset.looked_at} labelled rows "
            f"(left out: {left_out}), {needed} are needed; send more feedback with an expected reply.",
            code="too_few_examples",
        )
    return judging


async def _learned(store: Store, names: Sequence[str]) -> set[str]:
    """Every row that went into these adapters, or into those that they were made from."""
    found: set[str] = set()
    known: set[str] = set()
    left = list(names)
    while left:
        if (name := left.pop()) in known:
            continue
        known.add(name)
        try:
            manifest = (await store.adapter(name)).manifest
        except NotFound:  # a parent that was removed since: what it learned from nobody can tell
            continue
        rows = manifest.get("dataset") or {}
        found.update(rows.get("train") or (), rows.get("rejected") or ())
        left += manifest.get("parents") or ()
    return found
