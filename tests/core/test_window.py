"""Windows: cut to size, without overlap, and honest about what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.records import Capture, Labelled
from service.core.window import Sizes, choose_windows, is_due, reference_end


def rows(*times: float) -> list[Labelled]:
    return [
        Labelled(Capture(f"r{at}", at, "support", "base", "e", [], "reply", 200, 0.1), feedback=None) for at in times
    ]


def times(chosen: Sequence[Labelled]) -> list[float]:
    return [row.capture.at for row in chosen]


WANTED = Sizes(reference=3, current=2)


def test_the_reference_is_the_first_requests_and_the_current_window_the_newest_after_it() -> None:
    windows = choose_windows(rows(1, 2, 3), rows(6, 7, 8), WANTED)
    assert (times(windows.reference), times(windows.current)) == ([1, 2, 3], [7, 8])
    assert windows.sizes.lack(WANTED) is None


def test_a_request_of_the_reference_is_never_in_the_current_window() -> None:
    windows = choose_windows(rows(1, 2, 3, 4), rows(2, 3, 4), WANTED)
    assert (times(windows.reference), times(windows.current)) == ([1, 2, 3], [4])


def test_a_filling_reference_has_no_current_window_yet() -> None:
    windows = choose_windows(rows(1, 2), rows(1, 2), WANTED)
    assert (times(windows.reference), times(windows.current)) == ([1, 2], [])
    assert reference_end(windows.reference, WANTED) is None


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (Sizes(0, 0), "The reference is still filling: 0 of 3 requests."),
        (Sizes(2, 9), "The reference is still filling: 2 of 3 requests."),
        (Sizes(3, 1), "The current window is still filling: 1 of 2 requests."),
        (Sizes(3, 2), None),
    ],
)
def test_it_says_what_is_missing(sizes: Sizes, told: str | None) -> None:
    assert sizes.lack(WANTED) == told


@pytest.mark.parametrize(("fresh", "size", "due"), [(0, 200, False), (19, 200, False), (20, 200, True), (1, 5, True)])
def test_a_window_is_due_once_a_tenth_of_it_is_new(fresh: int, size: int, due: bool) -> None:
    assert is_due(fresh, size) is due


@given(
    found=st.lists(st.integers(0, 40), unique=True).map(sorted),
    since=st.integers(0, 40),
    wanted=st.builds(Sizes, reference=st.integers(1, 10), current=st.integers(1, 10)),
)
def test_windows_are_disjoint_ordered_and_no_larger_than_wanted(found: list[int], since: int, wanted: Sizes) -> None:
    oldest = rows(*[at for at in found if at > since])[: wanted.reference]
    newest = rows(*found)[-wanted.current :]
    windows = choose_windows(oldest, newest, wanted)
    together = times(windows.reference) + times(windows.current)
    assert together == sorted(set(together))
    assert windows.sizes.reference <= wanted.reference
    assert windows.sizes.current <= wanted.current
