"""Commands for labels from people: out as tasks, in as rows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import Config, Json, StateDir

label = typer.Typer(no_args_is_help=True, help="Requests out to people who label; labels in.")


@label.command("export")
def label_export(
    alias: str,
    out: Annotated[Path, typer.Argument(help="Where the tasks go (JSON); the interface goes beside it (.xml).")],
    count: Annotated[int, typer.Option(min=1, help="How many requests.")] = 100,
    since: Annotated[str | None, typer.Option(help="ISO 8601; default: since the drift began.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Write the requests that are most worth a label as Label Studio's tasks, each with the reply that was given."""
    _labels("export", alias, out, config, state_dir, as_json, "--count", str(count), *_option("--since", since))


@label.command("import")
def label_import(
    alias: str,
    file: Annotated[Path, typer.Argument(help="Label Studio's .json, or .jsonl, .csv, .tsv, .parquet.")],
    prompt_column: Annotated[str, typer.Option(help="The column of the prompts.")] = "prompt",
    target_column: Annotated[str, typer.Option(help="The column of what would have been right.")] = "expected",
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Take the labels in FILE for the next training of ALIAS; the same ones again add nothing."""
    columns = ("--prompt-column", prompt_column, "--target-column", target_column)
    _labels("import", alias, file, config, state_dir, as_json, *columns)


def _labels(
    what: str, alias: str, file: Path, config: Path | None, state_dir: Path | None, as_json: bool, *more: str
) -> None:
    """By the jobs' room: it knows files, and may load what is heavy."""
    where = (*_option("--config", config), *_option("--state-dir", state_dir), *(["--json"] if as_json else []))
    command = [sys.executable, "-m", "retrain_jobs.labels", what, *more, *where, "--", alias, str(file)]
    os.execv(sys.executable, command)


def _option(name: str, value: Path | str | None) -> tuple[str, ...]:
    return () if value is None else (name, str(value))
