"""Registry and lifecycle against a small model: random operations by controllers, people and jobs, with crashes between
and in the middle of them. Short in `make test`; TRIMTAB_SOAK=1 makes it long and random."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.core.cycle import TERMINAL, CycleState, Trigger
from service.core.errors import TrimtabError
from service.core.names import BASE
from service.core.records import Adapter, Cycle, Job, JobStatus, Lease
from service.drivers.store import SqlStore, open_store
from tests.contract.lifecycle_model import AliasRow, CycleRow, Model

T = TypeVar("T")

ALIASES = ("support", "billing")
ADAPTERS = tuple(f"{alias}@{letter * 12}" for alias in ALIASES for letter in "ab")

aliases = st.sampled_from(ALIASES)
adapters = st.sampled_from(ADAPTERS)
fenced = st.sampled_from(("by a person", "by the leader", "by the leader", "by one that was overtaken"))


class Lifecycle(RuleBasedStateMachine):
    """Every operation is made on the store and on the model; both must refuse it, or both must change alike."""

    fresh_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._url = self.fresh_url()
        self.store: SqlStore = self._run(open_store(self._url))
        self.model = Model()
        self.leases: list[Lease] = []
        self.now = 0.0

    def teardown(self) -> None:
        self._run(self.store.close())
        self._runner.close()

    @initialize()
    def start(self) -> None:
        self.take_over()
        for alias in ALIASES:
            self.do("add_alias", alias, now=self.now)

    # Who leads

    @rule()
    def take_over(self) -> None:
        """Another controller, or a restarted one, finds the lease expired."""
        self.now += 100.0
        lease = self._run(self.store.acquire("controller", f"c{self.now}", ttl_s=10.0, now=self.now))
        assert lease is not None
        self.model.acquire("controller", lease.holder)
        assert lease.epoch == self.model.epoch
        self.leases.append(lease)

    # What happens

    @rule(name=adapters, other_content=st.sampled_from([False, False, False, True]))
    def add_adapter(self, name: str, other_content: bool) -> None:
        digest = ("f" if other_content else name[-1]) * 64
        alias = name.partition("@")[0]
        self.do("add_adapter", Adapter(name, alias, digest, "c" * 64, 16, 7, self.now))

    @rule(alias=aliases, name=st.none() | adapters, ratio=st.sampled_from([0.1, 1.0]), by=fenced)
    def set_candidate(self, alias: str, name: str | None, ratio: float, by: str) -> None:
        self.do("set_candidate", alias, name, mirror_ratio=ratio, now=self.now, fence=self.fence(by))

    @rule(alias=aliases, name=adapters | st.just(BASE), by=fenced)
    def promote(self, alias: str, name: str, by: str) -> None:
        self.do("promote", alias, name, actor="x", reason="x", now=self.now, fence=self.fence(by))

    @rule(alias=aliases, by=fenced)
    def promote_the_candidate(self, alias: str, by: str) -> None:
        candidate = self.model.aliases[alias].candidate
        if candidate is not None:
            self.do("promote", alias, candidate, actor="x", reason="x", now=self.now, fence=self.fence(by))

    @rule(alias=aliases, by=fenced)
    def rollback(self, alias: str, by: str) -> None:
        self.do("rollback", alias, actor="x", reason="x", now=self.now, fence=self.fence(by))

    @rule(alias=aliases, failures=st.integers(0, 3), latched=st.booleans(), by=fenced)
    def set_health(self, alias: str, failures: int, latched: bool, by: str) -> None:
        self.do("set_health", alias, failures=failures, latched=latched, now=self.now, fence=self.fence(by))

    @rule(alias=aliases, by=fenced)
    def open_cycle(self, alias: str, by: str) -> None:
        cycle_id = f"c{len(self.model.cycles)}"
        self.do(
            "open_cycle", cycle_id, alias, Trigger.DRIFT, reason="x", evidence={}, now=self.now, actor="x",
            fence=self.fence(by),
        )  # fmt: skip

    @precondition(lambda self: self.model.cycles)
    @rule(data=st.data(), candidate=st.none() | adapters, by=fenced)
    def advance(self, data: st.DataObject, candidate: str | None, by: str) -> None:
        """Mostly along the table from the state that the cycle is in; sometimes from one that it has left."""
        cycle_id = data.draw(st.sampled_from(sorted(self.model.cycles)), label="cycle")
        row = self.model.cycles[cycle_id]
        seen = data.draw(st.just(row.state) | st.just(row.state) | st.sampled_from(CycleState), label="seen")
        to = data.draw(st.sampled_from(CycleState), label="to")
        self.do("advance", _cycle(cycle_id, row, seen), to, reason="x", now=self.now, candidate=candidate,
                fence=self.fence(by))  # fmt: skip

    @rule(alias=aliases, steps=st.integers(1, 7))
    def go_on(self, alias: str, steps: int) -> None:
        """The way of a cycle that goes well, some steps further, as the reconciler takes them."""
        for _ in range(steps):
            cycle_id, fence = self.model.open_cycle_of(alias), self.fence("by the leader")
            if cycle_id is None:
                self.open_cycle(alias, "by the leader")
                continue
            row = self.model.cycles[cycle_id]
            candidate = row.candidate or next(iter(sorted(self.model.adapters)), None)
            step: dict[str, Any] = {}
            match row.state:
                case CycleState.OPEN:
                    step["job_id"] = f"{cycle_id}-job"
                    job = Job(step["job_id"], cycle_id, alias, JobStatus.QUEUED, self.now, self.now)
                    self.do("enqueue", job, fence=fence)
                case CycleState.EVALUATING:
                    step["candidate"] = candidate
                    self.do("set_candidate", alias, candidate, mirror_ratio=0.1, now=self.now, fence=fence)
                case CycleState.PROMOTING:
                    self.do("promote", alias, str(candidate), actor="x", reason="x", now=self.now, fence=fence)
            self.do("advance", _cycle(cycle_id, row, row.state), _NEXT[row.state], reason="x", now=self.now,
                    fence=fence, **step)  # fmt: skip

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def a_job_dies(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.model.jobs)))
        self.do("fail", job_id, None, error="gone", now=self.now)

    @rule(name=adapters, by=fenced)
    def remove_adapter(self, name: str, by: str) -> None:
        self.do("remove_adapter", name, actor="x", reason="x", now=self.now, fence=self.fence(by))

    @rule()
    def collect_garbage(self) -> None:
        """Whatever is not in use goes; what is in use is refused."""
        for name in sorted(self.model.adapters):
            fence = self.fence("by the leader")
            self.do("remove_adapter", name, actor="gc", reason="unused", now=self.now, fence=fence)
        assert set(self.model.adapters) <= self.model.in_use()

    # What goes wrong

    @rule()
    def crash(self) -> None:
        self._run(self.store.close())
        self.store = self._run(open_store(self._url))

    @rule(alias=aliases, what=st.sampled_from(["promote", "rollback", "open_cycle"]), ms=st.integers(0, 12))
    def crash_in_the_middle(self, alias: str, what: str, ms: int) -> None:
        """Whoever writes is cut off: all of it has happened, or nothing; then it is made again."""
        by, name = self.leases[-1], self.model.aliases[alias].candidate or BASE
        told = {"actor": "x", "reason": "x", "now": self.now, "fence": by}
        if what == "open_cycle":
            args: tuple[Any, ...] = (f"c{len(self.model.cycles)}", alias, Trigger.DRIFT)
            told["evidence"] = {}
        else:
            args = (alias, name) if what == "promote" else (alias,)
        done = deepcopy(self.model)
        try:
            getattr(done, what)(*args, **told)
        except TrimtabError:
            done = deepcopy(self.model)
        self._run(_cut_off(getattr(self.store, what)(*args, **told), ms))
        self.crash()
        found = self._run(self._observe())
        assert found in (_view(self.model), _view(done))
        if found != _view(done):
            self._run(getattr(self.store, what)(*args, **told))
        self.model = done

    # What must hold

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        assert self._run(self._observe()) == _view(self.model)

    @invariant()
    def nothing_is_served_that_is_not_there(self) -> None:
        table = self._run(self.store.routing())
        for alias in table.aliases.values():
            assert {alias.champion, alias.previous, alias.candidate} <= {None, BASE, *table.adapters}

    @invariant()
    def the_log_is_whole_and_tells_each_end_once(self) -> None:
        found = self._run(self.store.verify_audit())
        assert (found.fault, found.events) == (None, self.model.events)
        for cycle_id, cycle in self.model.cycles.items():
            ends = self._run(self.store.events(cycle_id=cycle_id, kinds=[f"cycle.{state}" for state in TERMINAL]))
            assert len(ends) == (cycle.state in TERMINAL)

    def do(self, what: str, *args: Any, **kwargs: Any) -> None:
        """The same on both; they refuse for the same reason, and a refusal changes nothing."""
        self.now += 1.0
        changed, expected, got = deepcopy(self.model), None, None
        try:
            getattr(changed, what)(*args, **kwargs)
        except TrimtabError as error:
            expected, changed = type(error), self.model
        try:
            self._run(getattr(self.store, what)(*args, **kwargs))
        except TrimtabError as error:
            got = type(error)
        assert got is expected, f"{what}{args}: {got}, the model: {expected}"
        self.model = changed

    def fence(self, by: str) -> Lease | None:
        if by == "by a person":
            return None
        return self.leases[-1] if by == "by the leader" or len(self.leases) == 1 else self.leases[-2]

    async def _observe(self) -> Any:
        store = self.store
        rows = {
            one.name: AliasRow(
                one.champion, one.previous, one.candidate, one.mirror_ratio, one.failures, one.latched, one.version
            )
            for one in await store.aliases()
        }
        cycles = {
            one.id: CycleRow(one.alias, one.state, one.candidate, one.job_id) for one in await store.cycles(limit=999)
        }
        jobs = {one.id: (one.cycle_id, str(one.status)) for one in await store.jobs(limit=999)}
        return rows, {one.name: one.digest for one in await store.adapters()}, cycles, jobs

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)


_NEXT = {
    CycleState.OPEN: CycleState.TRAINING,
    CycleState.TRAINING: CycleState.EVALUATING,
    CycleState.EVALUATING: CycleState.SHADOWING,
    CycleState.SHADOWING: CycleState.PROMOTING,
    CycleState.CANARY: CycleState.PROMOTING,
    CycleState.PROMOTING: CycleState.WATCHING,
    CycleState.WATCHING: CycleState.DONE,
}


def _cycle(cycle_id: str, row: CycleRow, seen: CycleState) -> Cycle:
    return Cycle(cycle_id, row.alias, seen, Trigger.DRIFT, "", 0.0, 0.0, 0.0)


def _view(model: Model) -> Any:
    return model.aliases, model.adapters, model.cycles, model.jobs


async def _cut_off(writing: Coroutine[Any, Any, Any], ms: int) -> None:
    task = asyncio.create_task(writing)
    await asyncio.sleep(ms / 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.long
def test_registry_and_lifecycle_are_as_the_model(
    fresh_url: Callable[[], str], scale: Callable[[int, int], int], soaking: bool
) -> None:
    class OnThisStore(Lifecycle):
        pass

    OnThisStore.fresh_url = staticmethod(fresh_url)
    run_state_machine_as_test(
        OnThisStore,
        settings=settings(
            max_examples=scale(8, 200),
            stateful_step_count=scale(20, 50),
            derandomize=not soaking,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
