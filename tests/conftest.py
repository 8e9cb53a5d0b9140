"""One code path for a test's two sizes: short in `make test`, full in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

SOAK = os.environ.get("TRIMTAB_SOAK") == "1"


@pytest.fixture
def scale() -> Callable[[T, T], T]:
    """Picks a count or a time: `scale(100, 1_000)`."""
    return lambda short, full: full if SOAK else short


@pytest.fixture
def soaking() -> bool:
    """Whether figures may be asserted: in the short form other tests and a noisy machine stand in their way."""
    return SOAK
