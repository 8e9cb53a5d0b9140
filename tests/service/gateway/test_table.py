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
