"""The chain: nothing can be changed, removed, inserted or moved without a fault; and what it tells of an alias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.audit import (
    GENESIS,
    Link,
    fault_of,
    fault_of_end,
    seal,
    serving_at,
    servings,
    unexplained,
)
from service.core.records import Event

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
said = st.tuples(
    st.floats(0, 4e9), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5),
    st.none() | st.text(max_size=5), st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)  # fmt: skip


def chain(*told: tuple[float, str, str, str, str | None, dict[str, object]]) -> list[Event]:
    events: list[Event] = []
    for number, (at, kind, actor, message, alias, evidence) in enumerate(told, 1):
        before = Link(events[-1].id, events[-1].hash) if events else Link()
        events.append(seal(Event(number, at, kind, actor, message, alias, evidence=evidence), before))
    return events


def first_fault(events: Sequence[Event], head: Link) -> int | None:
    last = Link()
    for event in events:
        if fault_of(event, last):
            return event.id
        last = Link(event.id, event.hash)
    return last.event_id if fault_of_end(last, head) else None


def head_of(events: Sequence[Event]) -> Link:
    return Link(events[-1].id, events[-1].hash)


def test_the_form_of_a_link_never_changes() -> None:
    event = Event(7, 1.0, "alias.promoted", "ann", "bètter", "support", "c1", {"b": [1, 2.5, None], "a": "x"})
    sealed = seal(event, Link(6, "ab" * 32))
    assert sealed.previous == "ab" * 32
    assert sealed.hash == "9241ac3a111d18f189ad992338f59859e6405232de561bc8653d6de085467a28"


@given(st.lists(said, min_size=1, max_size=6))
def test_an_untouched_chain_has_no_fault(told: list[tuple]) -> None:  # type: ignore[type-arg]
    events = chain(*told)
    assert events[0].previous == GENESIS
    assert first_fault(events, head_of(events)) is None


TOLD = [(float(i), f"kind{i}", "me", f"message {i}", "support", {"n": i}) for i in range(6)]


@pytest.mark.parametrize(
    "change",
    [
        {"at": 9.0}, {"kind": "x"}, {"actor": "x"}, {"message": "x"}, {"alias": None}, {"cycle_id": "x"},
        {"evidence": {"n": 99}}, {"evidence": {}}, {"previous": GENESIS}, {"hash": "f" * 64}, {"id": 30},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
@pytest.mark.parametrize("where", range(6))
def test_every_edit_of_every_field_is_found_where_it_is(where: int, change: dict[str, object]) -> None:
    events = chain(*TOLD)
    head = head_of(events)
    changed = replace(events[where], **change)  # type: ignore[arg-type]
    if changed == events[where]:
        return
    found = first_fault([*events[:where], changed, *events[where + 1 :]], head)
    assert found == changed.id


@pytest.mark.parametrize("where", range(6))
def test_an_edit_with_its_hash_made_anew_is_found_at_the_next_event(where: int) -> None:
    events = chain(*TOLD)
    before = Link(events[where - 1].id, events[where - 1].hash) if where else Link()
    forged = seal(replace(events[where], message="forged"), before)
    found = first_fault([*events[:where], forged, *events[where + 1 :]], head_of(events))
    assert found == min(where + 2, 6)


REMADE: dict[str, Callable[[list[Event]], list[Event]]] = {
    "the first is removed": lambda events: events[1:],
    "one is removed": lambda events: [*events[:2], *events[3:]],
    "the last is removed": lambda events: events[:-1],
    "all are removed": lambda events: [],
    "two are swapped": lambda events: [*events[:2], events[3], events[2], *events[4:]],
    "two swap their ids": lambda events: [
        *events[:2], replace(events[3], id=3), replace(events[2], id=4), *events[4:]
    ],
    "one is inserted": lambda events: [
        *events[:3], seal(replace(events[2], message="inserted"), Link(3, events[2].hash)), *events[3:]
    ],
    "one is appended": lambda events: [
        *events, seal(replace(events[5], id=7, message="appended"), Link(6, events[5].hash))
    ],
    "one comes twice": lambda events: [*events[:3], events[2], *events[3:]],
}  # fmt: skip


@pytest.mark.parametrize("remake", REMADE.values(), ids=REMADE)
def test_a_chain_that_was_remade_is_found(remake: Callable[[list[Event]], list[Event]]) -> None:
    events = chain(*TOLD)
    assert first_fault(remake(events), head_of(events)) is not None


def served(kind: str, at: float, evidence: dict[str, object]) -> tuple[float, str, str, str, str, dict[str, object]]:
    return at, kind, "ann", f"because {at}", "support", evidence


HISTORY = chain(
    served("alias.created", 10.0, {"champion": "base"}),
    served("alias.candidate", 15.0, {"candidate": "support@b"}),
    served("alias.promoted", 20.0, {"champion": "support@b", "previous": "base"}),
    served("alias.rolled_back", 25.0, {"from": "support@b", "to": "support@b"}),
    served("alias.rolled_back", 30.0, {"from": "support@b", "to": "base"}),
)


def test_what_an_alias_served_and_why() -> None:
    assert [(one.adapter, one.since) for one in servings(HISTORY)] == [
        ("base", 10.0), ("support@b", 20.0), ("base", 30.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("at", "adapter"),
    [(9.9, None), (10.0, "base"), (19.9, "base"), (20.0, "support@b"), (26.0, "support@b"), (99, "base")],
)
def test_what_was_served_then(at: float, adapter: str | None) -> None:
    found = serving_at(HISTORY, at)
    assert (found.adapter if found else None) == adapter


def test_what_the_log_does_not_explain() -> None:
    assert unexplained({"a": "base", "b": "x"}, {"a": "base", "b": "x", "gone": "base"}) is None
    assert unexplained({"a": "base", "b": "x"}, {"a": "base", "b": "y"}) == "b serves x, and the log tells of y"
    assert unexplained({"a": "base"}, {}) == "a serves base, and the log tells of nothing"
