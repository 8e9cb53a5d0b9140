"""Times without promotions: each moment of a week, against a reading by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.core.freeze import in_freeze, parse_freeze


def at(text: str) -> float:
    """Unix seconds of a moment in the week of Monday 16 November 2026."""
    day, clock = text.split()
    number = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun").index(day)
    hour, minute = clock.split(":")
    return datetime(2026, 11, 16 + number, int(hour), int(minute), tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "frozen", "free"),
    [
        ("Fri 16:00-Mon 08:00", ["Fri 16:00", "Sun 23:59", "Mon 07:59"], ["Fri 15:59", "Mon 08:00", "Wed 12:00"]),
        ("tue 09:30 - tue 10:00", ["Tue 09:30", "Tue 09:59"], ["Tue 10:00", "Tue 09:29", "Wed 09:45"]),
        ("22:00-06:00", ["Mon 22:00", "Tue 00:00", "Sun 05:59"], ["Mon 06:00", "Thu 21:59"]),
        ("12:00-13:00", ["Mon 12:00", "Sat 12:59"], ["Mon 11:59", "Sat 13:00"]),
    ],
)
def test_a_window_covers_its_times_only(window: str, frozen: list[str], free: list[str]) -> None:
    freeze = parse_freeze(window)
    assert [freeze.covers(at(moment)) for moment in frozen] == [True] * len(frozen)
    assert [freeze.covers(at(moment)) for moment in free] == [False] * len(free)


@pytest.mark.parametrize(
    "text", ["", "Friday", "Fri 16:00", "Fri 25:00-Mon 08:00", "Fri 16:00-08:00", "Fry 16:00-Mon 08:00", "12:00-12:00"]
)
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"write ('Fri 16:00-Mon 08:00'|Mon, Tue)"):
        parse_freeze(text)


def test_the_freeze_in_force_is_told() -> None:
    freezes = [parse_freeze("12:00-13:00"), parse_freeze("Sat 00:00-Mon 00:00")]
    assert str(in_freeze(freezes, at("Sat 15:00"))) == "Sat 00:00-Mon 00:00 UTC"
    assert in_freeze(freezes, at("Fri 15:00")) is None
