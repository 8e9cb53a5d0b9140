"""Requests in a language that is not to be learned from. What does not clearly tell its language stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from retrain_jobs.examples import Example
from service.core.errors import ConfigError

UNLIKELY = 0.05
"""A request is foreign where all languages asked for are less likely than this together,"""
LIKELY = 0.3
"""and one other is at least so likely: of two words every language is unlikely."""


def foreign(rows: Sequence[Example], languages: Sequence[str]) -> list[Example]:
    """The rows whose newest user message is in none of `languages` (ISO 639 codes; none: every one will do)."""
    return [row for row in rows if _is_foreign(_asked(row), frozenset(languages))] if languages else []


def check_languages(languages: Sequence[str]) -> None:
    """Raise ConfigError where a code is none of those that can be told apart."""
    known = sorted(set(_identifier().labels) - {"zxx"}) if languages else []
    for code in languages:
        if code not in known:
            raise ConfigError(
                f"retrain.languages: {code!r} is not among the languages that are told apart: {', '.join(known)}.",
                param="retrain.languages",
            )


def _asked(row: Example) -> str:
    return next((turn.content for turn in reversed(row.prompt) if turn.role == "user"), "")


def _is_foreign(text: str, languages: frozenset[str]) -> bool:
    found = _identifier().rank(text)
    wanted = sum(likely for language, likely in found if language in languages)
    most, likely = found[0]
    return wanted < UNLIKELY and likely >= LIKELY and most not in languages


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """langid.py's naive Bayes over n-grams of bytes (Lui and Baldwin, ACL 2012), as py3langid trained it anew."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
