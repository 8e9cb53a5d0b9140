"""Scorers of an alias's owner, by import path: `package.module:function` takes (reply, expected), returns a share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from service.core import scoring
from service.core.errors import ConfigError
from service.drivers.plugins import load_function
from service.settings import Settings

log = logging.getLogger(__name__)

_told: set[str] = set()


def score(
    scorer: str, reply: str, expected: str | None, rating: float | None, pattern: str | None = None
) -> float | None:
    """`core.scoring.score`, for scorers by import path too.

    Raises:
        ConfigError: the function is not there, or fails on this reply; the message says how.
    """
    if ":" not in scorer:
        return scoring.score(scorer, reply, expected, rating, pattern)
    if expected is None:  # only a rating may be left, and that is no scorer's affair
        return scoring.score("exact", reply, None, rating)
    try:
        value = load_scorer(scorer)(reply, expected)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The scorer {scorer} failed on a reply ({type(error).__name__}: {error}); mend it."
        ) from error
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ConfigError(
            f"The scorer {scorer} returned {value!r}; it must return a number from 0 (wrong) to 1 (right)."
        )
    return float(value)


def score_or_none(
    scorer: str, reply: str, expected: str | None, rating: float | None, pattern: str | None = None
) -> float | None:
    """For live traffic: a reply on which the owner's function fails has no score, and the log says so once.

    Evidence that lacks a score promotes nothing, while an error here would keep all other aliases waiting.
    """
    try:
        return score(scorer, reply, expected, rating, pattern)
    except ConfigError as error:
        if scorer not in _told:
            _told.add(scorer)
            log.warning("%s Such replies are not scored.", error.message)
        return None


def load_scorer(path: str) -> Callable[..., Any]:
    """Import the function. Raises ConfigError when it is not there."""
    return load_function(path, "scorer")


def check_scorers(settings: Settings) -> None:
    """Raise ConfigError where an alias names a function that is not there: retraining would find out only then."""
    for alias in settings.aliases.values():
        if ":" in alias.scorer:
            load_scorer(alias.scorer)
