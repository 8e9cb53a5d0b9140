"""The base model's scores, kept from one job to the next: it and the golden set change seldom. Holds no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain_jobs.examples import digest
from retrain_jobs.items import Item
from retrain_jobs.kept import read, write
from service.settings import AliasSettings


@dataclass(frozen=True, slots=True)
class KnownScores:
    """One file a base model, in the alias's `folder`; a row is known by its digest, so half a new set costs half."""

    folder: Path
    base_digest: str

    def of(
        self, items: Sequence[Item], alias: AliasSettings, measure: Callable[[Sequence[Item]], Sequence[float]]
    ) -> list[float]:
        """Each item's score, from the file or from `measure`, which is asked for what is missing."""
        keys = [self._key(item, alias) for item in items]
        path = self.folder / f"{self.base_digest}.json"
        known = read(path, float)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if missing:
            known |= zip(missing, measure(list(missing.values())), strict=True)
            write(path, {key: known[key] for key in keys})
        return [known[key] for key in keys]

    def _key(self, item: Item, alias: AliasSettings) -> str:
        return digest([item.tokens.prompt, item.target, alias.scorer, alias.pattern])[:24]
