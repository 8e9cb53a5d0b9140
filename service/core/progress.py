"""How far a training is, in one line for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told(detail: Mapping[str, Any]) -> str:
    """`step 40 of 320, loss 0.812 (held out 0.9), 5,400 tokens/s, about 40 s left`: what a job's detail knows of it."""
    loss, heldout = _number(detail, "loss"), _number(detail, "heldout_loss")
    step, steps = _number(detail, "step"), _number(detail, "steps")
    speed, left = _number(detail, "tokens_per_s"), _number(detail, "eta_s")
    parts = [
        str(detail["doing"]) if detail.get("doing") else None,
        f"step {step:g} of {steps:g}" if step is not None and steps is not None else None,
        f"loss {loss:.3g}" + (f" (held out {heldout:.3g})" if heldout is not None else "")
        if loss is not None
        else None,
        f"{speed:,.0f} tokens/s" if speed is not None else None,
        f"about {lasting(left)} left" if left is not None else None,
    ]
    return ", ".join(part for part in parts if part)


def told_of_cycle(cycle: Mapping[str, Any]) -> str:
    """A cycle as the control API shows it, whatever its state; `told` of its job while that runs."""
    job = cycle.get("job") or {}
    if job.get("status") == "running":
        detail = told(job.get("detail") or {})
        return f"{job.get('phase') or 'starting'}, {job.get('progress') or 0.0:.0%} done" + (
            f": {detail}" if detail else ""
        )
    gathered = (cycle.get("evidence") or {}).get("examples")
    if cycle.get("state") == "open" and gathered:
        return f"open: {gathered['labelled']} of {gathered['needed']} labelled requests"
    return str(cycle.get("state"))


def lasting(seconds: float) -> str:
    """`40 s`, `3 min`, `2.5 h`: as exactly as an estimate deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _number(detail: Mapping[str, Any], name: str) -> float | None:
    value = detail.get(name)
    return float(value) if isinstance(value, int | float) else None
