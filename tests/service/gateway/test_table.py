"""The choice among engines."""

from __future__ import annotations

from collections import Counter

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
