"""The choice among engines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from service.core.records import Alias, EngineView
from service.core.routing import RoutingTable
from service.gateway.table import Routes


def test_the_least_loaded_engine_is_chosen_and_ties_are_shared():
    routes = Routes()
    routes.entered("a")
    assert {routes.pick(("a", "b"), 0.0) for _ in range(5)} == {"b"}
    routes.left("a")
    shares = Counter(routes.pick(("a", "b"), 0.0) for _ in range(100))
    assert shares == {"a": 50, "b": 50}


def test_an_engine_that_failed_is_passed_over_for_a_moment():
    routes = Routes()
    routes.suspect("a", 10.0)
    routes.entered("b")
    assert routes.pick(("a", "b"), 10.5) == "b"
    assert routes.pick(("a", "b"), 11.5) == "a"
    assert routes.pick(("a",), 10.5) == "a"


def test_an_engine_that_does_not_answer_is_passed_over():
    routes = Routes()
    routes.probed("a", False)
    routes.entered("b")
    assert routes.pick(("a", "b"), 0.0) == "b"
    assert routes.pick(("a",), 0.0) == "a"
    routes.probed("a", True)
    assert routes.pick(("a", "b"), 0.0) == "a"


def test_engines_already_tried_are_left_out():
    routes = Routes()
    assert routes.pick(("a", "b"), 0.0, ["a"]) == "b"
    assert routes.pick(("a",), 0.0, ["a"]) is None


def test_an_equal_table_is_no_change():
    routes = Routes()
    assert routes.swap(RoutingTable(), 1.0)
    assert not routes.swap(RoutingTable(), 2.0)
    assert routes.confirmed_at == 2.0


def test_a_conversation_returns_to_its_engine_and_conversations_spread():
    routes, engines = Routes(), ("a", "b", "c")
    homes = [routes.pick(engines, 0.0, conversation=bytes([n, 1])) for n in range(200)]
    assert homes == [routes.pick(engines, 5.0, conversation=bytes([n, 1])) for n in range(200)]
    assert min(Counter(homes).values()) > 40


def test_only_the_conversations_of_a_lost_engine_move():
    routes = Routes()
    before = {n: routes.pick(("a", "b", "c"), 0.0, conversation=bytes([n])) for n in range(200)}
    after = {n: routes.pick(("a", "b"), 0.0, conversation=bytes([n])) for n in range(200)}
    assert all(after[n] == home for n, home in before.items() if home != "c")


def test_a_conversation_leaves_an_engine_that_is_busier_than_the_others():
    routes = Routes()
    home = routes.pick(("a", "b"), 0.0, conversation=b"x")
    other = "b" if home == "a" else "a"
    for _ in range(10):
        routes.entered(home)
        routes.entered(other)
    assert routes.pick(("a", "b"), 0.0, conversation=b"x") == home
    for _ in range(10):
        routes.entered(home)
    assert routes.pick(("a", "b"), 0.0, conversation=b"x") == other


def test_a_conversation_does_not_stay_with_a_failed_engine():
    routes = Routes()
    home = routes.pick(("a", "b"), 0.0, conversation=b"x")
    routes.suspect(home, 0.0)
    assert routes.pick(("a", "b"), 0.5, conversation=b"x") != home
    assert routes.pick(("a", "b"), 1.5, conversation=b"x") == home


ONE, TWO = "support@111111111111", "support@222222222222"
RESIDENT = frozenset({ONE, TWO})


def table(champion: str, previous: str | None, flipped_at: float, resident: frozenset[str] = RESIDENT) -> RoutingTable:
    alias = Alias("support", champion, previous, reference_since=flipped_at)
    return RoutingTable({"support": alias}, engines=(EngineView("http://e", True, resident, 0.0, "base"),))


def champion(routes: Routes, now: float) -> str:
    found = routes.at(now)
    assert found is not None
    return found.aliases["support"].champion


@pytest.mark.parametrize("seen_at", [100.0, 100.2, 100.49])
def test_all_gateways_follow_a_flip_at_one_moment_whenever_they_see_it(seen_at):
    routes = Routes(settle_s=0.5)
    routes.swap(table(ONE, None, 50.0), 99.9)
    routes.swap(table(TWO, ONE, 100.0), seen_at)
    assert champion(routes, seen_at) == champion(routes, 100.49) == ONE
    assert champion(routes, 100.5) == TWO


def test_who_sees_a_flip_late_follows_at_once():
    routes = Routes(settle_s=0.5)
    routes.swap(table(ONE, None, 50.0), 99.9)
    routes.swap(table(TWO, ONE, 100.0), 101.0)
    assert champion(routes, 101.0) == TWO


def test_a_gateway_that_starts_within_a_flip_waits_as_the_others_do():
    routes = Routes(settle_s=0.5)
    routes.swap(table(TWO, ONE, 100.0), 100.1)
    assert champion(routes, 100.1) == ONE
    assert champion(routes, 100.6) == TWO


def test_a_poll_without_news_settles_too():
    routes = Routes(settle_s=0.5)
    flipped = table(TWO, ONE, 100.0)
    routes.swap(flipped, 100.1)
    assert not routes.swap(flipped, 100.6)
    assert routes.table == flipped


def test_taken_back_before_it_settled_a_flip_never_was():
    routes = Routes(settle_s=0.5)
    routes.swap(table(ONE, None, 50.0), 99.9)
    routes.swap(table(TWO, ONE, 100.0), 100.1)
    routes.swap(table(ONE, TWO, 100.3), 100.35)
    assert [champion(routes, at) for at in (100.35, 100.6, 100.9)] == [ONE] * 3


def test_a_clock_behind_does_not_hold_a_flip_up():
    routes = Routes(settle_s=0.5)
    routes.swap(table(ONE, None, 50.0), 89.9)
    routes.swap(table(TWO, ONE, 100.0), 90.0)
    assert champion(routes, 90.4) == ONE
    assert champion(routes, 90.5) == champion(routes, 100.2) == TWO


def test_what_no_engine_holds_any_more_is_not_waited_for():
    routes = Routes(settle_s=0.5)
    routes.swap(table(ONE, None, 50.0), 99.9)
    routes.swap(table(TWO, ONE, 100.0, frozenset({TWO})), 100.1)
    assert champion(routes, 100.1) == TWO


def test_other_changes_are_followed_at_once():
    routes = Routes(settle_s=0.5)
    routes.swap(table(TWO, ONE, 100.0), 200.0)
    routes.swap(replace(table(TWO, ONE, 100.0), adapters={TWO: "support"}), 200.1)
    assert champion(routes, 200.1) == TWO
    assert routes.table is not None
    assert routes.table.adapters
