"""Whether a shadow request may run now: what a gateway sees of an engine → why not yet, or None."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from service.core.names import BASE

YIELD_RATIO = 2.0
"""A shadow that runs goes on until clients are so many times as many as one may begin beside. To break it off at the
first client too many costs more than it saves: lulls are short, and the same work is then done again and again."""


class Hold(StrEnum):
    """Why a shadow does not run; also a label of the metric that counts those that never did."""

    QUEUE_FULL = "queue_full"
    NO_ENGINE = "no_engine"
    ENGINE_BUSY = "engine_busy"
    CONCURRENCY = "concurrency"
    TOKEN_BUDGET = "token_budget"
    LORA_SLOTS = "lora_slots"


@dataclass(frozen=True, slots=True)
class EngineUse:
    """One engine as this gateway sees it.

    `live` counts the requests of clients there, `load_average` is how many there were lately, `adapters` are those that
    clients use or used a moment ago; `shadows` and `candidates` are the same for shadow requests.
    """

    live: int = 0
    load_average: float = inf
    adapters: frozenset[str] = frozenset()
    shadows: int = 0
    candidates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """For each engine: clients beside which a shadow may begin, shadows at once, adapters that one batch can hold."""

    max_live: float
    max_shadows: int
    lora_slots: int


def hold(use: EngineUse, limits: ShadowLimits, candidate: str) -> Hold | None:
    """Why a request to `candidate` may not begin on this engine now.

    However few clients are there, it waits until they are no more than usual: the tail of their latency is made where
    they crowd, and a shadow would lengthen it there.
    """
    if use.live > limits.max_live or _crowded(use):
        return Hold.ENGINE_BUSY
    if use.shadows >= limits.max_shadows:
        return Hold.CONCURRENCY
    if not _fits(use, limits, use.candidates | {candidate}):
        return Hold.LORA_SLOTS
    return None


def must_yield(use: EngineUse, limits: ShadowLimits) -> bool:
    """Whether the shadows that run on this engine have come to stand in the clients' way."""
    return use.live > YIELD_RATIO * limits.max_live or not _fits(use, limits, use.candidates)


def _crowded(use: EngineUse) -> bool:
    """By half a request at least: who keeps a constant number there makes no crowd because one has just paused."""
    return use.live >= use.load_average + 0.5


def _fits(use: EngineUse, limits: ShadowLimits, candidates: frozenset[str]) -> bool:
    """vLLM runs at most `lora_slots` adapters in a batch: one more evicts another, or waits until its requests end."""
    extra = candidates - use.adapters - {BASE}
    return not extra or len((use.adapters - {BASE}) | extra) <= limits.lora_slots


class LoadAverage:
    """How many requests of clients an engine has: the mean of the first `looks`, then weighted exponentially."""

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._seen = 0
        self.value = 0.0

    def see(self, live: int) -> None:
        self._seen = min(self._seen + 1, self._looks)
        self.value += (live - self.value) / self._seen


class TokenBudget:
    """Tokens that shadows may use: each token of a client's earns `ratio`, and at most `cap` are kept.

    A shadow is charged what its client's request took when it begins, and the difference when it has ended.
    """

    def __init__(self, ratio: float, cap: float) -> None:
        self._ratio = ratio
        self._cap = cap
        self._level = cap

    def earn(self, tokens: int) -> None:
        self._level = min(self._cap, self._level + self._ratio * tokens)

    def allows(self, tokens: int) -> bool:
        """Whether so many can be had; a request larger than all that can be kept may overdraw a full budget."""
        return self._level >= min(tokens, self._cap)

    def charge(self, tokens: int) -> None:
        """Take tokens, or give back what was not used (negative)."""
        self._level = min(self._cap, self._level - tokens)
