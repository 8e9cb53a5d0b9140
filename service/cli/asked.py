"""Commands that ask the control API of a running Trimtab."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import PASSED_ON, Config, Json, Reason, Url, settings_of
from service.client import Api, show, unix_seconds
from service.client import follow as follow_cycle
from service.core.merging import MergeMethod
from service.processes import note
from service.terminal import StatusLine

app = typer.Typer()
adapters = typer.Typer(no_args_is_help=True, help="List, show, add and remove adapters.")
aliases = typer.Typer(no_args_is_help=True, help="List, show, create and unlatch aliases, and what they served.")
cycles = typer.Typer(no_args_is_help=True, help="List and show improvement cycles.")
drift = typer.Typer(no_args_is_help=True, help="Verdicts of the drift worker.")


@adapters.command("list")
def adapters_list(alias: str | None = None, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Adapters, newest first."""
    show(Api(settings_of(config), url).get("/adapters", alias=alias), as_json)


@adapters.command("show")
def adapters_show(adapter: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One adapter with its manifest."""
    show(Api(settings_of(config), url).get(f"/adapters/{adapter}"), as_json)


@adapters.command("card")
def adapters_card(
    adapter: str,
    html: Annotated[Path | None, typer.Option("--html", help="Write the card to this file, as one HTML page.")] = None,
    config: Config = None,
    url: Url = None,
) -> None:
    """The model card of ADAPTER, as Markdown: data, settings, curves, metrics, limits and lineage."""
    api = Api(settings_of(config), url)
    if html is None:
        sys.stdout.write(api.text(f"/adapters/{adapter}/card", format="markdown"))
        return
    html.write_text(api.text(f"/adapters/{adapter}/card", format="html"), "utf-8")
    note(f"wrote {html}")


@adapters.command("add")
def adapters_add(alias: str, folder: Path, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Check the PEFT adapter in FOLDER and register it for ALIAS."""
    show(Api(settings_of(config), url).upload_adapter(alias, folder), as_json)


@adapters.command("export", context_settings=PASSED_ON, add_help_option=False)
def adapters_export(context: typer.Context) -> None:
    """Write ADAPTER as a PEFT folder, merged into its base, or as ONNX. Options: `trimtab adapters export --help`."""
    os.execv(sys.executable, [sys.executable, "-m", "retrain_jobs.export", *context.args])


@adapters.command("remove")
def adapters_remove(adapter: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Forget ADAPTER; refused while an alias serves it, would return to it, or a cycle is proving it."""
    show(Api(settings_of(config), url).delete(f"/adapters/{adapter}"), as_json)


@aliases.command("list")
def aliases_list(config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Aliases with what they serve."""
    show(Api(settings_of(config), url).get("/aliases"), as_json)


@aliases.command("show")
def aliases_show(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One alias with its quality and its open cycle."""
    show(Api(settings_of(config), url).get(f"/aliases/{alias}"), as_json)


@aliases.command("create")
def aliases_create(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """A new alias that serves the base model."""
    show(Api(settings_of(config), url).post("/aliases", {"name": alias}), as_json)


@aliases.command("unlatch")
def aliases_unlatch(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Allow cycles again after too many failures."""
    show(Api(settings_of(config), url).post(f"/aliases/{alias}/unlatch", {}), as_json)


@aliases.command("history")
def aliases_history(
    alias: str,
    at: Annotated[str | None, typer.Option(help="ISO 8601; this machine's time zone where none is given.")] = None,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """What ALIAS served, newest first; with --at, what it served then and why."""
    moment = None if at is None else str(unix_seconds(at))
    show(Api(settings_of(config), url).get(f"/aliases/{alias}/history", at=moment), as_json)


@cycles.command("list")
def cycles_list(alias: str | None = None, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Cycles, newest first."""
    show(Api(settings_of(config), url).get("/cycles", alias=alias), as_json)


@cycles.command("show")
def cycles_show(cycle: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One cycle with its evidence and events."""
    show(Api(settings_of(config), url).get(f"/cycles/{cycle}"), as_json)


@drift.command("list")
def drift_list(
    alias: str | None = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="key=value: the verdicts on that slice.")] = None,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Verdicts, newest first."""
    show(Api(settings_of(config), url).get("/drift", alias=alias, slice=slice_), as_json)


@app.command()
def retrain(
    alias: Annotated[str | None, typer.Argument()] = None,
    reason: Reason = "asked for",
    manifest: Annotated[
        str | None, typer.Option(help="make the adapter of this manifest (a file or an adapter's name) again, here")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="with --manifest: the folder that keeps it")] = None,
    merge: Annotated[
        list[str] | None, typer.Option(help="an adapter to merge in place of training; give two or more")
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="of each --merge, in their order; none: equal")] = None,
    method: Annotated[MergeMethod, typer.Option(help="with --merge: how")] = MergeMethod.SVD,
    density: Annotated[float, typer.Option(help="with --merge: the share that ties and dare_* keep")] = 0.5,
    follow: Annotated[bool, typer.Option("--follow", help="tell how it goes until the candidate is judged")] = False,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Open a cycle for ALIAS now: its candidate is trained, or merged from the adapters that --merge names.

    With --manifest: make an adapter again, to see that it is what its manifest says.
    """
    if manifest is not None:
        given = [*(["--config", str(config)] if config else []), *(["--out", str(out)] if out else [])]
        os.execv(sys.executable, [sys.executable, "-m", "retrain_jobs", "--manifest", manifest, *given])
    if alias is None:
        raise typer.BadParameter("Name an alias, or --manifest.")
    body: dict[str, Any] = {"reason": reason}
    if merge:
        body["merge"] = {"adapters": merge, "weights": weight or [], "method": method, "density": density}
    elif weight:
        raise typer.BadParameter("--weight is of a --merge; name the adapters to merge.")
    api = Api(settings_of(config), url)
    cycle = api.post(f"/aliases/{alias}/retrain", body)
    if follow:
        with closing(StatusLine(sys.stderr)) as status:
            now = follow_cycle(api, cycle["id"], status)
        cycle = {name: now[name] for name in cycle}
    show(cycle, as_json)


@app.command()
def promote(
    alias: str,
    adapter: str,
    reason: Reason = "asked for",
    force: Annotated[bool, typer.Option("--force", help="Also one that was rolled back and is locked out.")] = False,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make ADAPTER the champion of ALIAS."""
    body = {"adapter": adapter, "reason": reason, "force": force}
    show(Api(settings_of(config), url).post(f"/aliases/{alias}/promote", body), as_json)


@app.command()
def approve(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Agree to the candidate that ALIAS has in shadow: it is promoted once its evidence suffices."""
    show(Api(settings_of(config), url).post(f"/aliases/{alias}/approve", {}), as_json)


@app.command()
def erase(
    user: Annotated[str | None, typer.Option(help="As clients sent it in `user`.")] = None,
    source: Annotated[str | None, typer.Option(help="As the store names it: user:…, key:… or import:….")] = None,
    request: Annotated[str | None, typer.Option(help="A request's id (x-request-id).")] = None,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Delete all traffic of a user, of a key or of one request; list the adapters that learned from it."""
    named = {"user": user, "source": source, "request": request}
    body = {key: value for key, value in named.items() if value is not None}
    if len(body) != 1:
        raise typer.BadParameter("Name exactly one of --user, --source and --request.")
    show(Api(settings_of(config), url).post("/erasures", body), as_json)


@app.command()
def rollback(
    alias: str, reason: Reason = "asked for", config: Config = None, url: Url = None, as_json: Json = False
) -> None:
    """Return ALIAS to its previous adapter, or end its open cycle."""
    show(Api(settings_of(config), url).post(f"/aliases/{alias}/rollback", {"reason": reason}), as_json)
