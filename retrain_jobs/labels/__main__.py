"""`python -m retrain_jobs.labels export|import ALIAS FILE`: what `trimtab label` runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from retrain_jobs.labels.exchange import export, take
from retrain_jobs.limits import one_line
from service.core.errors import BadRequest, ConfigError, TrimtabError
from service.drivers.store import open_store
from service.settings import Settings, load_settings

FAILED, MISCONFIGURED = 1, 2
"""Exit codes; 0 is success. An import that took nothing although there was something has failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        flags = {"state_dir": given.state_dir} if given.state_dir else {}
        told = asyncio.run(_run(load_settings(given.config, flags), given))
    except ConfigError as error:
        return _say(error, MISCONFIGURED)
    except TrimtabError as error:
        return _say(error, FAILED)
    if given.json:
        print(json.dumps(told, indent=2, default=str))
    else:
        for name, value in told.items():
            lines = value if isinstance(value, list) else [value]
            print(*(f"{name}: {line}" for line in lines), sep="\n", end="\n" if lines else "")
    taken_nothing = "left_out" in told and told["left_out"] and not told["corrections"] + told["rows"]
    return FAILED if taken_nothing and not told["already_there"] else 0


async def _run(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    url = settings.store_url
    store = await open_store(url, migrate=url.startswith("sqlite"))
    try:
        if given.what == "import":
            names = {"prompt": given.prompt_column, "expected": given.target_column}
            return await take(store, given.alias, given.file, names, now=time.time())
        since = None if given.since is None else _moment(given.since)
        return asdict(await export(store, given.alias, given.file, count=given.count, since=since))
    finally:
        await store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trimtab label", description="Requests out to people who label; labels in.")
    parser.add_argument("what", choices=("export", "import"))
    parser.add_argument("alias")
    parser.add_argument("file", type=Path, help="import: .json (Label Studio), .jsonl, .csv, .tsv or .parquet")
    parser.add_argument("--count", type=int, default=100, help="export: how many requests")
    parser.add_argument("--since", help="export: only requests after this moment (ISO 8601); default: since the drift")
    parser.add_argument("--prompt-column", default="prompt")
    parser.add_argument("--target-column", default="expected")
    parser.add_argument("--config", "-c", type=Path)
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise BadRequest(f"{text!r} is not a moment; write it like 2026-11-20T14:05.") from error


def _say(error: Exception, code: int) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
