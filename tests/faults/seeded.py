"""Faults that somebody might make in our own code, and the tests that should notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`right` stands once in `file`; with `wrong` in its place one of `tests` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


STORE, GATEWAY, CONTROL = "tests/contract/test_store_", "tests/service/gateway/test_", "tests/service/control/test_"
LIFECYCLE = "tests/contract/test_lifecycle.py"

FAULTS = (
    Fault(
        "a stale controller's writes are taken",
        "service/drivers/database.py",
        "    if epoch != fence.epoch:",
        "    if epoch is None:",
        ("tests/contract/test_fencing.py",),
    ),
    Fault(
        "a controller promotes what is no longer the candidate",
        "service/drivers/registry.py",
        "            if fence is not None and current.candidate != adapter:",
        "            if False:",
        (f"{STORE}registry.py", LIFECYCLE),
    ),
    Fault(
        "a rollback leaves the cycle open",
        "service/drivers/registry.py",
        "            if cycle is not None:\n                await move_cycle(",
        "            if False:\n                await move_cycle(",
        (f"{STORE}registry.py", LIFECYCLE),
    ),
    Fault(
        "what was rolled back is promoted again",
        "service/drivers/registry.py",
        "                if not force:\n                    raise locked_out",
        "                if False:\n                    raise locked_out",
        (f"{STORE}registry.py", LIFECYCLE),
    ),
    Fault(
        "an adapter that an alias would return to is removed",
        "service/drivers/registry.py",
        "            if (user := await _user(connection, name)) is not None:",
        "            if (user := None) is not None:",
        (f"{STORE}registry.py", LIFECYCLE),
    ),
    Fault(
        "a lease is taken from a living holder",
        "service/drivers/access.py",
        "        free = or_(same, leases.c.expires_at <= now)",
        "        free = or_(same, leases.c.expires_at <= now + ttl_s)",
        (f"{STORE}access.py", "tests/contract/test_fencing.py"),
    ),
    Fault(
        "a new holder keeps the epoch",
        "service/drivers/access.py",
        "else_=leases.c.epoch + 1)",
        "else_=leases.c.epoch)",
        (f"{STORE}access.py", "tests/contract/test_fencing.py"),
    ),
    Fault(
        "a job that is alive is taken over",
        "service/drivers/jobs.py",
        "jobs.c.heartbeat_at < now - stale_after_s",
        "jobs.c.heartbeat_at < now + stale_after_s",
        (f"{STORE}jobs.py",),
    ),
    Fault(
        "who lost a job may still report on it",
        "service/drivers/jobs.py",
        "    return and_(jobs.c.status == JobStatus.RUNNING, jobs.c.holder == holder)",
        "    return and_(jobs.c.status == JobStatus.RUNNING)",
        (f"{STORE}jobs.py",),
    ),
    Fault(
        "an event may follow no event",
        "service/core/audit.py",
        "    if event.previous != before.hash:",
        "    if False:",
        ("tests/core/test_audit.py", f"{STORE}audit.py"),
    ),
    Fault(
        "the hash leaves out the evidence",
        "service/core/audit.py",
        "    canonical = json.dumps(said,",
        "    canonical = json.dumps({k: v for k, v in said.items() if k != 'evidence'},",
        ("tests/core/test_audit.py", f"{STORE}audit.py"),
    ),
    Fault(
        "the oldest feedback counts",
        "service/drivers/traffic.py",
        "        .order_by(feedback.c.at.desc(), feedback.c.id.desc())",
        "        .order_by(feedback.c.at, feedback.c.id)",
        (f"{STORE}traffic.py",),
    ),
    Fault(
        "erased traffic comes back from a spool",
        "service/drivers/erasure.py",
        "    for batch in batches(sorted(found)):\n        await forget(db, connection, batch)",
        "    return",
        (f"{STORE}erasure.py",),
    ),
    Fault(
        "a segment is deleted although the store refused it",
        "service/gateway/shipper.py",
        "                return False\n            reach(Failpoint.SHIPPED)",
        "                segment.unlink()\n                return False\n            reach(Failpoint.SHIPPED)",
        (f"{GATEWAY}capture.py",),
    ),
    Fault(
        "the last captures are not flushed",
        "service/gateway/capture.py",
        "        await self.write()\n        await self._on_thread(self._spool.seal)",
        "        await self._on_thread(self._spool.seal)",
        (f"{GATEWAY}capture.py",),
    ),
    Fault(
        "a revoked key opens",
        "service/gateway/keyring.py",
        " for key in keys if key.revoked_at is None}",
        " for key in keys}",
        (f"{GATEWAY}routes_and_keys.py", f"{GATEWAY}app.py", f"{GATEWAY}limits.py"),
    ),
    Fault(
        "any key may do anything",
        "service/gateway/keyring.py",
        "        if scope not in key.scopes:",
        "        if False:",
        (f"{GATEWAY}routes_and_keys.py",),
    ),
    Fault(
        "a reply that has begun is asked for again",
        "service/gateway/streaming.py",
        "    if exchange.head_sent:\n        return EngineFailed(",
        "    if False:\n        return EngineFailed(",
        (f"{GATEWAY}retries.py", f"{GATEWAY}proxy.py"),
    ),
    Fault(
        "the base model answers for an alias",
        "service/core/routing.py",
        "    engines = holders(table, adapter)\n    if not engines:",
        "    engines = holders(table, adapter) or holders(table, BASE)\n    if not engines:",
        ("tests/core/test_names_routing.py", f"{GATEWAY}proxy.py"),
    ),
    Fault(
        "clients meet the canary by chance",
        "service/gateway/proxy.py",
        "        sticky = ask.user or (ask.conversation().hex() if has_canary else exchange.request_id)",
        "        sticky = exchange.request_id",
        (f"{GATEWAY}app.py", f"{GATEWAY}proxy.py", "tests/core/test_canary.py"),
    ),
    Fault(
        "an adapter is unloaded before its requests end",
        "service/core/plan.py",
        "now - undesired_since.get(name, now) >= drain_s",
        "now - undesired_since.get(name, now) >= 0.0",
        ("tests/core/test_plan.py", f"{CONTROL}residency.py"),
    ),
    Fault(
        "files that changed are loaded",
        "service/control/residency.py",
        "            if digest != adapter.digest:",
        "            if False:",
        (f"{CONTROL}residency.py",),
    ),
    Fault(
        "missing evidence promotes",
        "service/core/plan.py",
        "        if gate is None or gate.decision is Decision.HOLD:",
        "        if gate is not None and gate.decision is Decision.HOLD:",
        ("tests/core/test_plan.py", f"{CONTROL}fails_closed.py"),
    ),
    Fault(
        "half of the evidence suffices",
        "service/core/promotion.py",
        "    if n >= policy.min_pairs and better >= needed:",
        "    if n >= policy.min_pairs and better >= needed / 2:",
        ("tests/core/test_promotion.py",),
    ),
    Fault(
        "a failed guard is overlooked",
        "service/core/plan.py",
        "    for judged in (ruling, *seen.guards):",
        "    for judged in (ruling,):",
        ("tests/core/test_plan.py",),
    ),
    Fault(
        "the approval is not awaited",
        "service/core/plan.py",
        "    if (policy.mode is not Mode.AUTO or doubts) and not",
        "    if (policy.mode is Mode.MANUAL or doubts) and not",
        ("tests/core/test_plan.py",),
    ),
    Fault(
        "a doubt is not left to a person",
        "service/core/plan.py",
        "    if (policy.mode is not Mode.AUTO or doubts) and not",
        "    if policy.mode is not Mode.AUTO and not",
        ("tests/core/test_plan.py",),
    ),
    Fault(
        "the cooldown is forgotten",
        "service/core/starts.py",
        "now - last.closed_at < policy.cooldown_s:",
        "now - last.closed_at < 0.0:",
        ("tests/core/test_plan.py",),
    ),
    Fault(
        "a latched alias goes on",
        "service/core/starts.py",
        "    if alias.latched or alias.failures >= policy.max_failures:",
        "    if False:",
        ("tests/core/test_plan.py",),
    ),
    Fault(
        "a clock that runs behind holds flips up",
        "service/gateway/table.py",
        "        until = min(alias.reference_since, now) + self._settle_s",
        "        until = alias.reference_since + self._settle_s",
        (f"{GATEWAY}table.py",),
    ),
    Fault(
        "tenants share the engine's prefix cache",
        "service/gateway/ask.py",
        "if tenant is not None and self.salted else body",
        "if False else body",
        (f"{GATEWAY}routes_and_keys.py", f"{GATEWAY}app.py", f"{GATEWAY}proxy.py", f"{GATEWAY}protocol.py"),
    ),
    Fault(
        "the adapter is judged by rows that it has learned",
        "retrain_jobs/dataset.py",
        "    apart = [row for row in heldout if prompt_text(row.prompt) not in index]",
        "    apart = list(heldout)",
        ("tests/jobs/test_dataset.py",),
    ),
    Fault(
        "the golden set is trained on",
        "retrain_jobs/admission.py",
        "    rows = _without_golden(rows, golden, dropped)",
        "    rows = list(rows)",
        ("tests/jobs/test_dataset.py",),
    ),
    Fault(
        "every alias trains at once",
        "service/core/plan.py",
        "    if seen.busy:",
        "    if False:",
        ("tests/core/test_plan.py",),
    ),
)
