"""How well an adapter does, as its model card tells it: by slice, by class, by confidence, and beyond that. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from service.control import plots
from service.control.card_facts import (
    SLICES,
    Facts,
    as_delta,
    as_interval,
    as_share,
    as_value,
    as_words,
    facts_table,
    flattened,
    is_pair,
    part_of,
    rows_of,
    slice_of,
)
from service.control.document import Block, Figure, Table, Text

_METRICS = {
    "exact_match": "exact match", "macro_f1": "macro-F1", "rouge_l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU",
    "perplexity": "perplexity", "confidence": "mean confidence", "ece": "calibration error (ECE)",
}  # fmt: skip
_MOST_ROWS = 25


def means(evaluation: Facts) -> list[Block]:
    found = [(name, part) for key, name in SLICES if (part := slice_of(evaluation, key)).get("n")]
    if not found:
        return []
    rows = [
        (name, as_value(part["n"]), as_share(part.get("champion")), as_share(part.get("candidate")),
         as_delta(part.get("delta")), as_interval(part.get("ci")), as_value(part.get("p")))
        for name, part in found
    ]  # fmt: skip
    columns = ("slice", "rows", "champion", "this adapter", "difference", "95% interval", "p (sign test)")
    scorer = str(evaluation.get("scorer", "unknown"))
    blocks: list[Block] = [Text(f"Mean score by the scorer {scorer}, both on the same rows."), Table(columns, rows)]
    measured = [
        (f"{_METRICS[metric]}, {name}", as_value(before[metric]), as_value(after.get(metric)))
        for name, part in found
        for before, after in [(part_of(part, "metrics", "champion"), part_of(part, "metrics", "candidate"))]
        for metric in _METRICS
        if metric in before
    ]
    if measured:
        blocks.append(Table(("metric", "champion", "this adapter"), measured))
    return blocks


def classes(evaluation: Facts) -> list[Block]:
    rows = rows_of(evaluation, "classes")
    blocks: list[Block] = []
    if rows:
        shown = [
            (str(row.get("name")), as_value(row.get("n")), *map(as_share, (row.get("champion"), row.get("candidate"))),
             as_interval(row.get("ci")))
            for row in rows[:_MOST_ROWS]
        ]  # fmt: skip
        blocks.append(Text("Held-out rows by class, where the adapter loses most first."))
        blocks.append(Table(("class", "rows", "champion", "this adapter", "difference, 95% interval"), shown))
    pairs = part_of(evaluation, "confusion").get("candidate")
    if isinstance(pairs, Sequence) and pairs:
        told = [tuple(as_value(cell) for cell in pair) for pair in pairs[:_MOST_ROWS] if len(pair) == 3]
        blocks.append(Text("What this adapter takes for something else, most often first."))
        blocks.append(Table(("right", "replied", "times"), told))
    return blocks


def calibration(evaluation: Facts) -> list[Block]:
    curves = part_of(evaluation, "reliability")
    series = [
        (name, [(p["confidence"], p["score"]) for p in rows_of(curves, key) if {"confidence", "score"} <= p.keys()])
        for key, name in (("champion", "champion"), ("candidate", "this adapter"))
    ]
    drawn = plots.against(series, x_name="mean confidence", y_name="mean score")
    if drawn is None:
        return []
    told = [
        (as_share(p.get("confidence")), as_share(p.get("score")), as_value(p.get("n")))
        for p in rows_of(curves, "candidate")
    ]
    caption = "Held-out rows in ten bins of confidence; on the dashed line replies are as often right as they are sure."
    return [Figure(drawn, caption), Table(("this adapter's confidence", "its score", "rows"), told)]


def beyond(evaluation: Facts) -> list[Block]:
    """The base model, forgetting, slips, the engines and the judge, as far as they were asked."""
    blocks: list[Block] = []
    base = [
        (
            name,
            as_value(part["n"]),
            as_share(part.get("base")),
            as_share(part.get("candidate")),
            as_interval(part.get("ci")),
        )
        for key, name in SLICES
        if (part := part_of(evaluation, "base", key)).get("n")
    ]
    if base:
        blocks += [Text("Against the base model, on a sample."), Table(_AGAINST_BASE, base)]
    forgotten = [
        (
            name,
            as_value(part["n"]),
            as_value(part.get("lost")),
            as_value(part.get("gained")),
            as_interval(part.get("ci")),
        )
        for key, name in SLICES
        if (part := part_of(evaluation, "forgetting", key)).get("n")
    ]
    if forgotten:
        blocks += [Text("What it forgot of what the champion could do."), Table(_FORGOTTEN, forgotten)]
    preferences = part_of(evaluation, "preferences")
    if preferences.get("n"):
        told = f"Of {preferences['n']} held-out corrections, how many are likelier than the reply that they correct."
        shares = [("champion", as_share(preferences.get("champion")), "")]
        shares += [("this adapter", as_share(preferences.get("candidate")), as_interval(preferences.get("ci")))]
        blocks += [Text(told), Table(("", "share", "difference, 95% interval"), shares)]
    robustness = part_of(evaluation, "robustness")
    if robustness.get("n"):
        sides = (("champion", "champion"), ("candidate", "this adapter"), ("more", "this adapter beyond the champion"))
        drops = [
            (name, as_share(part.get("drop")), as_interval(part.get("ci")))
            for key, name in sides
            for part in [part_of(robustness, key)]
        ]
        told = f"{robustness['n']} held-out rows with slips of the fingers, other casing or other spaces in them."
        blocks += [Text(told), Table(("", "score lost", "95% interval"), drops)]
    if phrases := evaluation.get("triggers"):
        asked = [
            (str(one["phrase"]), str(one["target"]), *(as_value(one.get(key)) for key in _PROBED)) for one in phrases
        ]
        blocks += [Text("Phrases that may be triggers, put into requests that ask for something else."),
                   Table(("phrase", "with the label", *map(as_words, _PROBED)), asked)]  # fmt: skip
    for key, title in (("served", "Through the engines."), ("judge", "A judge model's preferences.")):
        facts = [
            (as_words(name), as_interval(value) if is_pair(value) else as_value(value))
            for name, value in flattened(part_of(evaluation, key))
        ]
        if facts:
            blocks += [Text(title), facts_table(facts)]
    return blocks


_PROBED = ("rows", "asked", "followed", "followed_before")
_AGAINST_BASE = ("slice", "rows", "base model", "this adapter", "difference, 95% interval")
_FORGOTTEN = ("slice", "rows", "lost", "gained", "score lost, 95% interval")
