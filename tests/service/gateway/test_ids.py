"""Request ids: ours are known, nobody else's are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.gateway.ids import RequestIds

IDS = RequestIds(b"s" * 32)


def test_an_issued_id_is_recognized_also_as_an_engine_writes_it():
    issued = IDS.new(1_700_000_000.0)
    assert IDS.issued(issued) == issued
    assert IDS.issued(f"chatcmpl-{issued}") == issued
    assert IDS.issued(f"cmpl-{issued}") == issued


def test_ids_are_unique_and_sort_by_time():
    assert len({IDS.new(5.0) for _ in range(10_000)}) == 10_000
    assert IDS.new(1.0) < IDS.new(2.0) < IDS.new(1e10)


def test_another_gateway_with_the_same_secret_knows_the_id_and_one_with_another_does_not():
    issued = IDS.new(1.0)
    assert RequestIds(b"s" * 32).issued(issued) == issued
    assert RequestIds(b"t" * 32).issued(issued) is None


@given(st.text(max_size=60))
def test_no_other_text_passes(text):
    assert IDS.issued(text) is None


@given(st.integers(4, 33), st.sampled_from("0123456789abcdefgé"))
def test_one_changed_character_is_noticed(place, other):
    issued = IDS.new(1_700_000_000.0)
    changed = issued[:place] + other + issued[place + 1 :]
    assert (IDS.issued(changed) is None) == (changed != issued)
