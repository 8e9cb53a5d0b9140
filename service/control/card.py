"""The model card of an adapter: what it learned from, how, how well, what it is not good at, and where it came from.

Pure. All of it is read out of the adapter's record, its job's result and its cycle's events, which are kept with it;
what none of them tells is left out. A card holds no request's text: only names of classes, from which personal data was
replaced, and phrases of up to three words that may be triggers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from service.control import card_evaluation, plots
from service.control.card_facts import (
    SLICES,
    Facts,
    as_interval,
    as_value,
    as_words,
    facts_table,
    is_pair,
    part_of,
    points_of,
    rows_of,
    slice_of,
)
from service.control.document import Block, Document, Figure, Points, Section, Table, Text
from service.core.lineage import explanation, lineage
from service.core.records import Adapter, Cycle, Event

_FEW = 30
"""Below this many rows a slice's interval is wide, which the card points out."""


def card(adapter: Adapter, result: Facts, cycle: Cycle | None, events: Sequence[Event]) -> Document:
    """The card of one adapter.

    Args:
        result: of the job that made it; empty for an adapter that was added by hand.
        events: of its cycle, in the order in which they happened.
    """
    made = datetime.fromtimestamp(adapter.created_at, UTC).isoformat(" ", "seconds")
    evaluation = part_of(result, "evaluation")
    sections: list[tuple[str, Sequence[Block]]] = [
        ("What it is", _identity(adapter)),
        ("Data", _data(part_of(result, "dataset"))),
        ("Settings", _settings(adapter.manifest)),
        ("Training", _training(part_of(result, "training"))),
        ("Evaluation", card_evaluation.means(evaluation)),
        ("Classes", card_evaluation.classes(evaluation)),
        ("Calibration", card_evaluation.calibration(evaluation)),
        ("Beyond the means", card_evaluation.beyond(evaluation)),
        ("Limits", [Points(limits(adapter, result))]),
        ("Lineage", _lineage(adapter, cycle, events)),
    ]
    return Document(
        f"Model card: {adapter.name}",
        f"A LoRA adapter of rank {adapter.rank} for the alias {adapter.alias}, made {made}.",
        [Section(title, blocks) for title, blocks in sections if blocks],
    )


def limits(adapter: Adapter, result: Facts) -> list[str]:
    """What the figures do not show, or show to be weak."""
    evaluation = part_of(result, "evaluation")
    found = []
    if not evaluation and adapter.manifest:
        found.append("What its job measured is not kept any more.")
    elif not evaluation:
        found.append("No job of Trimtab made this adapter: nothing is known of its data, and it was never evaluated.")
    for key, name in SLICES:
        part = slice_of(evaluation, key)
        n = part.get("n", 0)
        if evaluation and not n:
            found.append(f"There is no evidence for the slice {name}.")
        elif isinstance(n, int) and 0 < n < _FEW:
            found.append(f"The slice {name} has only {n} rows: its figures are rough.")
        ci = part.get("ci")
        if is_pair(ci) and ci[1] < 0:
            found.append(f"On {name} it is worse than the champion (95% interval {as_interval(ci)}).")
    worse = [row for row in rows_of(evaluation, "classes") if is_pair(row.get("ci")) and row["ci"][1] < 0]
    if worse:
        names = ", ".join(str(row.get("name")) for row in worse[:10])
        found.append(f"Worse than the champion on {len(worse)} classes: {names}.")
    learned = part_of(result, "dataset").get("looked_at")
    if learned:
        found.append(
            "It was trained and judged on requests that got feedback. Which requests get any is not random, so the "
            "figures may not hold for those that got none."
        )
    found.append("It is made for one base model and one alias; on another base or task nothing is known of it.")
    if adapter.locked:
        found.append(f"It was rolled back and is locked out: {adapter.locked}")
    return found


def _identity(adapter: Adapter) -> list[Block]:
    rows = [
        ("adapter", adapter.name),
        ("SHA-256", adapter.digest),
        ("base model's digest", adapter.base_digest),
        ("rank", str(adapter.rank)),
        ("size", f"{adapter.size_bytes / 1e6:.2f} MB"),
    ]
    return [facts_table(rows)]


def _data(dataset: Facts) -> list[Block]:
    """Every count of the job's summary: nested ones as tables of their own."""
    blocks: list[Block] = []
    plain = [(as_words(key), as_value(value)) for key, value in dataset.items() if not isinstance(value, Mapping)]
    if plain:
        blocks.append(facts_table(plain))
    for key, value in dataset.items():
        if isinstance(value, Mapping) and value:
            blocks.append(Table((as_words(key), ""), [(as_words(str(name)), as_value(n)) for name, n in value.items()]))
    return blocks


def _settings(manifest: Facts) -> list[Block]:
    rows = [(key, as_value(value)) for part in ("settings", "recipe") for key, value in part_of(manifest, part).items()]
    search = part_of(manifest, "search")
    if trials := rows_of(search, "trials"):
        told = f"the best of {len(trials)} trials, judged on {search.get('judged_on')} training rows set aside"
        rows.append(("learning rate, rank and dropout", told))
    return [Table(("setting", "value"), rows)] if rows else []


def _training(training: Facts) -> list[Block]:
    rows = [(as_words(k), as_value(v)) for k, v in training.items() if isinstance(v, int | float | str)]
    blocks: list[Block] = [facts_table(rows)] if rows else []
    curves = [
        ("training", points_of(training.get("train_loss"))),
        ("held out", points_of(training.get("heldout_loss"))),
    ]
    drawn = plots.lines(curves, x_name="step", y_name="loss (nats a token)")
    if drawn is not None:
        last = [f"{name} {points[0][1]:.3g} → {points[-1][1]:.3g}" for name, points in curves if points]
        blocks.append(Figure(drawn, f"Loss by step: {', '.join(last)}."))
    return blocks


def _lineage(adapter: Adapter, cycle: Cycle | None, events: Sequence[Event]) -> list[Block]:
    manifest = adapter.manifest
    facts = lineage(events)
    rows = [("base model's digest", adapter.base_digest)]
    if champion := part_of(manifest, "job").get("champion"):
        rows.append(("champion that it was compared with", str(champion)))
    if cycle is not None:
        rows += [("cycle", cycle.id), ("opened by", str(cycle.trigger)), ("because", cycle.reason)]
        rows.append(("cycle's state", str(cycle.state)))
    if check := part_of(facts, "alarm").get("drift_check"):
        rows.append(("drift check", str(check)))
    rows += [(name, str(manifest[name])) for name in ("code", "golden_digest") if name in manifest]
    rows += [(f"version of {name}", as_value(value)) for name, value in part_of(manifest, "packages").items()]
    blocks: list[Block] = [facts_table(rows)]
    if told := explanation(facts):
        blocks.insert(0, Text(told))
    return blocks
