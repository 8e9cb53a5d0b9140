"""What the commands' options are, and how a command reads settings and runs what is asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from service.settings import Settings, load_settings

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of commands whose options are read by the program that they start."""

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Path of trimtab.yaml.")]
StateDir = Annotated[Path | None, typer.Option(help="Folder of everything that Trimtab keeps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Url = Annotated[str | None, typer.Option(help="Where Trimtab serves; default: from the settings. Key: TRIMTAB_KEY.")]


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings in `config` or where they usually lie; a flag that is not None goes before. Raises ConfigError."""
    return load_settings(config, {key: value for key, value in flags.items() if value is not None})


def run(main: Coroutine[Any, Any, None]) -> None:
    """Until it is done, on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
