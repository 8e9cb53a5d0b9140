"""Which adapters know a request: a row that is erased from the store is still in the weights that learned it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.records import Adapter


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """An adapter and how many of the requests it learned from (`train`) and was judged by (`heldout`).

    `inherits` names the adapters among these whose weights it began from.
    """

    adapter: str
    alias: str
    train: int
    heldout: int
    inherits: tuple[str, ...] = ()


def adapters_trained_on(adapters: Sequence[Adapter], request_ids: Collection[str]) -> list[TrainedOn]:
    """Those whose manifests name any of the requests, and those made from such adapters (`parents`), in order.

    A manifest that names no rows (an adapter that was added from files) tells nothing.
    """
    wanted = frozenset(request_ids)
    counts = {
        one.name: (_count(one.manifest, "train", wanted), _count(one.manifest, "heldout", wanted)) for one in adapters
    }
    tainted = {name for name, found in counts.items() if any(found)}
    while more := {one.name for one in adapters if one.name not in tainted and tainted.intersection(_parents(one))}:
        tainted |= more
    return [
        TrainedOn(one.name, one.alias, *counts[one.name], tuple(name for name in _parents(one) if name in tainted))
        for one in adapters
        if one.name in tainted
    ]


def _count(manifest: Mapping[str, Any], side: str, wanted: frozenset[str]) -> int:
    dataset = manifest.get("dataset")
    if not isinstance(dataset, Mapping):
        return 0
    rejected = dataset.get("rejected", ()) if side == "train" else ()
    return len(wanted.intersection((*dataset.get(side, ()), *rejected)))


def _parents(adapter: Adapter) -> Sequence[str]:
    return adapter.manifest.get("parents") or ()
