"""The base model's scores, kept from one job to the next: it and the golden set change seldom. Holds no text."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrain_jobs.examples import digest
from retrain_jobs.items import Item
from service.settings import AliasSettings

log = logging.getLogger(__name__)


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
        known = self._read()
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if missing:
            known |= zip(missing, measure(list(missing.values())), strict=True)
            self._write({key: known[key] for key in keys})
        return [known[key] for key in keys]

    def _key(self, item: Item, alias: AliasSettings) -> str:
        return digest([item.tokens.prompt, item.target, alias.scorer, alias.pattern])[:24]

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.base_digest}.json"

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text("utf-8"))
            return {str(key): float(value) for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("the base model is scored again: %s cannot be read (%s)", self._path, error)
            return {}

    def _write(self, known: dict[str, float]) -> None:
        """Whole or not at all; a job that cannot keep them has lost some seconds of the next one."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(known), "utf-8")
            draft.replace(self._path)
        except OSError as error:
            log.warning("the base model's scores are not kept (%s)", error)
