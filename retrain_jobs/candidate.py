"""Make one candidate: encode, train, save; evaluate it beside the champion. Importing this imports torch and TRL."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from retrain_jobs.attempts import Attempt, best_of, starts
from retrain_jobs.base import Base, load_base
from retrain_jobs.dataset import Dataset, without
from retrain_jobs.encode import Encoded, encode
from retrain_jobs.enough import require_enough
from retrain_jobs.evaluate import evaluate, questions
from retrain_jobs.examples import Example, Reason
from retrain_jobs.items import Item, items_of, sample
from retrain_jobs.known_replies import KnownReplies
from retrain_jobs.known_scores import KnownScores
from retrain_jobs.manifest import manifest
from retrain_jobs.publish import save_adapter
from retrain_jobs.recipes import dpo_lora, kto_lora, sft_lora
from retrain_jobs.recipes.checkpoint import Checkpoint
from retrain_jobs.recipes.merged import merged
from retrain_jobs.recipes.objective import Likelihood, Objective
from retrain_jobs.recipes.together import dismiss, size
from retrain_jobs.recipes.watch import Curve
from retrain_jobs.score import summary
from retrain_jobs.tasks import draw_of
from retrain_jobs.trials import searched
from retrain_jobs.trust import suspected
from retrain_jobs.work import Judged, Made, Report, Work
from service.core.merging import Merge
from service.core.names import BASE, parse_adapter
from service.core.records import JobPhase
from service.drivers.adapter_files import adapter_digest, read_adapter
from service.drivers.base_model import base_digest
from service.settings import Quantize, Recipe, WarmStart

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs"

KINDS: Mapping[Recipe, type[sft_lora.Config]] = {
    Recipe.SFT_LORA: sft_lora.Config,
    Recipe.DPO_LORA: dpo_lora.Config,
    Recipe.KTO_LORA: kto_lora.Config,
}


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter in `folder`, still over its base model in memory; `dataset` lacks what was too long.

    `start` is whose weights it began with and the held-out loss of each start that was tried; `parents` are the
    adapters whose weights went in.
    """

    model: Any
    base: Base
    base_digest: str
    config: sft_lora.Config
    dataset: Dataset
    tokens: Mapping[str, Encoded | None]
    curve: Curve
    folder: Path
    start: Mapping[str, Any] = field(default_factory=dict)
    parents: Sequence[str] = ()


def make(work: Work, report: Report, *, imported_s: float) -> Made:
    """Train on the dataset; `imported_s` is what importing took, for the record."""
    clock = _Clock()
    config = read_config(work.settings.retrain.recipe)
    quantize = work.settings.retrain.quantize
    base = load_base(work.settings.model, threads=work.threads, max_length=config.max_length, quantize=quantize)
    seconds = {"import": imported_s, "load": clock.lap()}
    searching: Mapping[str, Any] = {}
    knobs = work.settings.retrain
    before = knobs.search_s / (knobs.search_s + knobs.max_seconds)
    if knobs.search_s and work.merge is None:
        work, searching = searched(
            work, base, config, lambda share, doing: report(JobPhase.TRAINING, before * share, doing=doing)
        )
        seconds["search"] = clock.lap()
    if work.merge is None:
        made = fit(work, base, config, _After(report, before))
    else:
        made = merge(work, base, config, work.merge)
    processes = size()
    dismiss()
    seconds["train"] = clock.lap()
    items = items_of(base, made.dataset.heldout, made.tokens, work.golden)
    served = sample(items, knobs.served_rows, work.options.seed)
    return Made(
        made.folder,
        made.dataset,
        made.curve.summary()
        | {"start": made.start, "stage_seconds": {name: round(value, 2) for name, value in seconds.items()}},
        manifest(
            dataset=made.dataset,
            golden=work.golden,
            knobs=work.settings.retrain,
            config=config.model_dump(),
            spec=work.spec,
            base_digest=made.base_digest,
            threads=work.threads,
            pace=made.curve.pace,
            search=searching,
            start=made.start,
            parents=made.parents,
            processes=processes,
        ),
        partial(judge, work, made, items, served),
        questions(items, served),
    )


def judge(work: Work, made: Trained, items: Sequence[Item], served: Sequence[int], report: Report) -> Judged:
    """Evaluate the candidate beside champion and base, in PyTorch."""
    clock, knobs = _Clock(), work.settings.retrain
    cache = work.settings.state_dir / "cache"
    evaluation, expected = evaluate(
        made.model, made.base, work.champion, items, work.settings.alias(work.alias), seed=work.options.seed,
        served=served,
        known=KnownScores(cache / "base-scores" / work.alias, _of_base(made, knobs.quantize)),
        replies=KnownReplies(cache / "golden-replies" / work.alias), systems=_systems(work, made, knobs.quantize),
        on_share=lambda share: report(JobPhase.EVALUATING, share),
        pairs=_judging_pairs(made.base, made),
        suspects=(*made.dataset.triggers, *suspected(made.dataset.train)) if knobs.check_labels else None,
    )  # fmt: skip
    seconds = clock.lap()
    log.info("%s; %.1f s", summary({"golden": evaluation["golden"], **evaluation["heldout"]}), seconds)
    return Judged(evaluation, seconds, expected)


def _judging_pairs(base: Base, made: Trained) -> list[tuple[Encoded, Encoded]]:
    """The held-out corrections beside what they correct, as far as both fit."""
    found = [
        (made.tokens.get(row.request_id), encode(base, row.messages(), row.target))
        for row in made.dataset.judged_rejected
    ]
    return [(wanted, rejected) for wanted, rejected in found if wanted is not None and rejected is not None]


def _systems(work: Work, made: Trained, quantize: Quantize) -> tuple[str, str]:
    """Champion and candidate, each by all that makes its replies."""
    over = f"{made.base_digest[:12]}-{quantize}-{str(made.model.dtype).removeprefix('torch.')}"
    champion = BASE if work.champion is None else parse_adapter(str(work.spec["champion"])).digest12
    return f"{champion}-{over}", f"{adapter_digest(read_adapter(made.folder))[:12]}-{over}"


def _of_base(made: Trained, quantize: Quantize) -> str:
    """Whose replies those of the base model are: quantized, it says other things."""
    return made.base_digest if quantize is Quantize.NONE else f"{made.base_digest}-{quantize}"


def read_config(recipe: Recipe) -> sft_lora.Config:
    return KINDS[recipe].model_validate(yaml.safe_load((CONFIGS / f"{recipe}.yaml").read_text("utf-8")))


def goal(config: sft_lora.Config, wanted: Sequence[Encoded], rejected: Sequence[Encoded], *, seed: int) -> Objective:
    """What the recipe of this configuration trains for. For pairs, `wanted` and `rejected` are in the same order."""
    match config:
        case dpo_lora.Config():
            pairs = list(zip(wanted, rejected, strict=True))
            return dpo_lora.Pairs(pairs, config.beta, config.sft_weight, config.rate_ratio)
        case kto_lora.Config():
            return kto_lora.Thumbs(wanted, rejected, config.beta, config.rate_ratio, seed)
        case _:
            return Likelihood(wanted)


def fit(work: Work, base: Base, config: sft_lora.Config, report: Report, *, pace: Sequence[float] = ()) -> Trained:
    """Encode, train and save; with the `pace` of an earlier training it repeats that one."""
    rows = (*work.dataset.train, *work.dataset.heldout)
    tokens = {row.request_id: encode(base, row.messages(), row.target) for row in (*rows, *work.dataset.variants)}
    rejected = {row.request_id: encode(base, row.messages(), row.target) for row in work.dataset.rejected}
    too_long = [row for row in rows if tokens[row.request_id] is None]
    too_long += [row for row in work.dataset.rejected if rejected[row.request_id] is None]
    dataset = without(work.dataset, too_long, Reason.TOO_LONG)
    dataset = replace(dataset, variants=tuple(row for row in dataset.variants if tokens[row.request_id] is not None))
    require_enough(dataset, work.options)
    base_id = base_digest(work.settings.model)
    knobs = work.settings.retrain
    rows = (*dataset.train, *dataset.variants)
    learned = _fitting(rows, tokens), _fitting(dataset.rejected, rejected)
    order = starts(knobs.warm_start, work.champion)

    def attempt(start: WarmStart, seconds: float) -> Attempt:
        before = order.index(start)

        def told(share: float, detail: Mapping[str, Any]) -> None:
            report(JobPhase.TRAINING, (before + share) / len(order), start=str(start), **detail)

        model, curve = sft_lora.train(
            base, goal(config, *learned, seed=knobs.seed), _fitting(dataset.heldout, tokens),
            knobs.model_copy(update={"max_seconds": seconds}), config, work.scratch, told,
            start=work.champion if start is WarmStart.CHAMPION else None, pace=pace,
            checkpoint=_checkpoint(work, dataset, base_id, config, start),
            draw=draw_of(rows, knobs.task_temperature, knobs.seed),
        )  # fmt: skip
        folder = save_adapter(model, work.scratch / f"adapter-{start}", base_name=f"sha256:{base_id}")
        return Attempt(start, model, curve, folder)

    best, start = best_of(order, attempt, base, knobs.max_seconds)
    parents = [str(work.spec["champion"])] if best.start is WarmStart.CHAMPION else []
    return Trained(best.model, base, base_id, config, dataset, tokens, best.curve, best.folder, start, parents)


def merge(work: Work, base: Base, config: sft_lora.Config, asked: Merge) -> Trained:
    """Merge and save; the held-out rows only judge."""
    tokens = {row.request_id: encode(base, row.messages(), row.target) for row in work.dataset.heldout}
    too_long = [row for row in work.dataset.heldout if tokens[row.request_id] is None]
    dataset = without(work.dataset, too_long, Reason.TOO_LONG)
    base_id = base_digest(work.settings.model)
    model = merged(base, work.parents, asked, seed=work.settings.retrain.seed)
    folder = save_adapter(model, work.scratch / "adapter", base_name=f"sha256:{base_id}")
    return Trained(model, base, base_id, config, dataset, tokens, Curve(stop_reason="merged"), folder,
                   parents=asked.adapters)  # fmt: skip


def _checkpoint(
    work: Work, dataset: Dataset, base_id: str, config: sft_lora.Config, start: WarmStart
) -> Checkpoint | None:
    """Its key is what the training is made from: other rows, settings, code or base, and it begins anew."""
    if work.checkpoint is None:
        return None
    path = work.checkpoint if start is WarmStart.FRESH else work.checkpoint.with_suffix(f".{start}.pt")
    made_from = manifest(
        dataset=dataset, golden=(), knobs=work.settings.retrain, config=config.model_dump(), spec=work.spec,
        base_digest=base_id, threads=work.threads, processes=size(),
    )  # fmt: skip
    key = sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return Checkpoint(path, key, work.settings.retrain.checkpoint_s)


@dataclass(frozen=True, slots=True)
class _After:
    """Training's progress, of which the share `before` (0..1) was gone when it began."""

    report: Report
    before: float

    def __call__(self, phase: JobPhase, share: float, **detail: Any) -> None:
        self.report(phase, self.before + (1.0 - self.before) * share, **detail)


class _Clock:
    """Laps of monotonic time, in seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        before, self._last = self._last, time.monotonic()
        return self._last - before


def _fitting(rows: Sequence[Example], tokens: Mapping[str, Encoded | None]) -> list[Encoded]:
    return [found for row in rows if (found := tokens[row.request_id]) is not None]
