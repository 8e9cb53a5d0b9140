"""What registry and lifecycle must do, as small as it can be said: the model that the stores are held against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from service.core.cycle import TERMINAL, CycleState, Trigger, check_transition
from service.core.errors import Conflict, NotFound, StaleWrite
from service.core.names import BASE
from service.core.records import Adapter, Cycle, Job, Lease


@dataclass(frozen=True)
class AliasRow:
    champion: str = BASE
    previous: str | None = None
    candidate: str | None = None
    mirror_ratio: float = 0.0
    failures: int = 0
    latched: bool = False
    version: int = 0


@dataclass(frozen=True)
class CycleRow:
    alias: str
    state: CycleState = CycleState.OPEN
    candidate: str | None = None
    job_id: str | None = None


@dataclass
class Model:
    """The same methods as the store's, by the same names; a copy is made before each, so none needs to undo."""

    aliases: dict[str, AliasRow] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)  # name → digest
    cycles: dict[str, CycleRow] = field(default_factory=dict)
    jobs: dict[str, tuple[str, str]] = field(default_factory=dict)  # id → cycle, status
    events: int = 0
    epoch: int = 0

    def add_alias(self, name: str, *, now: float) -> None:
        if name not in self.aliases:
            self.aliases[name] = AliasRow()
            self.events += 1

    def add_adapter(self, adapter: Adapter) -> None:
        if self.adapters.get(adapter.name, adapter.digest) != adapter.digest:
            raise Conflict("")
        if adapter.name not in self.adapters:
            self.adapters[adapter.name] = adapter.digest
            self.events += 1

    def remove_adapter(self, name: str, *, fence: Lease | None, **_: Any) -> None:
        self._check(fence)
        self._known(name)
        if name in self.in_use():
            raise Conflict("")
        del self.adapters[name]
        self.events += 1

    def set_candidate(
        self, alias: str, candidate: str | None, *, mirror_ratio: float, fence: Lease | None, **_: Any
    ) -> None:
        self._check(fence)
        row, ratio = self._alias(alias), mirror_ratio if candidate else 0.0
        if (row.candidate, row.mirror_ratio) != (candidate, ratio):
            self._known(candidate)
            self._change(alias, candidate=candidate, mirror_ratio=ratio)

    def promote(self, alias: str, adapter: str, *, fence: Lease | None, **_: Any) -> None:
        self._check(fence)
        row = self._alias(alias)
        if row.champion == adapter:
            return
        if fence is not None and row.candidate != adapter:
            raise Conflict("")
        self._known(adapter)
        self._change(alias, champion=adapter, previous=row.champion, candidate=None, mirror_ratio=0.0, failures=0)

    def rollback(self, alias: str, *, fence: Lease | None, **_: Any) -> None:
        self._check(fence)
        row = self._alias(alias)
        cycle_id = self.open_cycle_of(alias)
        if cycle_id is None and row.previous is None:
            raise Conflict("")
        cycle = self.cycles[cycle_id] if cycle_id else None
        flipped = (
            cycle is None
            or cycle.state is CycleState.WATCHING
            or (cycle.state is CycleState.PROMOTING and cycle.candidate == row.champion)
        )
        if cycle_id is not None:
            self._move(cycle_id, CycleState.ROLLED_BACK)
        back = {"champion": row.previous, "previous": row.champion} if flipped and row.previous is not None else {}
        failures = row.failures + (fence is not None)
        self._change(alias, candidate=None, mirror_ratio=0.0, failures=failures, **back)

    def set_health(self, alias: str, *, failures: int, latched: bool, fence: Lease | None, **_: Any) -> None:
        self._check(fence)
        row = self._alias(alias)
        if (row.failures, row.latched) != (failures, latched):
            self._change(alias, failures=failures, latched=latched)

    def open_cycle(self, cycle_id: str, alias: str, trigger: Trigger, *, fence: Lease | None, **_: Any) -> None:
        self._check(fence)
        self._alias(alias)
        if self.open_cycle_of(alias) is not None:
            raise Conflict("")
        self.cycles[cycle_id] = CycleRow(alias)
        self.events += 1

    def advance(
        self, seen: Cycle, to: CycleState, *, fence: Lease | None, candidate: str | None = None,
        job_id: str | None = None, **_: Any,
    ) -> None:  # fmt: skip
        check_transition(seen.state, to)
        self._check(fence)
        if self.cycles[seen.id].state is not seen.state:
            raise Conflict("")
        self._move(seen.id, to, candidate=candidate, job_id=job_id)
        if to in TERMINAL and to is not CycleState.DONE:
            self._change(seen.alias, failures=self.aliases[seen.alias].failures + 1)

    def enqueue(self, job: Job, *, fence: Lease | None) -> None:
        self._check(fence)
        self.jobs.setdefault(job.id, (job.cycle_id, "queued"))

    def fail(self, job_id: str, holder: None, **_: Any) -> None:
        cycle_id, status = self.jobs[job_id]
        if status not in ("queued", "running"):
            raise Conflict("")
        self.jobs[job_id] = (cycle_id, "failed")

    def acquire(self, name: str, holder: str, **_: Any) -> None:
        self.epoch += 1

    def open_cycle_of(self, alias: str) -> str | None:
        return next((i for i, one in self.cycles.items() if one.alias == alias and one.state not in TERMINAL), None)

    def in_use(self) -> set[str]:
        """Adapters that must not be removed."""
        rows = self.aliases.values()
        named = {name for row in rows for name in (row.champion, row.previous, row.candidate)}
        proving = {cycle.candidate for cycle in self.cycles.values() if cycle.state not in TERMINAL}
        return {name for name in named | proving if name is not None}

    def _move(self, cycle_id: str, to: CycleState, candidate: str | None = None, job_id: str | None = None) -> None:
        cycle = self.cycles[cycle_id]
        self.cycles[cycle_id] = replace(
            cycle, state=to, candidate=candidate or cycle.candidate, job_id=job_id or cycle.job_id
        )
        if to in TERMINAL:
            for job_id, (of, status) in self.jobs.items():
                if of == cycle_id and status in ("queued", "running"):
                    self.jobs[job_id] = (of, "cancelled")
        self.events += 1

    def _change(self, alias: str, **values: Any) -> None:
        row = self.aliases[alias]
        self.aliases[alias] = replace(row, **values, version=row.version + 1)
        self.events += 1

    def _alias(self, name: str) -> AliasRow:
        if name not in self.aliases:
            raise NotFound("")
        return self.aliases[name]

    def _known(self, adapter: str | None) -> None:
        if adapter not in (None, BASE, *self.adapters):
            raise NotFound("")

    def _check(self, fence: Lease | None) -> None:
        if fence is not None and fence.epoch != self.epoch:
            raise StaleWrite("")
