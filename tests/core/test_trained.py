"""Who learned from a request, by itself or by its parents."""

from __future__ import annotations

from service.core.records import Adapter
from service.core.trained import TrainedOn, adapters_trained_on


def made(name: str, train: list[str], heldout: list[str], parents: list[str] | None = None) -> Adapter:
    manifest = {"dataset": {"train": train, "heldout": heldout}, "parents": parents}
    return Adapter(name, "support", name * 64, "b" * 64, 16, 1, 1.0, manifest=manifest)


FROM_FILES = Adapter("f", "support", "f" * 64, "b" * 64, 16, 1, 1.0)


def test_an_adapter_is_named_with_how_much_it_saw() -> None:
    one, other = made("1", ["r1", "r2", "r3"], ["r4"]), made("2", ["r5"], [])
    assert adapters_trained_on([other, FROM_FILES, one], ["r2", "r3", "r4", "r9"]) == [TrainedOn("1", "support", 2, 1)]
    assert adapters_trained_on([one, other], []) == []


def test_what_was_judged_by_a_request_is_named_too() -> None:
    assert adapters_trained_on([made("1", [], ["r4"])], {"r4"}) == [TrainedOn("1", "support", 0, 1)]


def test_an_adapter_that_began_from_another_knows_what_that_one_knew() -> None:
    newest_first = [
        made("3", ["r7"], [], ["2"]), made("2", ["r6"], [], ["1", "0"]), made("1", ["r1"], []), made("0", ["r0"], []),
    ]  # fmt: skip
    assert adapters_trained_on(newest_first, ["r1"]) == [
        TrainedOn("3", "support", 0, 0, ("2",)),
        TrainedOn("2", "support", 0, 0, ("1",)),
        TrainedOn("1", "support", 1, 0),
    ]
