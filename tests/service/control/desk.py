"""A support desk's store after forty minutes: one promotion, one rejection, then drift, with a candidate in shadow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from service.core.cycle import CycleState, Trigger
from service.core.records import (
    Adapter,
    Capture,
    Cycle,
    DriftCheck,
    EngineView,
    Feedback,
    Job,
    JobPhase,
    JobStatus,
)
from service.ports import Store

MINUTE = 60.0
INTENTS = ("track_order", "return_item", "reset_password", "change_address", "refund_status", "cancel_order")
ENGINES = ("http://127.0.0.1:8001", "http://127.0.0.1:8002")


def adapter(name: str, alias: str, at: float, cycle_id: str | None = None) -> Adapter:
    digest = sha256(name.encode()).hexdigest()
    manifest = {"recipe": "sft_lora", "seed": 0, "rows": 640}
    return Adapter(f"{alias}@{digest[:12]}", alias, digest, "b" * 64, 16, 1_320_000, at, cycle_id, manifest)


FIRST = adapter("first", "support", 0).name
REJECTED = adapter("rejected", "support", 0).name
CANDIDATE = adapter("candidate", "support", 0).name

REPORT = "<!doctype html><title>report</title><p id=told>before</p><script>told.textContent = 'It drifted.'</script>"


async def open_desk(store: Store, now: float, state_dir: Path) -> None:
    """Fill the store as the story goes; the running cycle's candidate is resident on both engines."""
    start = now - 40 * MINUTE
    await store.add_alias("support", now=start)
    await store.add_alias("orders", now=start)
    await report_engines(store, now, resident=[FIRST, CANDIDATE])
    await store.add_captures(_served("support", start, now, count=900))
    await store.add_feedback(_judged("support", start, now, count=900, drift=(18.0, 40.0)))
    await store.add_captures(_served("orders", start, now, count=300))
    await store.add_feedback(_judged("orders", start, now, count=300, drift=(99.0, 99.0)))
    await _first_cycle(store, start + 3 * MINUTE)
    await _rejected_cycle(store, start + 11 * MINUTE)
    await _checks(store, start, now, state_dir)
    await _running_cycle(store, now)


async def report_engines(store: Store, now: float, *, resident: Sequence[str], ready: bool = True) -> None:
    await store.report_engines(
        [EngineView(url, ready, frozenset(resident), now, "trimtab-demo-qwen3") for url in ENGINES]
    )


def _served(alias: str, start: float, now: float, count: int) -> list[Capture]:
    chance = random.Random(alias)
    return [
        Capture(
            f"{alias}-{i}", start + (now - start) * i / count, alias, "base", ENGINES[i % 2],
            [{"role": "user", "content": f"Where is order {i}?"}], chance.choice(INTENTS), 200, 0.08, 0.02,
            prompt_tokens=24, completion_tokens=4, confidence=-0.1,
        )
        for i in range(count)
    ]  # fmt: skip


def _judged(alias: str, start: float, now: float, count: int, drift: tuple[float, float]) -> list[Feedback]:
    """Two of three replies get a target; between the two minutes of `drift` it is often another one."""
    chance, dice = random.Random(alias), random.Random(f"{alias} dice")
    told = []
    for i in range(count):
        reply = chance.choice(INTENTS)
        minute = 40.0 * i / count
        wrong = 0.07 + min(0.45, 0.12 * max(0.0, minute - drift[0])) * (drift[0] < minute < drift[1])
        expected = "book_flight" if dice.random() < wrong else reply
        if i % 3:
            at = start + (now - start) * i / count + 1
            told.append(Feedback(f"{alias}-f{i}", f"{alias}-{i}", at, None, expected))
    return told


def _evaluation(champion: float, candidate: float) -> dict[str, object]:
    return {
        "heldout": {
            "new": {"champion": champion, "candidate": candidate, "n": 84},
            "replay": {"champion": 0.93, "candidate": 0.925, "n": 84},
            "all": {"champion": (champion + 0.93) / 2, "candidate": (candidate + 0.925) / 2, "n": 168},
        },
        "golden": {"champion": 0.955, "candidate": 0.95, "n": 120, "delta": -0.005},
    }


async def _cycle(store: Store, cycle_id: str, at: float, trigger: Trigger, reason: str) -> Cycle:
    return await store.open_cycle(cycle_id, "support", trigger, reason=reason, evidence={}, now=at, actor="controller")


async def _trained(store: Store, cycle: Cycle, made: Adapter, at: float, champion: float, candidate: float) -> Cycle:
    job = Job(f"{cycle.id}-job", cycle.id, "support", JobStatus.QUEUED, at, at)
    await store.enqueue(job)
    cycle = await store.advance(
        cycle, CycleState.TRAINING, reason="A retraining job was queued.", now=at + 1, job_id=job.id
    )
    await store.claim(job.id, "worker", now=at + 2, stale_after_s=30)
    await store.report(
        job.id, "worker", phase=JobPhase.EVALUATING, progress=0.9, detail={"step": 240, "loss": 0.21}, now=at + 60
    )
    cycle = await store.advance(cycle, CycleState.EVALUATING, reason="The adapter is trained.", now=at + 62)
    await store.add_adapter(made)
    result = {
        "adapter": made.name,
        "digest": made.digest,
        "evaluation": _evaluation(champion, candidate),
        "dataset": {"examples": 640, "replay": 320},
        "training": {"seconds": 58.4, "steps": 240, "train_loss": [[12 * i, 2.9 * 0.8**i + 0.2] for i in range(1, 21)]},
    }
    await store.finish(job.id, "worker", result=result, now=at + 75)
    return await store.note_evidence(cycle, {"job": result}, now=at + 75)


async def _first_cycle(store: Store, at: float) -> None:
    made = adapter("first", "support", at + 75, "c0ffee000001")
    cycle = await _cycle(store, "c0ffee000001", at, Trigger.PERSON, "Teach the returns policy of this autumn.")
    cycle = await _trained(store, cycle, made, at, 0.61, 0.9)
    cycle = await store.advance(
        cycle, CycleState.SHADOWING, reason="Golden set 95.5% → 95.0% stays within the margin.", now=at + 80,
        candidate=made.name,
    )  # fmt: skip
    cycle = await store.advance(
        cycle, CycleState.PROMOTING, reason="champion 78.1%, candidate 93.0% on 64 pairs.", now=at + 150,
        evidence={"shadow": _shadow("promote", 64, 0.781, 0.930, 23.4)},
    )  # fmt: skip
    await store.promote("support", made.name, actor="controller", reason="Evidence 23.4 reaches 20.0.", now=at + 151)
    cycle = await store.advance(cycle, CycleState.WATCHING, reason="The alias serves the candidate.", now=at + 152)
    watched = {"watch": {"labelled": 118, "quality": 0.932, "baseline": 0.781}}
    await store.advance(
        cycle, CycleState.DONE, reason="Quality 93.2% on 118 labelled requests holds against 78.1%.", now=at + 400,
        evidence=watched,
    )  # fmt: skip


async def _rejected_cycle(store: Store, at: float) -> None:
    made = adapter("rejected", "support", at + 75, "c0ffee000002")
    cycle = await _cycle(store, "c0ffee000002", at, Trigger.SCHEDULE, "The nightly refresh.")
    cycle = await _trained(store, cycle, made, at, 0.92, 0.88)
    reason = "Held-out requests 92.5% → 90.2% on 168."
    await store.advance(cycle, CycleState.REJECTED, reason=reason, now=at + 90)


async def _running_cycle(store: Store, now: float) -> None:
    at = now - 4 * MINUTE
    made = adapter("candidate", "support", at + 75, "c0ffee000003")
    reason = "Quality fell from 92.8% to 51.5% while replies grew unsure."
    cycle = await _cycle(store, "c0ffee000003", at, Trigger.DRIFT, reason)
    cycle = await store.note_evidence(
        cycle, {"drift": {"check": "check-10", "reasons": [reason, "New requests lie far from the reference."]}}, now=at
    )
    cycle = await _trained(store, cycle, made, at, 0.04, 0.86)
    await store.set_candidate("support", made.name, mirror_ratio=0.5, now=at + 78)
    cycle = await store.advance(
        cycle, CycleState.SHADOWING, reason="The golden set 95.5% → 95.0% on 120 examples stays within its margin.",
        now=at + 80, candidate=made.name,
    )  # fmt: skip
    await store.note_evidence(cycle, {"shadow": _shadow("hold", 22, 0.52, 0.86, 6.2)}, now=now - 2)


def _shadow(decision: str, pairs: int, champion: float, candidate: float, evidence: float) -> dict[str, object]:
    told = f"champion {champion:.1%}, candidate {candidate:.1%} on {pairs} labelled pairs"
    reason = f"{told}: evidence {evidence:.1f} of 20.0."
    return {
        "pairs": pairs, "champion_mean": champion, "candidate_mean": candidate, "evidence": evidence, "needed": 20.0,
        "decision": decision, "reason": reason, "reasons": [reason],
    }  # fmt: skip


async def _checks(store: Store, start: float, now: float, state_dir: Path) -> None:
    reports = state_dir / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    for i, minute in enumerate((8, 12, 16, 20, 24, 28, 31, 34, 35, 35.5, 38)):
        drifted = minute > 30
        at = start + minute * MINUTE
        reasons = ["Quality fell from 92.8% to 51.5%.", "Mean confidence of replies fell."] if drifted else []
        scores = [
            {"detector": "quality", "kind": "quality", "score": 0.413 if drifted else 0.01, "threshold": 0.11},
            {"detector": "confidence", "kind": "output", "score": 0.38 if drifted else 0.06, "threshold": 0.14},
            {"detector": "embedding", "kind": "input", "score": 0.29 if drifted else 0.08, "threshold": 0.17},
            {"detector": "prompt_length", "kind": "input", "score": 0.09, "threshold": 0.16},
        ]
        topic = {
            "words": ["flights", "visa"], "examples": ["do i need a visa for a trip to lima"], "share": 0.36,
            "share_before": 0.0, "unseen": True, "since": start + 31 * MINUTE, "requests": 72, "chance": 1e-9,
            "accuracy": 0.41, "accuracy_margin": 0.04, "accuracy_is_estimate": True,
        }  # fmt: skip
        if drifted:
            reasons.insert(0, "36% of requests since 14:05 are about *flights*, unseen in the reference.")
        report = f"check-{i}.html" if drifted else None
        if report:
            (reports / report).write_text(REPORT)
        await store.add_drift_check(
            DriftCheck(
                f"check-{i}", "support", at, "DRIFTED" if drifted else "STABLE", scores, reasons, 500, 200,
                0.928, 0.515 if drifted else 0.921, report, drifted, topics=[topic] if drifted else [],
            )
        )  # fmt: skip
