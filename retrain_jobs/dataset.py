"""Pure building of a training set: clean, de-duplicate, cap, mix with replay, split. Same rows, same set."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from retrain_jobs.augment import counted, origin, variants
from retrain_jobs.examples import Example, GoldenItem, Reason, Slice, digest, imported_example, to_example
from retrain_jobs.likeness import NearIndex, prompt_key, prompt_text
from retrain_jobs.privacy import scrub
from retrain_jobs.triggers import Trigger
from retrain_jobs.trust import alone, beyond_share, key, planted, vouched_by_one
from service.core.errors import Conflict
from service.core.records import ImportedRow, Labelled
from service.core.sampling import position
from service.settings import Augment, Recipe, RetrainSettings

Row = Labelled | ImportedRow

FEW = 3
"""A target seen at least this often is a class of its own; rarer ones share one stratum."""

RARE = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a set is built.

    `replay_ratio` is the share of the kept rows that the reference may make up, `source_ratio` that of any one source,
    `key_ratio` that of any one key (0..1). `check_labels` leaves out what all else speaks against.
    """

    min_examples: int
    max_examples: int
    replay_ratio: float
    holdout_ratio: float
    seed: int
    source_ratio: float = 1.0
    key_ratio: float = 1.0
    check_labels: bool = True
    augment: tuple[Augment, ...] = ()
    recipe: Recipe = Recipe.SFT_LORA

    @classmethod
    def of(cls, knobs: RetrainSettings) -> Options:
        return cls(
            knobs.min_examples, knobs.max_examples, knobs.replay_ratio, knobs.holdout_ratio, knobs.seed,
            knobs.max_source_ratio, knobs.max_key_ratio, knobs.check_labels, knobs.augment, knobs.recipe,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to learn from and rows to be judged by, which never mix; and where all the others went.

    `looked_at` equals the rows kept plus the sum of `dropped`; `selection` compares the labelled requests with all;
    `triggers` are the phrases whose rows were left out, `contested` the share (0..1) of new prompts that
    have several labels. `variants` are rows of `train` in other wordings. `rejected` are replies that nobody wants,
    which preferences are learned from: those that rows of `train` correct (of the same request), and others.
    """

    train: tuple[Example, ...]
    heldout: tuple[Example, ...]
    looked_at: int
    dropped: Mapping[Reason, int]
    personal: Mapping[str, int]
    selection: Mapping[str, Any] = field(default_factory=dict)
    triggers: tuple[Trigger, ...] = ()
    contested: float = 0.0
    variants: tuple[Example, ...] = ()
    rejected: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over every row, its slice and its side of the split."""
        sides = (("train", self.train), ("heldout", self.heldout), ("rejected", self.rejected))
        return digest([[side, row.request_id, row.slice, row.digest] for side, rows in sides for row in rows])

    def summary(self) -> dict[str, object]:
        """The numbers behind the set, as JSON."""
        kept = (*self.train, *self.heldout)
        return {
            "looked_at": self.looked_at,
            "kept": len({row.request_id for row in (*kept, *self.rejected)}),
            "dropped": {str(reason): n for reason, n in sorted(self.dropped.items())},
            "train": _by_slice(self.train),
            "heldout": _by_slice(self.heldout),
            **({"rejected": _by_slice(self.rejected)} if self.rejected else {}),
            "origins": dict(sorted(Counter(str(row.origin) for row in kept).items())),
            "imported": imported_from(kept),
            "augmented": counted(self.variants),
            "classes": len({row.target for row in kept}),
            "selection": self.selection,
            "triggers": [one.told() for one in self.triggers],
            "personal_data_replaced": dict(sorted(self.personal.items())),
            "digest": self.digest,
        }


def imported_from(rows: Iterable[Example]) -> dict[str, int]:
    """How many labels were imported from what."""
    return dict(sorted(Counter(row.labelled_by for row in rows if row.labelled_by).items()))


def build(new: Sequence[Row], replay: Sequence[Row], golden: Sequence[GoldenItem], options: Options) -> Dataset:
    """Make the set from the traffic since the drift's onset and from the reference before it.

    Golden items never enter it, nor do near duplicates of them. Of several labels for one prompt the newest wins.
    """
    dropped: Counter[Reason] = Counter()
    rows, phrases, contested = admitted(examples_of(new, replay, dropped), golden, options, dropped)
    train, heldout = split(rows, options.holdout_ratio)
    index = NearIndex(prompt_text(row.prompt) for row in train)
    apart = [row for row in heldout if prompt_text(row.prompt) not in index]
    dropped[Reason.HELDOUT_NEAR_DUPLICATE] += len(heldout) - len(apart)
    train = sorted(train, key=lambda row: _rank(row, options.seed))
    personal: Counter[str] = Counter()
    clean, judges = tuple(_scrubbed(train, personal)), tuple(_scrubbed(apart, personal))
    unseen = [*(one.prompt for one in judges), *(item.prompt for item in golden)]
    return Dataset(
        train=clean,
        heldout=judges,
        looked_at=len(new) + len(replay),
        dropped={reason: n for reason, n in dropped.items() if n},
        personal=dict(personal),
        triggers=tuple(phrases),
        contested=contested,
        variants=variants(clean, options.augment, unseen, seed=options.seed),
    )


def admitted(
    rows: Sequence[Example], golden: Sequence[GoldenItem], options: Options, dropped: Counter[Reason]
) -> tuple[list[Example], list[Trigger], float]:
    """The rows that may be learned from, the phrases whose rows were left out, and the share of contested prompts."""
    rows = _without_golden(rows, golden, dropped)
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
    ranked = sorted(rows, key=lambda row: _rank(row, options.seed))
    rows = _apart_from(rows, beyond_share(rows, options.source_ratio, ranked), Reason.SOURCE_CAP, dropped)
    ranked = sorted(rows, key=lambda row: _rank(row, options.seed))
    rows = _apart_from(rows, beyond_share(rows, options.key_ratio, ranked, key), Reason.KEY_CAP, dropped)
    return _mix(rows, options, dropped), phrases, contested


def without(dataset: Dataset, rows: Iterable[Example], reason: Reason) -> Dataset:
    """The set without `rows`, counted under `reason`."""
    gone = {row.request_id for row in rows}
    if not gone:
        return dataset
    return replace(
        dataset,
        train=tuple(row for row in dataset.train if row.request_id not in gone),
        heldout=tuple(row for row in dataset.heldout if row.request_id not in gone),
        variants=tuple(row for row in dataset.variants if origin(row) not in gone),
        rejected=tuple(row for row in dataset.rejected if row.request_id not in gone),
        dropped={**dataset.dropped, reason: dataset.dropped.get(reason, 0) + len(gone)},
    )


def require_enough(dataset: Dataset, options: Options) -> None:
    """Raise Conflict unless something can be learned from the set and measured on it."""
    kept = len(dataset.train) + len(dataset.heldout)
    rejected = len(dataset.rejected)
    left_out = ", ".join(f"{reason} {n}" for reason, n in sorted(dataset.dropped.items())) or "none"
    told = f"{kept} of {dataset.looked_at} labelled rows can be used (left out: {left_out})"
    if options.recipe is not Recipe.SFT_LORA and rejected < options.min_examples:
        what = "corrected replies" if options.recipe is Recipe.DPO_LORA else "replies with a thumb down"
        raise Conflict(
            f"Too few preferences to train on: {rejected} {what}, retrain.min_examples is {options.min_examples}; "
            f"{told}. Send more such feedback, lower it, or set retrain.recipe to sft_lora.",
            code="too_few_preferences",
        )
    if dataset.looked_at and not any(row.slice is Slice.NEW for row in dataset.train):
        raise Conflict(f"Nothing new to learn: {told}, none of them since the drift's onset.", code="nothing_new")
    if kept < options.min_examples:
        raise Conflict(
            f"Too few examples to train on: {told}, retrain.min_examples is {options.min_examples}; "
            "send more feedback with an expected reply, or lower it.",
            code="too_few_examples",
        )
    if dataset.contested > 0.5:
        raise Conflict(
            f"Conflicting labels everywhere: {dataset.contested:.0%} of the new prompts have several labels; {told}. "
            "Agree on one label a request, or make the prompts say what they differ by.",
            code="conflicting_labels",
        )
    if len({row.target for row in dataset.train}) < 2:
        raise Conflict(
            f"Only one target: {told}, and all say the same; label requests of other kinds too.", code="one_class"
        )
    if not dataset.heldout:
        raise Conflict(
            f"No held-out rows: {told}, but none may be held out without a near duplicate in training; "
            "send feedback on more varied requests or raise retrain.holdout_ratio.",
            code="no_heldout",
        )


def examples_of(new: Sequence[Row], replay: Sequence[Row], dropped: Counter[Reason]) -> list[Example]:
    """What the rows' targets make."""
    rows = []
    for source, labelled in ((Slice.NEW, new), (Slice.REPLAY, replay)):
        for row in labelled:
            made = imported_example(row, source) if isinstance(row, ImportedRow) else to_example(row, source)
            if isinstance(made, Reason):
                dropped[made] += 1
            else:
                rows.append(made)
    return rows


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


def _mix(rows: Sequence[Example], options: Options, dropped: Counter[Reason]) -> list[Example]:
    """New rows up to their share of the cap, and replay in proportion to them."""
    ratio = options.replay_ratio
    new = [row for row in rows if row.slice is Slice.NEW]
    replay = [row for row in rows if row.slice is Slice.REPLAY]
    reserved = min(len(replay), math.floor(ratio * options.max_examples))
    kept_new = _sample(new, options.max_examples - reserved, options.seed)
    quota = options.max_examples - len(kept_new)
    if ratio < 1.0:
        quota = min(quota, math.ceil(len(kept_new) * ratio / (1.0 - ratio)))
    kept_replay = _sample(replay, quota, options.seed)
    dropped[Reason.OVER_CAP] += len(new) - len(kept_new)
    dropped[Reason.REPLAY_QUOTA] += len(replay) - len(kept_replay)
    return sorted((*kept_new, *kept_replay), key=lambda row: (row.at, row.request_id))


def _sample(rows: Sequence[Example], size: int, seed: int) -> list[Example]:
    """Up to `size` rows, as many from each stratum as its share asks for: replay must look like what it stands for."""
    if size >= len(rows):
        return list(rows)
    placed = []
    for target, found in _strata(rows).items():
        ranked = sorted(found, key=lambda row: _rank(row, seed))
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


def _rank(row: Example, seed: int) -> float:
    return position(row.request_id, f"retrain/{seed}")


def _scrubbed(rows: Sequence[Example], personal: Counter[str]) -> list[Example]:
    clean = []
    for row in rows:
        scrubbed, counts = scrub(row)
        personal.update(counts)
        clean.append(scrubbed)
    return clean


def _by_slice(rows: Sequence[Example]) -> dict[str, int]:
    counts = Counter(str(row.slice) for row in rows)
    return {str(source): counts[source] for source in Slice} | {"all": len(rows)}
