"""The model card of an adapter: what it learned from, how, how well, what it is not good at, and where it came from.

Pure. All of it is read out of the adapter's record, its job's result and its cycle's events, which are kept with it;
what none of them tells is left out. A card holds no request's text: only names of classes, from which personal data was
replaced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

from service.control import plots
from service.control.document import Block, Document, Figure, Points, Section, Table, Text
from service.core.lineage import explanation, lineage
from service.core.records import Adapter, Cycle, Event

_SLICES = (
    ("new", "held out, new traffic"),
    ("replay", "held out, replay"),
    ("all", "held out, all"),
    ("golden", "golden set"),
)
_METRICS = {
    "exact_match": "exact match", "macro_f1": "macro-F1", "rouge_l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU",
    "perplexity": "perplexity", "confidence": "mean confidence", "ece": "calibration error (ECE)",
}  # fmt: skip
_MOST_ROWS = 25
_FEW = 30
"""Below this many rows a slice's interval is wide, which the card points out."""

Facts = Mapping[str, Any]


def card(adapter: Adapter, result: Facts, cycle: Cycle | None, events: Sequence[Event]) -> Document:
    """The card of one adapter.

    Args:
        result: of the job that made it; empty for an adapter that was added by hand.
        events: of its cycle, in the order in which they happened.
    """
    made = datetime.fromtimestamp(adapter.created_at, UTC).isoformat(" ", "seconds")
    evaluation = _part(result, "evaluation")
    sections: list[tuple[str, Sequence[Block]]] = [
        ("What it is", _identity(adapter)),
        ("Data", _data(_part(result, "dataset"))),
        ("Settings", _settings(adapter.manifest)),
        ("Training", _training(_part(result, "training"))),
        ("Evaluation", _evaluation(evaluation)),
        ("Classes", _classes(evaluation)),
        ("Calibration", _calibration(evaluation)),
        ("Beyond the means", _beyond(evaluation)),
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
    evaluation = _part(result, "evaluation")
    found = []
    if not evaluation and adapter.manifest:
        found.append("What its job measured is not kept any more.")
    elif not evaluation:
        found.append("No job of Trimtab made this adapter: nothing is known of its data, and it was never evaluated.")
    for key, name in _SLICES:
        part = _slice(evaluation, key)
        n = part.get("n", 0)
        if evaluation and not n:
            found.append(f"There is no evidence for the slice {name}.")
        elif isinstance(n, int) and 0 < n < _FEW:
            found.append(f"The slice {name} has only {n} rows: its figures are rough.")
        ci = part.get("ci")
        if _pair(ci) and ci[1] < 0:
            found.append(f"On {name} it is worse than the champion (95% interval {_interval(ci)}).")
    worse = [row for row in _rows(evaluation, "classes") if _pair(row.get("ci")) and row["ci"][1] < 0]
    if worse:
        names = ", ".join(str(row.get("name")) for row in worse[:10])
        found.append(f"Worse than the champion on {len(worse)} classes: {names}.")
    learned = _part(result, "dataset").get("looked_at")
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
    return [_table(rows)]


def _data(dataset: Facts) -> list[Block]:
    """Every count of the job's summary: nested ones as tables of their own."""
    blocks: list[Block] = []
    plain = [(_words(key), _value(value)) for key, value in dataset.items() if not isinstance(value, Mapping)]
    if plain:
        blocks.append(_table(plain))
    for key, value in dataset.items():
        if isinstance(value, Mapping) and value:
            blocks.append(Table((_words(key), ""), [(_words(str(name)), _value(n)) for name, n in value.items()]))
    return blocks


def _settings(manifest: Facts) -> list[Block]:
    rows = [(key, _value(value)) for part in ("settings", "recipe") for key, value in _part(manifest, part).items()]
    search = _part(manifest, "search")
    if trials := _rows(search, "trials"):
        told = f"the best of {len(trials)} trials, judged on {search.get('judged_on')} training rows set aside"
        rows.append(("learning rate, rank and dropout", told))
    return [Table(("setting", "value"), rows)] if rows else []


def _training(training: Facts) -> list[Block]:
    rows = [(_words(k), _value(v)) for k, v in training.items() if isinstance(v, int | float | str)]
    blocks: list[Block] = [_table(rows)] if rows else []
    curves = [("training", _points(training.get("train_loss"))), ("held out", _points(training.get("heldout_loss")))]
    drawn = plots.lines(curves, x_name="step", y_name="loss (nats a token)")
    if drawn is not None:
        last = [f"{name} {points[0][1]:.3g} → {points[-1][1]:.3g}" for name, points in curves if points]
        blocks.append(Figure(drawn, f"Loss by step: {', '.join(last)}."))
    return blocks


def _evaluation(evaluation: Facts) -> list[Block]:
    found = [(name, part) for key, name in _SLICES if (part := _slice(evaluation, key)).get("n")]
    if not found:
        return []
    rows = [
        (name, _value(part["n"]), _share(part.get("champion")), _share(part.get("candidate")),
         _delta(part.get("delta")), _interval(part.get("ci")), _value(part.get("p")))
        for name, part in found
    ]  # fmt: skip
    columns = ("slice", "rows", "champion", "this adapter", "difference", "95% interval", "p (sign test)")
    scorer = str(evaluation.get("scorer", "unknown"))
    blocks: list[Block] = [Text(f"Mean score by the scorer {scorer}, both on the same rows."), Table(columns, rows)]
    measured = [
        (f"{_METRICS[metric]}, {name}", _value(before[metric]), _value(after.get(metric)))
        for name, part in found
        for before, after in [(_part(part, "metrics", "champion"), _part(part, "metrics", "candidate"))]
        for metric in _METRICS
        if metric in before
    ]
    if measured:
        blocks.append(Table(("metric", "champion", "this adapter"), measured))
    return blocks


def _classes(evaluation: Facts) -> list[Block]:
    rows = _rows(evaluation, "classes")
    blocks: list[Block] = []
    if rows:
        shown = [
            (str(row.get("name")), _value(row.get("n")), _share(row.get("champion")), _share(row.get("candidate")),
             _interval(row.get("ci")))
            for row in rows[:_MOST_ROWS]
        ]  # fmt: skip
        blocks.append(Text("Held-out rows by class, where the adapter loses most first."))
        blocks.append(Table(("class", "rows", "champion", "this adapter", "difference, 95% interval"), shown))
    pairs = _part(evaluation, "confusion").get("candidate")
    if isinstance(pairs, Sequence) and pairs:
        told = [tuple(_value(cell) for cell in pair) for pair in pairs[:_MOST_ROWS] if len(pair) == 3]
        blocks.append(Text("What this adapter takes for something else, most often first."))
        blocks.append(Table(("right", "replied", "times"), told))
    return blocks


def _calibration(evaluation: Facts) -> list[Block]:
    curves = _part(evaluation, "reliability")
    series = [
        (name, [(p["confidence"], p["score"]) for p in _rows(curves, key) if {"confidence", "score"} <= p.keys()])
        for key, name in (("champion", "champion"), ("candidate", "this adapter"))
    ]
    drawn = plots.against(series, x_name="mean confidence", y_name="mean score")
    if drawn is None:
        return []
    told = [
        (_share(p.get("confidence")), _share(p.get("score")), _value(p.get("n"))) for p in _rows(curves, "candidate")
    ]
    caption = "Held-out rows in ten bins of confidence; on the dashed line replies are as often right as they are sure."
    return [Figure(drawn, caption), Table(("this adapter's confidence", "its score", "rows"), told)]


def _beyond(evaluation: Facts) -> list[Block]:
    """The base model, forgetting, slips, the engines and the judge, as far as they were asked."""
    blocks: list[Block] = []
    base = [
        (name, _value(part["n"]), _share(part.get("base")), _share(part.get("candidate")), _interval(part.get("ci")))
        for key, name in _SLICES
        if (part := _part(evaluation, "base", key)).get("n")
    ]
    if base:
        blocks += [Text("Against the base model, on a sample."), Table(_AGAINST_BASE, base)]
    forgotten = [
        (name, _value(part["n"]), _value(part.get("lost")), _value(part.get("gained")), _interval(part.get("ci")))
        for key, name in _SLICES
        if (part := _part(evaluation, "forgetting", key)).get("n")
    ]
    if forgotten:
        blocks += [Text("What it forgot of what the champion could do."), Table(_FORGOTTEN, forgotten)]
    preferences = _part(evaluation, "preferences")
    if preferences.get("n"):
        told = f"Of {preferences['n']} held-out corrections, how many are likelier than the reply that they correct."
        shares = [("champion", _share(preferences.get("champion")), "")]
        shares += [("this adapter", _share(preferences.get("candidate")), _interval(preferences.get("ci")))]
        blocks += [Text(told), Table(("", "share", "difference, 95% interval"), shares)]
    robustness = _part(evaluation, "robustness")
    if robustness.get("n"):
        sides = (("champion", "champion"), ("candidate", "this adapter"), ("more", "this adapter beyond the champion"))
        drops = [
            (name, _share(part.get("drop")), _interval(part.get("ci")))
            for key, name in sides
            for part in [_part(robustness, key)]
        ]
        told = f"{robustness['n']} held-out rows with slips of the fingers, other casing or other spaces in them."
        blocks += [Text(told), Table(("", "score lost", "95% interval"), drops)]
    if phrases := evaluation.get("triggers"):
        asked = [(str(one["phrase"]), str(one["target"]), *(_value(one[key]) for key in _PROBED)) for one in phrases]
        blocks += [Text("Phrases that may be triggers, put into requests that ask for something else."),
                   Table(("phrase", "with the label", *_PROBED), asked)]  # fmt: skip
    for key, title in (("served", "Through the engines."), ("judge", "A judge model's preferences.")):
        facts = [
            (_words(name), _interval(value) if _pair(value) else _value(value))
            for name, value in _flat(_part(evaluation, key))
        ]
        if facts:
            blocks += [Text(title), _table(facts)]
    return blocks


_PROBED = ("rows", "asked", "followed")
_AGAINST_BASE = ("slice", "rows", "base model", "this adapter", "difference, 95% interval")
_FORGOTTEN = ("slice", "rows", "lost", "gained", "score lost, 95% interval")


def _lineage(adapter: Adapter, cycle: Cycle | None, events: Sequence[Event]) -> list[Block]:
    manifest = adapter.manifest
    facts = lineage(events)
    rows = [("base model's digest", adapter.base_digest)]
    if champion := _part(manifest, "job").get("champion"):
        rows.append(("champion that it was compared with", str(champion)))
    if cycle is not None:
        rows += [("cycle", cycle.id), ("opened by", str(cycle.trigger)), ("because", cycle.reason)]
        rows.append(("cycle's state", str(cycle.state)))
    if check := _part(facts, "alarm").get("drift_check"):
        rows.append(("drift check", str(check)))
    rows += [(name, str(manifest[name])) for name in ("code", "golden_digest") if name in manifest]
    rows += [(f"version of {name}", _value(value)) for name, value in _part(manifest, "packages").items()]
    blocks: list[Block] = [_table(rows)]
    if told := explanation(facts):
        blocks.insert(0, Text(told))
    return blocks


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    return Table(("", ""), rows)


def _part(value: Any, *path: str) -> Facts:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _slice(evaluation: Facts, key: str) -> Facts:
    return _part(evaluation, "golden") if key == "golden" else _part(evaluation, "heldout", key)


def _rows(value: Facts, key: str) -> list[Facts]:
    found = value.get(key)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, Sequence) else []


def _flat(value: Facts, before: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested facts with the way to them; lists stay whole."""
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        found += _flat(item, f"{before}{key} ") if isinstance(item, Mapping) else [(f"{before}{key}", item)]
    return found


def _points(curve: Any) -> list[tuple[float, float]]:
    rows = curve if isinstance(curve, Sequence) and not isinstance(curve, str) else ()
    return [(float(p[0]), float(p[1])) for p in rows if _pair(p)]


def _pair(value: Any) -> TypeGuard[Sequence[float]]:
    is_two = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return is_two and all(isinstance(v, int | float) and math.isfinite(v) for v in value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_value, value))
    return str(value)


def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "–"


def _delta(value: Any) -> str:
    return f"{100 * value:+.1f} points" if isinstance(value, int | float) else "–"


def _interval(value: Any) -> str:
    return f"{100 * value[0]:+.1f} to {100 * value[1]:+.1f} points" if _pair(value) else "–"
