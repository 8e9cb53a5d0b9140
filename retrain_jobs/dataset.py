"""A training set, made of rows: what they say, which of them are admitted, split, scrubbed. Same rows, same set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from retrain_jobs.admission import admitted
from retrain_jobs.augment import counted, origin, variants
from retrain_jobs.examples import Example, GoldenItem, Reason, Slice, digest, imported_example, to_example
from retrain_jobs.likeness import NearIndex, prompt_text
from retrain_jobs.options import Options
from retrain_jobs.privacy import scrubbed
from retrain_jobs.strata import rank, split
from retrain_jobs.triggers import Trigger
from service.core.records import ImportedRow, Labelled

Row = Labelled | ImportedRow


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to learn from and rows to be judged by, which never mix; and where all the others went.

    `looked_at` equals the rows kept plus the sum of `dropped`; `selection` compares the labelled requests with all;
    `triggers` are the phrases whose rows were left out, `contested` the share (0..1) of new prompts that
    have several labels. `variants` are rows of `train` in other wordings. `rejected` are replies that nobody wants,
    which preferences are learned from: those that rows of `train` correct (of the same request), and others;
    `judged_rejected` are those that rows of `heldout` correct, which only judge.
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
    judged_rejected: tuple[Example, ...] = ()

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
    train = sorted(train, key=lambda row: rank(row, options.seed))
    personal: Counter[str] = Counter()
    clean, judges = (tuple(scrubbed(side, options.personal, personal)) for side in (train, apart))
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
        judged_rejected=tuple(row for row in dataset.judged_rejected if row.request_id not in gone),
        dropped={**dataset.dropped, reason: dataset.dropped.get(reason, 0) + len(gone)},
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


def _by_slice(rows: Sequence[Example]) -> dict[str, int]:
    counts = Counter(str(row.slice) for row in rows)
    return {str(source): counts[source] for source in Slice} | {"all": len(rows)}
