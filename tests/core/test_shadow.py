"""A shadow runs only where it takes nothing from clients: turn, adapter slot, tokens."""

from __future__ import annotations

import pytest

from service.core.names import BASE
from service.core.shadow import EngineUse, Hold, LoadAverage, ShadowLimits, TokenBudget, hold, must_yield

NEW = "support@222222222222"
OLD = "support@111111111111"
LIMITS = ShadowLimits(max_live=4, max_shadows=2, lora_slots=2)


def use(live: int = 0, *adapters: str, shadows: int = 0, candidates: tuple[str, ...] = ()) -> EngineUse:
    return EngineUse(live, adapters=frozenset(adapters), shadows=shadows, candidates=frozenset(candidates))


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


@pytest.mark.parametrize(
    ("live", "load_average", "why"),
    [
        (1, 1.2, None),
        (2, 1.2, Hold.ENGINE_BUSY),
        (1, 0.9, None),
        (1, 0.2, Hold.ENGINE_BUSY),
        (0, 0.0, None),
        (3, 3.4, None),
        (4, 3.4, Hold.ENGINE_BUSY),
        (5, 60.0, Hold.ENGINE_BUSY),
    ],
)
def test_a_shadow_waits_for_a_lull_in_the_usual_load(live, load_average, why):
    assert hold(EngineUse(live, load_average=load_average), LIMITS, NEW) is why


def test_the_load_average_begins_with_the_mean_and_follows_what_comes():
    load = LoadAverage(looks=4)
    seen = []
    for live in (2, 4, 3, 3, 7, 7):
        load.see(live)
        seen.append(load.value)
    assert seen == [2.0, 3.0, 3.0, 3.0, 4.0, 4.75]


@pytest.mark.parametrize("usual", [1, 32])
def test_a_constant_crowd_does_not_starve_shadows(usual):
    load = LoadAverage(looks=250)
    limits = ShadowLimits(max_live=64, max_shadows=2, lora_slots=2)
    begun = 0
    for look in range(1000):
        live = usual - (look % 5 == 0)  # each look in five meets one between two requests
        load.see(live)
        begun += hold(EngineUse(live, load_average=load.value), limits, NEW) is None
    assert begun >= 700


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
