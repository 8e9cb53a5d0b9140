"""Names, shares and routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import BadRequest, NotFound, Unavailable
from service.core.names import BASE, adapter_name, check_alias, is_adapter, parse_adapter
from service.core.records import Alias, EngineView
from service.core.routing import RoutingTable, resolve
from service.core.sampling import in_share, position

OLD, NEW = "support@aaaaaaaaaaaa", "support@bbbbbbbbbbbb"


def engine(url: str, *resident: str, ready: bool = True) -> EngineView:
    return EngineView(url, ready, frozenset(resident), 0.0, "the-base")


def table(alias: Alias, *engines: EngineView) -> RoutingTable:
    return RoutingTable({alias.name: alias}, {OLD: "support", NEW: "support"}, engines, frozenset({"the-base"}))


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True), st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_names_round_trip(alias: str, sha256: str) -> None:
    if alias == BASE:
        return
    name = adapter_name(alias, sha256)
    assert parse_adapter(str(name)) == name
    assert is_adapter(str(name))


@pytest.mark.parametrize("name", ["", "base", "Support", "a b", "-a", "a" * 64, "a@b", "a\n"])
def test_bad_aliases_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_alias(name)


@pytest.mark.parametrize("name", ["support", "support@", "support@12", "support@AAAAAAAAAAAA", "@aaaaaaaaaaaa"])
def test_bad_adapter_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        parse_adapter(name)
    assert not is_adapter(name)


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64])
def test_bad_digests_are_refused(digest: str) -> None:
    with pytest.raises(BadRequest):
        adapter_name("support", digest)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_only_adds_keys(key: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert not in_share(key, low, salt="s") or in_share(key, high, salt="s")
    assert 0.0 <= position(key, "s") < 1.0


def test_shares_are_close_to_their_ratio() -> None:
    hits = sum(in_share(str(i), 0.25, salt="x") for i in range(4000))
    assert 900 <= hits <= 1100


def test_an_alias_routes_to_its_champion_on_the_engines_that_hold_it() -> None:
    found = resolve(table(Alias("support", champion=OLD), engine("e1", OLD), engine("e2")), "support", "u")
    assert (found.adapter, found.served_model, found.engines) == (OLD, OLD, ("e1",))


def test_the_base_never_answers_for_an_adapter() -> None:
    for engines in ([], [engine("e1")], [engine("e1", OLD, ready=False)]):
        with pytest.raises(Unavailable):
            resolve(table(Alias("support", champion=OLD), *engines), "support", "u")


def test_an_alias_without_an_adapter_serves_the_base() -> None:
    found = resolve(table(Alias("support"), engine("e1")), "support", "u")
    assert (found.adapter, found.served_model) == (BASE, "the-base")


def test_where_no_engine_holds_the_canary_the_champion_answers() -> None:
    routes = table(Alias("support", champion=OLD, candidate=NEW, canary_ratio=0.9), engine("e1", OLD))
    assert {resolve(routes, "support", f"user-{i}").adapter for i in range(20)} == {OLD}


def test_a_canary_is_sticky_and_shares_traffic() -> None:
    routes = table(Alias("support", champion=OLD, candidate=NEW, canary_ratio=0.5), engine("e1", OLD, NEW))
    adapters = {key: resolve(routes, "support", key).adapter for key in map(str, range(200))}
    assert 60 <= list(adapters.values()).count(NEW) <= 140
    assert all(resolve(routes, "support", key).adapter == adapter for key, adapter in adapters.items())


def test_a_candidate_in_shadow_is_offered_to_the_mirror_only() -> None:
    routes = table(Alias("support", champion=OLD, candidate=NEW, mirror_ratio=0.3), engine("e1", OLD, NEW))
    found = resolve(routes, "support", "u")
    assert (found.adapter, found.candidate, found.mirror_ratio) == (OLD, NEW, 0.3)


def test_adapters_and_the_base_may_be_asked_for_by_name() -> None:
    routes = table(Alias("support", champion=OLD), engine("e1", OLD, NEW))
    assert resolve(routes, NEW, "u").adapter == NEW
    assert resolve(routes, "the-base", "u").adapter == BASE


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(NotFound, match="/v1/models"):
        resolve(table(Alias("support"), engine("e1")), "gpt-4", "u")
