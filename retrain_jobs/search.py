"""Which settings learn best, found by trials within a budget of time; what was tried survives a kill.

Optuna's TPE proposes (Bergstra et al., 2011), and a trial that falls behind the median of the others is given up. The
first trial has the settings as they are, so that a search ends with others only if those did better.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from service.settings import RetrainSettings

log = logging.getLogger(__name__)

TRIALS = 6
"""So many trials of full length fit into the budget; trainings that end sooner leave time for more."""

DROPOUTS = (0.0, 0.05, 0.1)
RATE_SPAN = 4.0
"""The learning rate is looked for from a quarter of the first one to its fourfold."""

Settings = Mapping[str, float]
"""learning_rate, rank, dropout."""


class End(StrEnum):
    DONE = "done"
    BEHIND = "behind"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """What was tried, and the least loss on the rows that judge (nats a token); None where it did not end."""

    settings: Settings
    loss: float | None
    end: End


@dataclass(frozen=True, slots=True)
class Found:
    """The trials so far, in order, and how long they took."""

    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0

    @property
    def best(self) -> int | None:
        """The place of the least loss; of equal ones the first."""
        losses = [(one.loss, place) for place, one in enumerate(self.trials) if one.loss is not None]
        return min(losses)[1] if losses else None


class Notebook:
    """The trials of a search on disk, so that a job that is started again goes on with it; another `key`, and it does
    not."""

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self._key = key

    def read(self) -> Found:
        if self._path is None:
            return Found()
        try:
            content = json.loads(self._path.read_text("utf-8"))
            if content["key"] != self._key:
                return Found()
            trials = tuple(Trial(one["settings"], one["loss"], End(one["end"])) for one in content["trials"])
            return Found(trials, float(content["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Found()

    def write(self, found: Found) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        content = {"key": self._key, "trials": [asdict(one) for one in found.trials], "seconds": found.seconds}
        draft.write_text(json.dumps(content), "utf-8")
        draft.replace(self._path)


Behind = Callable[[int, float], bool]
"""Told each judging's step and loss; whether the trial is to be given up."""

Attempt = Callable[[Settings, float, Behind], Trial]
"""Trains with the settings for at most so many seconds."""


def search(
    attempt: Attempt, first: Settings, ranks: Sequence[int], budget_s: float, notebook: Notebook, *, seed: int,
    clock: Callable[[], float] = time.monotonic,
) -> Found:  # fmt: skip
    """Try settings until the budget is used up; what `notebook` holds counts towards it. `first` is always tried."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = notebook.read()
    space = _space(first, ranks)
    # One that goes on must not propose again what it began with.
    sampler = optuna.samplers.TPESampler(seed=seed + len(found.trials))
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner(n_startup_trials=3))
    for known in found.trials:
        if known.loss is not None:
            told = optuna.trial.create_trial(params=dict(known.settings), distributions=space, value=known.loss)
            study.add_trial(told)
    if not found.trials:
        study.enqueue_trial(dict(first))
    a_trial = budget_s / TRIALS
    while not found.trials or budget_s - found.seconds >= a_trial / 2:
        began = clock()
        trial = study.ask(space)

        def behind(step: int, loss: float, trial: Any = trial) -> bool:
            trial.report(loss, step)
            return bool(trial.should_prune())

        done = attempt(dict(trial.params), min(a_trial, budget_s - found.seconds), behind)
        if done.loss is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, done.loss)
        found = Found((*found.trials, done), found.seconds + clock() - began)
        notebook.write(found)
        log.info("trial %d: %s: %s, loss %s", len(found.trials), told_settings(done.settings), done.end, done.loss)
    return found


def _space(first: Settings, ranks: Sequence[int]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    rate = first["learning_rate"]
    return {
        "learning_rate": FloatDistribution(rate / RATE_SPAN, rate * RATE_SPAN, log=True),
        "rank": CategoricalDistribution(sorted({*ranks, int(first["rank"])})),
        "dropout": CategoricalDistribution(sorted({*DROPOUTS, first["dropout"]})),
    }


def chosen(knobs: RetrainSettings, settings: Settings) -> RetrainSettings:
    """The settings with those of a trial; alpha keeps its proportion to the rank."""
    rank = int(settings["rank"])
    alpha = max(1, round(knobs.alpha * rank / knobs.rank))
    return knobs.model_copy(update={**settings, "rank": rank, "alpha": alpha})


def told_settings(settings: Settings) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in settings.items())
