"""A shadow runs only where it takes nothing from clients: turn, adapter slot, tokens."""

from __future__ import annotations

import pytest

from service.core.names import BASE
from service.core.shadow import EngineUse, Hold, ShadowLimits, TokenBudget, hold, must_yield

NEW = "support@222222222222"
OLD = "support@111111111111"
LIMITS = ShadowLimits(max_live=4, max_shadows=2, lora_slots=2)


def use(live: int = 0, *adapters: str, shadows: int = 0, candidates: tuple[str, ...] = ()) -> EngineUse:
    return EngineUse(live, frozenset(adapters), shadows, frozenset(candidates))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (use(), None),
        (use(4, OLD), None),
        (use(5, OLD), Hold.ENGINE_BUSY),
        (use(1, OLD, shadows=1, candidates=(NEW,)), None),
        (use(1, OLD, shadows=2, candidates=(NEW,)), Hold.CONCURRENCY),
        (use(1, OLD, "sales@333333333333"), Hold.LORA_SLOTS),
        (use(0, OLD, "sales@333333333333"), Hold.LORA_SLOTS),
        (use(1, OLD, BASE), None),
        (use(1, OLD, NEW), None),
        (use(1, OLD, shadows=1, candidates=("sales@444444444444",)), Hold.LORA_SLOTS),
        (use(1, OLD, shadows=1, candidates=(BASE,)), None),
        (use(1, OLD, NEW, "sales@333333333333"), None),
    ],
)
def test_why_a_shadow_may_not_begin(seen, why):
    assert hold(seen, LIMITS, NEW) is why


def test_a_shadow_of_the_base_model_needs_no_slot():
    assert hold(use(1, OLD, "sales@333333333333"), LIMITS, BASE) is None


@pytest.mark.parametrize(
    ("seen", "yields"),
    [
        (use(5, OLD, shadows=1, candidates=(NEW,)), False),
        (use(8, OLD, shadows=1, candidates=(NEW,)), False),
        (use(9, OLD, shadows=1, candidates=(NEW,)), True),
        (use(1, OLD, "sales@333333333333", shadows=1, candidates=(NEW,)), True),
        (use(1, OLD, "sales@333333333333", shadows=1, candidates=(OLD,)), False),
    ],
)
def test_running_shadows_yield_when_clients_come_or_need_the_slot(seen, yields):
    assert must_yield(seen, LIMITS) is yields


def test_clients_tokens_earn_those_of_shadows():
    budget = TokenBudget(0.5, cap=100)
    budget.charge(100)
    assert not budget.allows(1)
    budget.earn(60)
    assert budget.allows(30)
    assert not budget.allows(31)


def test_what_was_not_used_is_given_back_and_what_was_used_beyond_is_owed():
    budget = TokenBudget(1.0, cap=100)
    budget.charge(80)
    budget.charge(-50)
    assert budget.allows(70)
    budget.charge(200)
    budget.earn(100)
    assert not budget.allows(1)


def test_a_budget_keeps_no_more_than_its_cap_and_a_large_request_may_overdraw_a_full_one():
    budget = TokenBudget(1.0, cap=100)
    budget.earn(1000)
    assert budget.allows(5000)
    budget.charge(101)
    assert not budget.allows(1)
