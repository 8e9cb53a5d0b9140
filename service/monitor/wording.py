"""What moved, in words that a person can act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from service.monitor.evidence import Share
from service.monitor.features import Column
from service.monitor.scrub import scrub

_NAMES: Mapping[str, str] = {
    "prompt_chars": "Prompt length (characters)",
    "prompt_words": "Prompt length (words)",
    "prompt_tokens": "Prompt length (tokens)",
    "prompt_non_alphabetic": "Share of prompts' characters that are no letters",
    "prompt_word_variety": "Variety of words in prompts",
    "reply_chars": "Reply length (characters)",
    "reply_words": "Reply length (words)",
    "reply_tokens": "Reply length (tokens)",
    "confidence": "The replies' confidence",
    "refusal": "Share of replies that refuse",
}
_EXAMPLES = 3
_FEW = 0.05


def mean_moved(column: str, reference: Column, current: Column) -> str:
    """How a numeric feature moved; where its mean stayed, its spread did."""
    name = _NAMES.get(column, column)
    before, after = float(np.nanmean(reference)), float(np.nanmean(current))
    spread, spread_after = float(np.nanstd(reference)), float(np.nanstd(current))
    if abs(after - before) < 0.1 * spread:
        return f"{name} stayed at {after:.3g} on average; its spread went from ±{spread:.2g} to ±{spread_after:.2g}."
    return f"{name} {'rose' if after > before else 'fell'} from {before:.3g} to {after:.3g} on average."


def evidence_told(shares: Sequence[Share], lone: str | None) -> str:
    """What the evidence of single requests rests on; `lone`: the one client that it comes from."""
    if not shares:
        return "No request has been weighed yet."
    parts = ", ".join(f"{one.signal.told} ({one.part:.0%})" for one in shares[:_EXAMPLES] if one.part >= _FEW)
    if lone is not None:
        return f"Only the requests of one client ({scrub(lone, limit=40)}) look unlike the reference: {parts}."
    return f"Single requests look unlike the reference: {parts}."


def labels_told(lone: str | None) -> str:
    """What the evidence of labels rests on; `lone`: the one client that it comes from."""
    if lone is not None:
        return (
            f"Only the labels of one client ({scrub(lone, limit=40)}) say that replies are worse than the reference's."
        )
    return "Labelled replies are worse than the reference's."


def embedding_moved(reference: Column, current: Column) -> str:
    """The share of requests unlike the reference. Texts are for the topics: reasons go into the audit log, for ever."""
    edge = float(np.nanquantile(reference, 0.99))
    beyond = np.flatnonzero(np.nan_to_num(current, nan=-np.inf) > edge)
    share = len(beyond) / max(1, len(current))
    told = f"Embedding: {share:.0%} of current requests lie beyond the reference's 99th percentile"
    if share < _FEW:
        return f"{told}; the mean distance went from {np.nanmean(reference):.2f} to {np.nanmean(current):.2f}."
    return f"{told}."


def reply_moved(reference: Sequence[str], current: Sequence[str], other: str) -> str:
    """The reply whose share moved most."""
    before, after = Counter(reference), Counter(current)
    shares = {name: (before[name] / len(reference), after[name] / len(current)) for name in {*before, *after}}
    name = max(sorted(shares), key=lambda key: abs(shares[key][1] - shares[key][0]))
    was, now = shares[name]
    what = "Replies other than the reference's frequent ones" if name == other else f"Reply “{scrub(name, limit=40)}”"
    return f"{what} went from {was:.0%} to {now:.0%} of all."
