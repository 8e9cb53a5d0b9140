"""The trials of a search on a job's own rows, which never include those that will judge the candidate.

The held-out rows judge the candidate, so they may not choose for it: the newest part of the training rows is set aside,
trials learn from the rest and are judged on that part. Then the chosen settings learn from all training rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from retrain_jobs.augment import origin
from retrain_jobs.base import Base
from retrain_jobs.encode import Encoded, encode
from retrain_jobs.examples import Example, digest
from retrain_jobs.likeness import NearIndex, prompt_text
from retrain_jobs.manifest import code_version, recorded_settings
from retrain_jobs.recipes import sft_lora
from retrain_jobs.recipes.bare import take_out_lora
from retrain_jobs.recipes.objective import Likelihood
from retrain_jobs.search import Behind, End, Notebook, Settings, Trial, chosen, search, told_settings
from retrain_jobs.strata import split
from retrain_jobs.tasks import draw_of
from retrain_jobs.work import Work
from service.core.errors import Conflict
from service.drivers.base_model import base_digest

log = logging.getLogger(__name__)

JUDGES = 0.2
"""Of the training rows, set aside to judge trials."""

FEWEST_JUDGES = 8
RANKS = (4, 8, 16, 32, 64)

OnShare = Callable[[float, str], None]
"""Told the share of the budget that is spent (0..1) and what a person wants to see; what it raises ends the search."""


def set_aside(rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The rows for trials to learn from, and the newest of each slice and target that are to judge: none of these
    nearly says what one of those does."""
    learned, judges = split(rows, JUDGES)
    index = NearIndex(prompt_text(row.prompt) for row in learned)
    return learned, [row for row in judges if prompt_text(row.prompt) not in index]


def searched(work: Work, base: Base, config: sft_lora.Config, on_share: OnShare) -> tuple[Work, Mapping[str, Any]]:
    """The work with the settings that a search of `retrain.search_s` found, and its record for the manifest."""
    knobs = work.settings.retrain
    learned, judges = set_aside(work.dataset.train)
    record: dict[str, Any] = {"learned": len(learned), "judged_on": len(judges), "trials": [], "chosen": None}
    if len(judges) < FEWEST_JUDGES:
        log.warning("no search: %d rows could judge trials, %d are needed", len(judges), FEWEST_JUDGES)
        return work, record
    key = digest([
        work.dataset.digest, recorded_settings(knobs), knobs.search_s, config.model_dump(mode="json"),
        base_digest(work.settings.model), code_version(),
    ])  # fmt: skip
    notebook = Notebook(work.checkpoint and work.checkpoint.with_suffix(".search.json"), key)
    first = {
        "learning_rate": knobs.learning_rate or sft_lora.learning_rate(base),
        "rank": knobs.rank,
        "dropout": knobs.dropout,
    }
    ranks = [rank for rank in RANKS if rank <= work.settings.engine.max_lora_rank]
    trainer = _Trainer(work, base, config, learned, judges, on_share)
    found = search(trainer, first, ranks, knobs.search_s, notebook, seed=knobs.seed)
    record |= {"trials": [asdict(one) for one in found.trials], "chosen": found.best}
    if found.best is None:
        log.warning("no trial of %d ended; the settings stay as they are", len(found.trials))
        return work, record
    best = found.trials[found.best]
    log.info("of %d trials the best: %s, loss %.4f", len(found.trials), told_settings(best.settings), best.loss)
    settings = work.settings.model_copy(update={"retrain": chosen(knobs, best.settings)})
    return replace(work, settings=settings), record


class _GivenUp(Exception):
    pass


class _Trainer:
    """Trains one trial after another on the same base model, and leaves it as it was."""

    def __init__(
        self, work: Work, base: Base, config: sft_lora.Config, learned: Sequence[Example], judges: Sequence[Example],
        on_share: OnShare,
    ) -> None:  # fmt: skip
        ids = {row.request_id for row in learned}
        variants = [one for one in work.dataset.variants if origin(one) in ids]
        fitting = [(row, found) for row in (*learned, *variants) if (found := _encoded(base, row)) is not None]
        self._rows = [row for row, _ in fitting]
        self._tokens = [found for _, found in fitting]
        self._judges = [found for row in judges if (found := _encoded(base, row)) is not None]
        self._work, self._base, self._config, self._on_share = work, base, config, on_share
        self._losses: list[float] = []
        self._count = 0
        self._began = time.monotonic()

    def __call__(self, settings: Settings, seconds: float, behind: Behind) -> Trial:
        knobs = chosen(self._work.settings.retrain, settings)
        knobs = knobs.model_copy(update={"max_seconds": min(seconds, knobs.max_seconds)})
        self._count += 1
        judged = 0

        def on_step(_: float, detail: Mapping[str, Any]) -> None:
            nonlocal judged
            self._tell()
            losses = detail["curve"]["heldout"]
            if len(losses) > judged:
                judged = len(losses)
                if behind(*losses[-1]):
                    raise _GivenUp

        try:
            _, curve = sft_lora.train(
                self._base, Likelihood(self._tokens), self._judges, knobs, self._config, self._work.scratch, on_step,
                draw=draw_of(self._rows, knobs.task_temperature, knobs.seed),
            )  # fmt: skip
        except _GivenUp:
            return Trial(settings, None, End.BEHIND)
        except Conflict as error:
            log.info("a trial failed: %s", error.message)
            return Trial(settings, None, End.FAILED)
        finally:
            take_out_lora(self._base.model)
        self._losses.append(round(min(loss for _, loss in curve.heldout), 6))
        return Trial(settings, self._losses[-1], End.DONE)

    def _tell(self) -> None:
        share = (time.monotonic() - self._began) / self._work.settings.retrain.search_s
        least = f", least loss {min(self._losses):.3g}" if self._losses else ""
        self._on_share(min(1.0, share), f"trial {self._count} of settings{least}")


def _encoded(base: Base, row: Example) -> Encoded | None:
    return encode(base, row.messages(), row.target)
