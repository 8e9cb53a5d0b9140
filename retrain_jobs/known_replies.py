"""What a system said to the golden set, kept: the champion of a cycle was the candidate of an earlier one.

The golden set is the operator's own; rows of traffic are never among them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from retrain_jobs.examples import digest
from retrain_jobs.items import Item

log = logging.getLogger(__name__)

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
        known = self._read(path)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if missing:
            known |= zip(missing, measure(list(missing.values())), strict=True)
            self._write(path, {key: known[key] for key in keys})
        return [known[key] for key in keys]

    def _read(self, path: Path) -> dict[str, Said]:
        try:
            found = json.loads(path.read_text("utf-8"))
            return {str(key): Said(str(text), float(sure), float(loss)) for key, (text, sure, loss) in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("the golden set is asked again: %s cannot be read (%s)", path, error)
            return {}

    def _write(self, path: Path, known: dict[str, Said]) -> None:
        """Whole or not at all; a job that cannot keep them has lost some seconds of the next one."""
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({key: astuple(said) for key, said in known.items()}), "utf-8")
            draft.replace(path)
            files = self.folder.glob("*.json")
            for old in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the golden set's replies are not kept (%s)", error)
