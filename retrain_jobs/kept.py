"""What a job keeps for the next one, in files of JSON objects: who cannot read or write one has lost some seconds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def read(path: Path, value: Callable[[Any], T]) -> dict[str, T]:
    """The file's entries, each made by `value` of what was written; none where it is not there or cannot be read."""
    try:
        return {str(key): value(found) for key, found in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, LookupError) as error:
        log.warning("what %s was to tell is asked for again: it cannot be read (%s)", path, error)
        return {}


def write(path: Path, content: Mapping[str, Any]) -> None:
    """The whole file or nothing."""
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content), "utf-8")
        draft.replace(path)
    except OSError as error:
        log.warning("%s is not kept (%s)", path, error)
