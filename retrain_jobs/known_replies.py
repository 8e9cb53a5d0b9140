"""What a system said to the golden set, kept: the champion of a cycle was the candidate of an earlier one.

The golden set is the operator's own; rows of traffic are never among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from retrain_jobs.examples import digest
from retrain_jobs.items import Item
from retrain_jobs.kept import read, write

KEPT = 8
"""Systems whose replies are kept, the latest ones."""


@dataclass(frozen=True, slots=True)
class Said:
    """A reply; `confidence` is its mean log-probability (nats a token), `loss` its target's (nats, summed)."""

    text: str
    confidence: float
    loss: float


@dataclass(frozen=True, slots=True)
class KnownReplies:
    """One file a system in the alias's `folder`. A system is named by all that makes its replies: adapter, base model
    and the type that they compute in."""

    folder: Path

    def of(
        self, system: str, items: Sequence[Item], limit: int, measure: Callable[[Sequence[Item]], Sequence[Said]]
    ) -> list[Said]:
        """Each item's reply of at most `limit` tokens, from the file or from `measure`, asked for what is missing."""
        keys = [digest([item.tokens.prompt, item.tokens.target, limit])[:24] for item in items]
        path = self.folder / f"{system}.json"
        known = read(path, lambda found: Said(str(found[0]), float(found[1]), float(found[2])))
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if missing:
            known |= zip(missing, measure(list(missing.values())), strict=True)
            write(path, {key: astuple(known[key]) for key in keys})
            with suppress(OSError):  # one too many harms nobody
                for old in sorted(self.folder.glob("*.json"), key=_age)[:-KEPT]:
                    old.unlink()
        return [known[key] for key in keys]


def _age(file: Path) -> tuple[int, str]:
    return file.stat().st_mtime_ns, file.name
