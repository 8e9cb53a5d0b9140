"""What clients have at an engine is counted at both ends, and an adapter's use is remembered for a while."""

from __future__ import annotations

from service.gateway.occupancy import IN_USE_S, Occupancy


def test_requests_are_counted_engine_by_engine():
    seen = Occupancy()
    seen.entered("a", "one")
    seen.entered("a", "two")
    seen.entered("b", "one")
    seen.left("a", "two", now=0.0)
    assert (seen.live("a"), seen.live("b"), seen.live("c")) == (1, 1, 0)


def test_an_adapter_is_in_use_until_a_while_after_its_last_request():
    seen = Occupancy()
    seen.entered("a", "one")
    seen.entered("a", "two")
    seen.left("a", "two", now=100.0)
    assert seen.adapters("a", 100.0 + IN_USE_S) == {"one", "two"}
    assert seen.adapters("a", 101.0 + IN_USE_S) == {"one"}
    seen.entered("a", "two")
    assert seen.adapters("a", 1e9) == {"one", "two"}
    assert seen.adapters("b", 0.0) == frozenset()
