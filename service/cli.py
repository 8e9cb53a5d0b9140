"""The `trimtab` command: processes, and the control API from a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from service.client import Api, show, unix_seconds
from service.client import follow as follow_cycle
from service.core.errors import ConfigError, TrimtabError
from service.core.merging import MergeMethod
from service.core.records import Scope
from service.processes import note
from service.settings import Settings, load_settings
from service.terminal import StatusLine

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
adapters = typer.Typer(no_args_is_help=True, help="List, show, add and remove adapters.")
aliases = typer.Typer(no_args_is_help=True, help="List, show, create and unlatch aliases, and what they served.")
cycles = typer.Typer(no_args_is_help=True, help="List and show improvement cycles.")
drift = typer.Typer(no_args_is_help=True, help="Verdicts of the drift worker.")
label = typer.Typer(no_args_is_help=True, help="Requests out to people who label; labels in.")
keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
audit = typer.Typer(no_args_is_help=True, help="The audit log.")
db = typer.Typer(no_args_is_help=True, help="The store's schema.")
config_app = typer.Typer(no_args_is_help=True, help="The settings in force.")
for name, group in (
    ("adapters", adapters), ("aliases", aliases), ("cycles", cycles), ("drift", drift),
    ("label", label), ("keys", keys), ("audit", audit), ("db", db), ("config", config_app),
):  # fmt: skip
    app.add_typer(group, name=name)

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Of commands whose options are read by the program that they start."""

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Path of trimtab.yaml.")]
StateDir = Annotated[Path | None, typer.Option(help="Folder of everything that Trimtab keeps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
Url = Annotated[str | None, typer.Option(help="Where Trimtab serves; default: from the settings. Key: TRIMTAB_KEY.")]


def _settings(config: Path | None, **flags: Any) -> Settings:
    return load_settings(config, {key: value for key, value in flags.items() if value is not None})


def _run(main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@app.command()
def up(config: Config = None, state_dir: StateDir = None) -> None:
    """Run everything on this machine: engine, gateway, controller and drift worker."""
    from service.up import run_up

    environment = {"TRIMTAB_STATE_DIR": str(state_dir)} if state_dir else {}
    _run(run_up(_settings(config, state_dir=state_dir), config, environment))


@app.command()
def serve(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the gateway with the control API and the console."""
    from service.bootstrap import run_serve

    _run(run_serve(_settings(config, state_dir=state_dir)))


@app.command()
def controller(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the reconciler that carries every cycle on."""
    from service.bootstrap import run_controller

    _run(run_controller(_settings(config, state_dir=state_dir), config))


@app.command()
def monitor(config: Config = None, state_dir: StateDir = None) -> None:
    """Run the drift worker."""
    from service.bootstrap import run_monitor_process

    _run(run_monitor_process(_settings(config, state_dir=state_dir)))


@app.command()
def engine(config: Config = None, state_dir: StateDir = None) -> None:
    """Run and supervise one vLLM on this machine."""
    from service.bootstrap import run_engine_process

    _run(run_engine_process(_settings(config, state_dir=state_dir)))


@app.command(context_settings=PASSED_ON, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Play a day of a support desk: serve, drift, retrain, promote. Options: see `trimtab demo --help`."""
    os.execv(sys.executable, [sys.executable, "-m", "demo", *context.args])


@adapters.command("list")
def adapters_list(alias: str | None = None, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Adapters, newest first."""
    show(Api(_settings(config), url).get("/adapters", alias=alias), as_json)


@adapters.command("show")
def adapters_show(adapter: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One adapter with its manifest."""
    show(Api(_settings(config), url).get(f"/adapters/{adapter}"), as_json)


@adapters.command("card")
def adapters_card(
    adapter: str,
    html: Annotated[Path | None, typer.Option("--html", help="Write the card to this file, as one HTML page.")] = None,
    config: Config = None,
    url: Url = None,
) -> None:
    """The model card of ADAPTER, as Markdown: data, settings, curves, metrics, limits and lineage."""
    api = Api(_settings(config), url)
    if html is None:
        sys.stdout.write(api.text(f"/adapters/{adapter}/card", format="markdown"))
        return
    html.write_text(api.text(f"/adapters/{adapter}/card", format="html"), "utf-8")
    note(f"wrote {html}")


@adapters.command("add")
def adapters_add(alias: str, folder: Path, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Check the PEFT adapter in FOLDER and register it for ALIAS."""
    show(Api(_settings(config), url).upload_adapter(alias, folder), as_json)


@adapters.command("export", context_settings=PASSED_ON, add_help_option=False)
def adapters_export(context: typer.Context) -> None:
    """Write ADAPTER as a PEFT folder, merged into its base, or as ONNX. Options: `trimtab adapters export --help`."""
    os.execv(sys.executable, [sys.executable, "-m", "retrain_jobs.export", *context.args])


@adapters.command("remove")
def adapters_remove(adapter: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Forget ADAPTER; refused while an alias serves it, would return to it, or a cycle is proving it."""
    show(Api(_settings(config), url).delete(f"/adapters/{adapter}"), as_json)


@adapters.command("trained-on")
def adapters_trained_on_(
    request_ids: Annotated[list[str], typer.Argument(help="Ids of requests, or of imported rows.")],
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Adapters that learned from any of these requests, or began from one that did, newest first."""
    from service.core.trained import adapters_trained_on

    async def read() -> None:
        from service.bootstrap import opened_store

        async with opened_store(_settings(config, state_dir=state_dir)) as store:
            found = adapters_trained_on(await store.adapters(), request_ids)
        show({"adapters": [{**asdict(one), "inherits": ", ".join(one.inherits)} for one in found]}, as_json)

    _run(read())


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


@aliases.command("list")
def aliases_list(config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Aliases with what they serve."""
    show(Api(_settings(config), url).get("/aliases"), as_json)


@aliases.command("show")
def aliases_show(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One alias with its quality and its open cycle."""
    show(Api(_settings(config), url).get(f"/aliases/{alias}"), as_json)


@aliases.command("create")
def aliases_create(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """A new alias that serves the base model."""
    show(Api(_settings(config), url).post("/aliases", {"name": alias}), as_json)


@aliases.command("unlatch")
def aliases_unlatch(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Allow cycles again after too many failures."""
    show(Api(_settings(config), url).post(f"/aliases/{alias}/unlatch", {}), as_json)


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
    show(Api(_settings(config), url).get(f"/aliases/{alias}/history", at=moment), as_json)


@cycles.command("list")
def cycles_list(alias: str | None = None, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Cycles, newest first."""
    show(Api(_settings(config), url).get("/cycles", alias=alias), as_json)


@cycles.command("show")
def cycles_show(cycle: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """One cycle with its evidence and events."""
    show(Api(_settings(config), url).get(f"/cycles/{cycle}"), as_json)


@drift.command("list")
def drift_list(
    alias: str | None = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="key=value: the verdicts on that slice.")] = None,
    config: Config = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Verdicts, newest first."""
    show(Api(_settings(config), url).get("/drift", alias=alias, slice=slice_), as_json)


@drift.command("replay")
def drift_replay(
    alias: str,
    since: Annotated[str | None, typer.Option("--from", help="ISO 8601; default: the oldest stored request.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="ISO 8601; default: the newest stored request.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Judge the stored traffic of ALIAS by today's settings: when they would have fired, and why. Changes nothing."""
    from service.bootstrap import run_replay

    moments = tuple(None if moment is None else unix_seconds(moment) for moment in (since, until))
    _run(run_replay(_settings(config, state_dir=state_dir), alias, *moments, as_json=as_json))


@drift.command("reference")
def drift_reference(
    alias: str,
    pin: Annotated[
        str | None, typer.Option(help="A version's id, or the moment (ISO 8601) after which the reference begins.")
    ] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """The versions of ALIAS's reference, newest first; with --pin, which one is the pinned one from now on."""
    from service.bootstrap import run_reference

    async def read() -> None:
        show(await run_reference(_settings(config, state_dir=state_dir), alias, pin), as_json)

    _run(read())


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
    api = Api(_settings(config), url)
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
    show(Api(_settings(config), url).post(f"/aliases/{alias}/promote", body), as_json)


@app.command()
def approve(alias: str, config: Config = None, url: Url = None, as_json: Json = False) -> None:
    """Agree to the candidate that ALIAS has in shadow: it is promoted once its evidence suffices."""
    show(Api(_settings(config), url).post(f"/aliases/{alias}/approve", {}), as_json)


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
    show(Api(_settings(config), url).post("/erasures", body), as_json)


@app.command()
def rollback(
    alias: str, reason: Reason = "asked for", config: Config = None, url: Url = None, as_json: Json = False
) -> None:
    """Return ALIAS to its previous adapter, or end its open cycle."""
    show(Api(_settings(config), url).post(f"/aliases/{alias}/rollback", {"reason": reason}), as_json)


@keys.command("create")
def keys_create(
    name: str,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="May be given several times; default: infer, feedback.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Default: no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Of prompts and replies; no limit.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its secret once."""
    from service.control.keys import new_key

    key, secret = new_key(
        name, scope or [Scope.INFER, Scope.FEEDBACK], time.time(),
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
    )  # fmt: skip

    async def add() -> None:
        from service.bootstrap import opened_store

        async with opened_store(_settings(config, state_dir=state_dir)) as store:
            await store.add_key(key)

    _run(add())
    show({"id": key.id, "name": name, "scopes": sorted(key.scopes), "secret": secret}, as_json)


@keys.command("list")
def keys_list(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Keys, without their secrets."""

    async def read() -> None:
        from service.bootstrap import opened_store

        async with opened_store(_settings(config, state_dir=state_dir)) as store:
            found = await store.keys()
        rows = [
            {
                "id": k.id,
                "name": k.name,
                "scopes": sorted(k.scopes),
                "created_at": k.created_at,
                "revoked_at": k.revoked_at,
                "requests_per_minute": k.requests_per_minute,
                "tokens_per_minute": k.tokens_per_minute,
            }
            for k in found
        ]
        show({"keys": rows}, as_json)

    _run(read())


@keys.command("revoke")
def keys_revoke(key_id: str, config: Config = None, state_dir: StateDir = None) -> None:
    """Revoke a key; gateways refuse it within gateway.keys_poll_s."""

    async def revoke() -> None:
        from service.bootstrap import opened_store

        async with opened_store(_settings(config, state_dir=state_dir)) as store:
            await store.revoke_key(key_id, now=time.time())

    _run(revoke())


@audit.command("verify")
def audit_verify(
    noted: Annotated[str | None, typer.Option(help="Hash of an earlier head; the log must still hold it.")] = None,
    config: Config = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Check that no event was changed, removed, inserted or moved; exit code 1 where one was."""

    async def verify() -> None:
        from service.bootstrap import opened_store

        async with opened_store(_settings(config, state_dir=state_dir)) as store:
            found = await store.verify_audit(noted=noted)
        show(
            {"ok": found.fault is None, "events": found.events, "head": found.head.hash, "last_event":
             found.head.event_id, "first_bad_event": found.event_id, "fault": found.fault},
            as_json,
        )  # fmt: skip
        if found.fault is not None:
            where = f"at event {found.event_id}, " if found.event_id is not None else ""
            raise TrimtabError(f"The audit log is not what was written: {where}{found.fault}.")

    _run(verify())


@db.command("upgrade")
def db_upgrade(config: Config = None, state_dir: StateDir = None) -> None:
    """Bring the store's schema up to date."""
    from service.drivers.store import open_store

    async def upgrade() -> None:
        settings = _settings(config, state_dir=state_dir)
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        await (await open_store(settings.store_url, migrate=True)).close()

    _run(upgrade())


@config_app.command("show")
def config_show(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Every setting in force, secrets left out."""
    values = _settings(config, state_dir=state_dir).model_dump(mode="json")
    if values.get("engine_key"):
        values["engine_key"] = "***"
    if values["store"].get("url"):
        values["store"]["url"] = _without_password(values["store"]["url"])
    if values["promotion"]["webhook"]:
        values["promotion"]["webhook"] = "***"  # Chat services put their secret into its path.
    sys.stdout.write(json.dumps(values, indent=2) + "\n" if as_json else yaml.safe_dump(values, sort_keys=False))


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.rsplit(':', 1)[0]}:***@{tail}" if at and ":" in head.split("//", 1)[-1] else url


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
