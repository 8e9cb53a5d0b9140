"""Commands that read or change the store themselves, with no server running."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer
import yaml

from service.cli.asked import adapters, drift
from service.cli.options import Config, Json, StateDir, run, settings_of
from service.client import show, unix_seconds
from service.core.errors import TrimtabError
from service.core.records import Scope

keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
audit = typer.Typer(no_args_is_help=True, help="The audit log.")
db = typer.Typer(no_args_is_help=True, help="The store's schema.")
config_app = typer.Typer(no_args_is_help=True, help="The settings in force.")


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

        async with opened_store(settings_of(config, state_dir=state_dir)) as store:
            found = adapters_trained_on(await store.adapters(), request_ids)
        show({"adapters": [{**asdict(one), "inherits": ", ".join(one.inherits)} for one in found]}, as_json)

    run(read())


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
    run(run_replay(settings_of(config, state_dir=state_dir), alias, *moments, as_json=as_json))


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
        show(await run_reference(settings_of(config, state_dir=state_dir), alias, pin), as_json)

    run(read())


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

        async with opened_store(settings_of(config, state_dir=state_dir)) as store:
            await store.add_key(key)

    run(add())
    show({"id": key.id, "name": name, "scopes": sorted(key.scopes), "secret": secret}, as_json)


@keys.command("list")
def keys_list(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Keys, without their secrets."""

    async def read() -> None:
        from service.bootstrap import opened_store

        async with opened_store(settings_of(config, state_dir=state_dir)) as store:
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

    run(read())


@keys.command("revoke")
def keys_revoke(key_id: str, config: Config = None, state_dir: StateDir = None) -> None:
    """Revoke a key; gateways refuse it within gateway.keys_poll_s."""

    async def revoke() -> None:
        from service.bootstrap import opened_store

        async with opened_store(settings_of(config, state_dir=state_dir)) as store:
            await store.revoke_key(key_id, now=time.time())

    run(revoke())


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

        async with opened_store(settings_of(config, state_dir=state_dir)) as store:
            found = await store.verify_audit(noted=noted)
        show(
            {"ok": found.fault is None, "events": found.events, "head": found.head.hash, "last_event":
             found.head.event_id, "first_bad_event": found.event_id, "fault": found.fault},
            as_json,
        )  # fmt: skip
        if found.fault is not None:
            where = f"at event {found.event_id}, " if found.event_id is not None else ""
            raise TrimtabError(f"The audit log is not what was written: {where}{found.fault}.")

    run(verify())


@db.command("upgrade")
def db_upgrade(config: Config = None, state_dir: StateDir = None) -> None:
    """Bring the store's schema up to date."""
    from service.drivers.store import open_store

    async def upgrade() -> None:
        settings = settings_of(config, state_dir=state_dir)
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        await (await open_store(settings.store_url, migrate=True)).close()

    run(upgrade())


@config_app.command("show")
def config_show(config: Config = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Every setting in force, secrets left out."""
    values = settings_of(config, state_dir=state_dir).model_dump(mode="json")
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
