"""Keys, leases and secrets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, case, func, or_, select, update

from service.core.errors import Conflict, NotFound
from service.core.records import Key, Lease, Scope
from service.drivers.database import Database
from service.drivers.schema import keys, leases, record_values, secrets

_SECRET_BYTES = 32


class SqlAccess:
    """`service.ports.Access` over SQL."""

    _db: Database
    _watched: dict[str, tuple[Lease, float]]

    async def add_key(self, key: Key) -> None:
        """Raises Conflict when the id or the secret is taken."""
        values = record_values(keys, key) | {"scopes": sorted(key.scopes)}
        async with self._db.write() as connection:
            if not await self._db.add(connection, keys, values):
                raise Conflict(f"There is a key {key.id!r} or one with the same secret already; make a new one.")

    async def keys(self) -> Sequence[Key]:
        async with self._db.read() as connection:
            rows = await connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id))
            return [_key(row._asdict()) for row in rows]

    async def revoke_key(self, key_id: str, *, now: float) -> None:
        """Revoking twice keeps the first time."""
        revoked_at = func.coalesce(keys.c.revoked_at, now)
        async with self._db.write() as connection:
            done = await connection.execute(update(keys).where(keys.c.id == key_id).values(revoked_at=revoked_at))
            if not done.rowcount:
                raise NotFound(f"There is no key {key_id!r}; `trimtab keys list` shows those there are.")

    async def secret(self, name: str) -> bytes:
        kept = select(secrets.c.value).where(secrets.c.name == name)
        async with self._db.read() as connection:
            found: bytes | None = (await connection.execute(kept)).scalar_one_or_none()
        if found is not None:
            return found
        fresh = {"name": name, "value": os.urandom(_SECRET_BYTES)}
        async with self._db.write() as connection:
            await self._db.add(connection, secrets, fresh)
            made: bytes = (await connection.execute(kept)).scalar_one()
        return made

    async def acquire(self, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
        """Machines' clocks differ, so a lease is free, too, that its holder has not renewed for `ttl_s` of our time."""
        wanted = self._db.insert(leases).values(name=name, holder=holder, epoch=1, expires_at=now + ttl_s)
        same = leases.c.holder == holder
        free = or_(same, leases.c.expires_at <= now)
        if (still := self._unrenewed(name, now - ttl_s)) is not None:
            free = or_(free, and_(leases.c.epoch == still.epoch, leases.c.expires_at == still.expires_at))
        taken = wanted.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={
                "holder": holder,
                "epoch": case((same, leases.c.epoch), else_=leases.c.epoch + 1),
                "expires_at": now + ttl_s,
            },
            where=free,
        ).returning(leases)
        async with self._db.write() as connection:
            row = (await connection.execute(taken)).one_or_none()
            if row is None:
                held = (await connection.execute(select(leases).where(leases.c.name == name))).one()
                self._watch(Lease(**held._asdict()), now)
        return None if row is None else Lease(**row._asdict())

    def _watch(self, lease: Lease, now: float) -> None:
        """Remember since when this lease, as it is, has been seen in another's hands."""
        before = self._watched.get(lease.name)
        if before is None or before[0] != lease:
            self._watched[lease.name] = (lease, now)

    def _unrenewed(self, name: str, since: float) -> Lease | None:
        lease, seen = self._watched.get(name, (None, since))
        return lease if seen <= since else None


def _key(values: dict[str, Any]) -> Key:
    return Key(**values | {"scopes": frozenset(Scope(scope) for scope in values["scopes"])})
