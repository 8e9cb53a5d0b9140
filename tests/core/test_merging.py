"""What may be merged, told before a cycle opens."""

from __future__ import annotations

from typing import Any

import pytest

from service.core.errors import BadRequest, Conflict
from service.core.merging import Merge, MergeMethod, require_alike
from service.core.records import Adapter


def adapter(name: str, rank: int = 8, base: str = "b") -> Adapter:
    return Adapter(name, "support", name, base, rank, 1, 0.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"adapters": ("a",)}, "Name 2 to 8"),
        ({"adapters": ("a", "a")}, "different"),
        ({"adapters": tuple("abcdefghi")}, "Name 2 to 8"),
        ({"adapters": ("a", "b"), "weights": (1.0,)}, "2 adapters need 2 weights, not 1"),
        ({"adapters": ("a", "b"), "weights": (1.0, 0.0)}, "not 0"),
        ({"adapters": ("a", "b"), "weights": (1.0, float("nan"))}, "from -10 to 10"),
        ({"adapters": ("a", "b"), "density": 0.0}, "density"),
        ({"adapters": ("a", "b"), "density": float("nan")}, "density"),
    ],
)
def test_what_makes_no_sense_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        Merge(**given)


def test_it_is_read_as_it_was_told_and_shares_are_equal_by_default() -> None:
    merge = Merge(("a", "b", "c", "d"), MergeMethod.TIES)
    assert merge.weights == (1.0,) * 4
    assert Merge(merge.adapters).weights == (0.25,) * 4
    assert Merge.read(merge.told()) == merge


def test_adapters_must_be_of_one_base_and_but_for_svd_of_one_rank() -> None:
    require_alike([adapter("a"), adapter("b")], MergeMethod.DARE_TIES)
    require_alike([adapter("a", 8), adapter("b", 16)], MergeMethod.SVD)
    with pytest.raises(Conflict, match=r"one rank \(a 8, b 16\); use svd"):
        require_alike([adapter("a", 8), adapter("b", 16)], MergeMethod.TIES)
    with pytest.raises(Conflict, match="different base models"):
        require_alike([adapter("a"), adapter("b", base="c")], MergeMethod.SVD)
