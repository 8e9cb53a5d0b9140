"""Which rows may be learned from: unseen, of a wanted language, one label each, vouched for, within shares. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from retrain_jobs.examples import Example, GoldenItem, Reason, Slice
from retrain_jobs.languages import foreign
from retrain_jobs.likeness import NearIndex, prompt_key, prompt_text
from retrain_jobs.options import Options
from retrain_jobs.strata import mix, rank
from retrain_jobs.triggers import Trigger
from retrain_jobs.trust import alone, beyond_share, key, planted, vouched_by_one


def admitted(
    rows: Sequence[Example], golden: Sequence[GoldenItem], options: Options, dropped: Counter[Reason]
) -> tuple[list[Example], list[Trigger], float]:
    """The rows that may be learned from, the phrases whose rows were left out, and the share of contested prompts."""
    rows = _without_golden(rows, golden, dropped)
    rows = _apart_from(rows, foreign(rows, options.languages), Reason.OTHER_LANGUAGE, dropped)
    contested = _contested(rows)
    rows = _one_label_each(rows, dropped)
    # Before twins go: one of a second source is its voice all the same.
    rows = _apart_from(rows, vouched_by_one(rows), Reason.ONE_SOURCE, dropped)
    rows = _apart_from(rows, _near_twins(rows), Reason.NEAR_DUPLICATE, dropped)
    phrases: list[Trigger] = []
    if options.check_labels:
        found, phrases = planted(rows)
        rows = _apart_from(rows, found, Reason.TRIGGER, dropped)
        rows = _apart_from(rows, alone(rows), Reason.LABEL_OUTLIER, dropped)
    ranked = sorted(rows, key=lambda row: rank(row, options.seed))
    rows = _apart_from(rows, beyond_share(rows, options.source_ratio, ranked), Reason.SOURCE_CAP, dropped)
    ranked = sorted(rows, key=lambda row: rank(row, options.seed))
    rows = _apart_from(rows, beyond_share(rows, options.key_ratio, ranked, key), Reason.KEY_CAP, dropped)
    return mix(rows, options, dropped), phrases, contested


def _without_golden(rows: Sequence[Example], golden: Sequence[GoldenItem], dropped: Counter[Reason]) -> list[Example]:
    keys = {prompt_key(item.prompt) for item in golden}
    index = NearIndex(prompt_text(item.prompt) for item in golden)
    kept = []
    for row in rows:
        if prompt_key(row.prompt) in keys:
            dropped[Reason.GOLDEN] += 1
        elif prompt_text(row.prompt) in index:
            dropped[Reason.GOLDEN_NEAR_DUPLICATE] += 1
        else:
            kept.append(row)
    return kept


def _contested(rows: Sequence[Example]) -> float:
    """The share of prompts with several labels since the onset: before it, another one may have been right."""
    said: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.slice is Slice.NEW:
            said[prompt_key(row.prompt)].add(row.target)
    return sum(len(targets) > 1 for targets in said.values()) / max(1, len(said))


def _one_label_each(rows: Sequence[Example], dropped: Counter[Reason]) -> list[Example]:
    """One row a prompt: the newest label wins, and of equal labels the newest row."""
    winners: dict[str, Example] = {}
    newest_first = sorted(rows, key=lambda row: (row.labelled_at, row.at, row.request_id), reverse=True)
    for row in newest_first:
        winner = winners.setdefault(prompt_key(row.prompt), row)
        if winner is not row:
            dropped[Reason.DUPLICATE if winner.target == row.target else Reason.CONFLICTING_LABEL] += 1
    return sorted(winners.values(), key=lambda row: (row.at, row.request_id))


def _near_twins(rows: Sequence[Example]) -> list[Example]:
    """Rows that nearly say what a newer one of the same target and slice says: their number is no evidence."""
    alike: dict[tuple[Slice, str], list[Example]] = defaultdict(list)
    for row in rows:
        alike[row.slice, row.target].append(row)
    twins = []
    for group in alike.values():
        texts = {row.request_id: prompt_text(row.prompt) for row in group}
        index = NearIndex(among=texts.values())
        for row in sorted(group, key=lambda row: (row.labelled_at, row.at, row.request_id), reverse=True):
            if texts[row.request_id] in index:
                twins.append(row)
            else:
                index.add(texts[row.request_id])
    return twins


def _apart_from(
    rows: Sequence[Example], gone: Sequence[Example], reason: Reason, dropped: Counter[Reason]
) -> list[Example]:
    ids = {row.request_id for row in gone}
    dropped[reason] += len(ids)
    return [row for row in rows if row.request_id not in ids]
