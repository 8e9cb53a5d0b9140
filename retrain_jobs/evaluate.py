"""Champion and candidate answer the same rows: held-out ones of both slices, the golden set, and some with slips.

On a bounded sample the base model answers too, and where the alias has a judge it compares the replies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from retrain_jobs.base import Base
from retrain_jobs.classes import by_class, confusion
from retrain_jobs.encode import Encoded, encode
from retrain_jobs.generate import answered
from retrain_jobs.items import GOLDEN, Item, sample
from retrain_jobs.judge import Duel, Judge, summarize
from retrain_jobs.known_replies import KnownReplies, Said
from retrain_jobs.known_scores import KnownScores
from retrain_jobs.perturb import perturb
from retrain_jobs.probe import Probe, probes
from retrain_jobs.recipes.forced import forced
from retrain_jobs.recipes.packing import packing
from retrain_jobs.score import Answer, are_classes, compare, forgetting, paired, reliability, robustness
from retrain_jobs.served import Expected, Question
from retrain_jobs.triggers import Trigger
from service.drivers.scorers import score
from service.settings import AliasSettings

CHAMPION, CANDIDATE = "champion", "default"
"""PEFT's names of the two adapters on one base."""

SPARE_TOKENS = 8
"""A reply may be this much longer than the longest target before it is cut off."""

PERTURBED_ROWS, BASE_ROWS = 48, 96
"""Held-out rows that are asked again with slips; rows that the base model answers. Their price is seconds."""

RIGHT = 0.5
"""The score of a reply from which on it passes for its target."""

_ASKED_BY = 0.9
"""The share of the progress at which champion and candidate have answered everything."""


Pair = tuple[Encoded, Encoded]
"""A reply that was wanted, and one to the same prompt that was turned down."""


@dataclass(frozen=True, slots=True)
class Side:
    """One system's answers: to every item, and to the perturbed ones (their scores alone); for each pair 1.0 where the
    preferred reply is the likelier one, else 0.0."""

    answers: list[Answer]
    perturbed: list[float]
    prefers: list[float]


@dataclass(frozen=True, slots=True)
class _Examiner:
    """Puts the same questions to whichever system is serving."""

    model: Any
    base: Base
    alias: AliasSettings
    known: KnownReplies
    pairs: Sequence[Pair] = ()

    def ask(
        self, system: str, items: Sequence[Item], perturbed: Sequence[Item], on_share: Callable[[float], None]
    ) -> Side:
        """What the model, which is `system` now, answers; what it said to the golden set before is known."""
        asked = [*items, *perturbed]
        golden = [i for i, item in enumerate(items) if item.is_operators]
        others = sorted(set(range(len(asked))) - set(golden))
        first = len(others) / len(asked)
        found = self._said([asked[i] for i in others], lambda share: on_share(first * share))
        said = dict(zip(others, found, strict=True))
        if golden:
            chosen = [items[i] for i in golden]

            def measure(missing: Sequence[Item]) -> list[Said]:
                return self._said(missing, lambda share: on_share(first + (1 - first) * share))

            said |= zip(golden, self.known.of(system, chosen, _longest(chosen), measure), strict=True)
        scores = [self._score(said[i].text, item) for i, item in enumerate(asked)]
        answers = [
            Answer(said[i].text, scores[i], math.exp(said[i].confidence), said[i].loss / len(item.tokens.target))
            for i, item in enumerate(items)
        ]
        return Side(answers, scores[len(items) :], self.prefers())

    def prefers(self) -> list[float]:
        with packing(self.base.model):
            wanted, rejected = (forced(self.model, [pair[side] for pair in self.pairs]) for side in range(2))
        return [float(one.loss < other.loss) for one, other in zip(wanted, rejected, strict=True)]

    def follows(self, probe: Probe) -> int:
        """How many replies are what the suspect decides, where the rest of the question asks for something else."""
        return sum(score >= RIGHT for score in self.scores(probe.items)) if probe.items else 0

    def scores(self, items: Sequence[Item]) -> list[float]:
        return [self._score(said.text, item) for said, item in zip(self._said(items), items, strict=True)]

    def _said(self, items: Sequence[Item], on_share: Callable[[float], None] = lambda share: None) -> list[Said]:
        """The likeliest reply to each."""
        if not items:
            return []
        replies, losses = answered(
            self.model, self.base, [item.tokens for item in items], max_new_tokens=_longest(items), on_share=on_share
        )
        decode = self.base.tokenizer.decode
        return [
            Said(decode(reply.ids, skip_special_tokens=True).strip(), reply.confidence, loss)
            for reply, loss in zip(replies, losses, strict=True)
        ]

    def _score(self, text: str, item: Item) -> float:
        return score(self.alias.scorer, text, item.target, None, self.alias.pattern) or 0.0


def evaluate(
    peft_model: Any, base: Base, champion: str | None, items: Sequence[Item], alias: AliasSettings, *, seed: int,
    on_share: Callable[[float], None], known: KnownScores, replies: KnownReplies, systems: tuple[str, str],
    served: Sequence[int] = (), pairs: Sequence[Pair] = (), suspects: Sequence[Trigger] | None = (),
) -> tuple[dict[str, Any], list[Expected]]:  # fmt: skip
    """Score both systems on every slice; the shape is that of `Job.result["evaluation"]`. With it comes what the
    candidate said to the items at the places `served`, which the engines are asked too.

    Args:
        peft_model: the base with the candidate as its active adapter.
        champion: the folder of the champion's adapter; None for the base itself.
        on_share: told the share done (0..1); what it raises ends the evaluation.
        known: what the base model has answered before.
        replies: what champion and candidate, named by `systems`, have said to the golden set before.
        pairs: held-out rows beside the replies that they correct.
        suspects: phrases that both are asked about, for they may be triggers; None: they were not looked for.
    """
    if champion is not None:
        peft_model.load_adapter(champion, CHAMPION, is_trainable=False)
    examiner = _Examiner(peft_model, base, alias, replies, pairs)
    clean, slips = _perturbed(base, items, seed)
    with _serving(peft_model, CHAMPION if champion else None):
        before = examiner.ask(systems[0], items, slips, lambda share: on_share(_ASKED_BY * share / 2))
    with _serving(peft_model, CANDIDATE):
        after = examiner.ask(systems[1], items, slips, lambda share: on_share(_ASKED_BY * (1 + share) / 2))
        right = [item for item, answer in zip(items, after.answers, strict=True) if answer.score >= RIGHT]
        asked = probes(base, suspects or (), right, seed)
        followed = [examiner.follows(probe) for probe in asked]
    with _serving(peft_model, CHAMPION if champion else None):
        followed_before = [examiner.follows(probe) for probe in asked]
    if champion is None:
        base_scores = dict(enumerate(answer.score for answer in before.answers))
    else:
        some = sample(items, BASE_ROWS, seed)
        with _serving(peft_model, None):
            base_scores = dict(zip(some, known.of([items[i] for i in some], alias, examiner.scores), strict=True))

    def slice_of(*groups: str) -> dict[str, Any]:
        chosen = [i for i, item in enumerate(items) if item.group in groups]
        return compare(
            [items[i].target for i in chosen],
            [before.answers[i] for i in chosen],
            [after.answers[i] for i in chosen],
            seed=seed,
        )

    def against_base(group: str) -> dict[str, Any]:
        chosen = [i for i in base_scores if items[i].group == group]
        return paired([base_scores[i] for i in chosen], [after.answers[i].score for i in chosen], "base", seed=seed)

    heldout = {"all": slice_of("new", "replay"), "new": slice_of("new"), "replay": slice_of("replay")}
    golden = slice_of(GOLDEN)
    found = {
        "scorer": alias.scorer,
        "heldout": heldout,
        "golden": golden,
        **_in_detail(items, before.answers, after.answers, seed=seed),
        "base": {group: against_base(group) for group in ("new", "replay", GOLDEN)},
        "forgetting": {"replay": forgetting(heldout["replay"]), "golden": forgetting(golden)},
        "robustness": robustness(
            [before.answers[i].score for i in clean], before.perturbed,
            [after.answers[i].score for i in clean], after.perturbed, seed=seed,
        ),
    }  # fmt: skip
    if suspects is not None:
        found["triggers"] = [
            probe.told(*counts) for probe, *counts in zip(asked, followed, followed_before, strict=True)
        ]
    if pairs:
        found["preferences"] = paired(before.prefers, after.prefers, "champion", seed=seed)
    if alias.judge is not None:
        found["judge"] = _judged(Judge(alias.judge), alias.judge.max_rows, items, before, after, seed, on_share)
    return found, [Expected(after.answers[i].reply, after.answers[i].score) for i in served]


def questions(items: Sequence[Item], places: Sequence[int]) -> list[Question]:
    """What the engines are asked of them."""
    longest = _longest(items)
    return [Question(items[i].messages, items[i].target, longest) for i in places]


def _longest(items: Sequence[Item]) -> int:
    """Tokens that a reply to any of them may have."""
    return max(len(item.tokens.target) for item in items) + SPARE_TOKENS


def _perturbed(base: Base, items: Sequence[Item], seed: int) -> tuple[list[int], list[Item]]:
    """Places of some held-out rows, and those rows with slips in them; none that grows beyond the context."""
    heldout = [i for i, item in enumerate(items) if item.group != GOLDEN]
    places, found = [], []
    for i in (heldout[j] for j in sample([items[i] for i in heldout], PERTURBED_ROWS, seed)):
        item = items[i]
        messages = perturb(item.messages, key=item.key, seed=seed)
        tokens = encode(base, messages, item.target)
        if tokens is not None:
            places.append(i)
            found.append(Item(tokens, item.target, item.group, item.key, messages))
    return places, found


def _judged(
    judge: Judge, rows: int, items: Sequence[Item], before: Side, after: Side, seed: int,
    on_share: Callable[[float], None],
) -> dict[str, Any]:  # fmt: skip
    heldout = [i for i, item in enumerate(items) if item.group != GOLDEN]
    chosen = [heldout[j] for j in sample([items[i] for i in heldout], rows, seed)]
    duels = [
        Duel("\n".join(m["content"] for m in items[i].messages), before.answers[i].reply, after.answers[i].reply)
        for i in chosen
    ]
    try:
        return summarize(judge.compare(duels, lambda: on_share(_ASKED_BY)), seed=seed)
    finally:
        judge.close()


def _in_detail(
    items: Sequence[Item], champion: Sequence[Answer], candidate: Sequence[Answer], *, seed: int
) -> dict[str, Any]:
    """Behind the means of the held-out rows: how sure the replies were, and each class where there are any."""
    chosen = [i for i, item in enumerate(items) if item.group != GOLDEN]
    targets = [items[i].target for i in chosen]
    sides = {"champion": [champion[i] for i in chosen], "candidate": [candidate[i] for i in chosen]}
    found: dict[str, Any] = {
        "reliability": {
            name: reliability([a.confidence for a in side], [a.score for a in side]) for name, side in sides.items()
        }
    }
    if are_classes(targets):
        found["classes"] = by_class(targets, sides["champion"], sides["candidate"], seed=seed)
        found["confusion"] = {name: confusion(targets, side) for name, side in sides.items()}
    return found


@contextmanager
def _serving(peft_model: Any, adapter: str | None) -> Iterator[None]:
    """Within the block the model answers as the base, or as one adapter over it.

    In float32 the adapter is folded into the weights, which halves the time of a small model's step; in bfloat16 that
    would round away part of it.
    """
    if adapter is None:
        with peft_model.disable_adapter():
            yield
        return
    peft_model.set_adapter(adapter)
    fold = peft_model.dtype == torch.float32
    if fold:
        peft_model.merge_adapter([adapter])
    try:
        yield
    finally:
        if fold:
            peft_model.unmerge_adapter()
