"""The `trimtab` command: processes, and the control API from a terminal."""

from __future__ import annotations

import sys

import typer

from service.cli import asked, labels, processes, stored
from service.core.errors import ConfigError, TrimtabError
from service.processes import note

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(processes.app)
app.add_typer(asked.app)
for name, group in (
    ("adapters", asked.adapters), ("aliases", asked.aliases), ("cycles", asked.cycles), ("drift", asked.drift),
    ("label", labels.label), ("keys", stored.keys), ("audit", stored.audit), ("db", stored.db),
    ("config", stored.config_app),
):  # fmt: skip
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command; a failure is one line on stderr and exit code 2 (configuration) or 1."""
    try:
        app()
    except* TrimtabError as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        note(first.message if isinstance(first, TrimtabError) else str(first))
        code = 2 if isinstance(first, ConfigError) or getattr(first, "code", "") == "port_in_use" else 1
        sys.exit(code)
