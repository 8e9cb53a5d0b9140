"""Replies that people turned down, beside those they wanted: pairs for DPO, thumbs for KTO.

Such a reply stands in `Dataset.rejected` and nowhere else, so that nothing can learn to give it. It passes the same
checks as a target: of golden items, duplicates, sources' shares, personal data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from retrain_jobs.admission import admitted
from retrain_jobs.dataset import Dataset, Row, build, examples_of, without
from retrain_jobs.examples import Example, GoldenItem, Origin, Reason, Slice, turns
from retrain_jobs.likeness import NearIndex, normalise, prompt_key, prompt_text
from retrain_jobs.options import Options
from retrain_jobs.privacy import scrub, scrubbed
from service.core.records import Labelled
from service.settings import Recipe

REJECTED_RATING = -0.5
"""Up to this rating (-1..1) a reply without a correction counts as wrong: `down` is -1."""


def prepare(new: Sequence[Row], replay: Sequence[Row], golden: Sequence[GoldenItem], options: Options) -> Dataset:
    """The set as the recipe takes it: `build`'s, for DPO those rows of it that are pairs, for KTO with thumbs down."""
    dataset = build(new, replay, golden, options)
    if options.recipe is Recipe.SFT_LORA:
        return dataset
    rows = [(row, side) for side, part in ((Slice.NEW, new), (Slice.REPLAY, replay)) for row in part
            if isinstance(row, Labelled)]  # fmt: skip
    dataset = _with_partners(dataset, rows, options.personal)
    if options.recipe is Recipe.DPO_LORA:
        paired = {row.request_id for row in dataset.rejected}
        return without(dataset, [row for row in dataset.train if row.request_id not in paired], Reason.NO_PAIR)
    return _with_thumbs(dataset, rows, examples_of(new, replay, Counter()), golden, options)


def turned_down(row: Labelled, source: Slice) -> Example | Reason:
    """The reply as one to keep away from: a thumb down, or a correction of it that says another thing."""
    capture, feedback = row.capture, row.feedback
    if feedback is None:
        return Reason.NO_PAIR
    if feedback.expected is None:
        wrong = feedback.rating is not None and feedback.rating <= REJECTED_RATING
    else:
        liked = feedback.rating is not None and feedback.rating > 0
        wrong = not liked and normalise(feedback.expected) != normalise(capture.reply)
    if not wrong:
        return Reason.NO_PAIR
    if capture.finish_reason == "length":
        return Reason.TRUNCATED_REPLY
    prompt = turns(capture.prompt)
    if prompt is None:
        return Reason.NOT_TEXT
    if not any(turn.content.strip() for turn in prompt):
        return Reason.EMPTY_PROMPT
    if not capture.reply.strip():
        return Reason.EMPTY_TARGET
    return Example(
        capture.request_id, capture.at, feedback.at, prompt, capture.reply.strip(), source, Origin.REJECTED,
        capture.source, capture.key_id, feedback.source,
    )  # fmt: skip


def _with_partners(dataset: Dataset, rows: Sequence[tuple[Labelled, Slice]], personal: Sequence[str]) -> Dataset:
    """What the corrections of the training rows and of the held-out rows correct."""
    labelled = {row.capture.request_id: (row, side) for row, side in rows}

    def corrected_by(corrections: Sequence[Example]) -> list[Example]:
        found = (turned_down(*labelled[row.request_id]) for row in corrections if row.request_id in labelled)
        return [made for made in found if isinstance(made, Example)]

    judged = tuple(scrub(row, personal)[0] for row in corrected_by(dataset.heldout))
    return _joined(replace(dataset, judged_rejected=judged), corrected_by(dataset.train), personal)


def _with_thumbs(
    dataset: Dataset, rows: Sequence[tuple[Labelled, Slice]], targets: Sequence[Example],
    golden: Sequence[GoldenItem], options: Options,
) -> Dataset:  # fmt: skip
    """With the replies that only have a thumb down, which `build` left out as having no target."""
    dropped = Counter(dataset.dropped)
    alone: list[Example] = []
    for labelled, side in rows:
        if labelled.feedback is None or labelled.feedback.expected is not None:
            continue
        made = turned_down(labelled, side)
        if made is Reason.NO_PAIR:
            continue
        dropped[Reason.NO_TARGET] -= 1
        if isinstance(made, Reason):
            dropped[made] += 1
        else:
            alone.append(made)
    kept = {row.request_id for row in (*dataset.train, *dataset.heldout)}
    wanted = {(prompt_key(row.prompt), normalise(row.target)): row for row in targets if row.request_id in kept}
    outdated, standing = [], []
    for row in alone:
        other = wanted.get((prompt_key(row.prompt), normalise(row.target)))
        if other is None or row.labelled_at > other.labelled_at:
            standing.append(row)
            outdated += [other] if other is not None else []
        else:
            dropped[Reason.CONFLICTING_LABEL] += 1
    judged_by = {row.request_id for row in dataset.heldout}
    heldout = NearIndex(prompt_text(row.prompt) for row in targets if row.request_id in judged_by)
    apart = [row for row in standing if prompt_text(row.prompt) not in heldout]
    dropped[Reason.HELDOUT_NEAR_DUPLICATE] += len(standing) - len(apart)
    # What label checks look for, a label unlike all those around it, is what a rejection is.
    rows_left, _, _ = admitted(apart, golden, replace(options, check_labels=False), dropped)
    dataset = replace(dataset, dropped={reason: n for reason, n in dropped.items() if n})
    return _joined(without(dataset, outdated, Reason.CONFLICTING_LABEL), rows_left, options.personal)


def _joined(dataset: Dataset, rejected: Sequence[Example], personal: Sequence[str]) -> Dataset:
    counts = Counter(dataset.personal)
    clean = scrubbed(rejected, personal, counts)
    return replace(dataset, rejected=(*dataset.rejected, *clean), personal=dict(counts))
