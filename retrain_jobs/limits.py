"""Whether a training can fit, said before it begins; and what ran out, said in one line when it did not."""

from __future__ import annotations

import errno
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from service.core.errors import Conflict, TrimtabError

MIB = 1024**2
HEADROOM = 0.9
"""Of what is free: the estimate is rough, and others want memory too."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a training is about to take beyond the loaded model, in bytes."""

    memory: int
    disk: int


def estimate(
    *, tokens: int, longest: int, targets: int, layers: int, hidden: int, intermediate: int, heads: int,
    vocabulary: int, width: int, trainable: int,
) -> Need:  # fmt: skip
    """Activations kept for the way back, the logits of targets, the adapter with its gradient and moments.

    Args:
        tokens, longest, targets: of the largest part that is computed at once: all its tokens, those of its longest
            row, those that bear a loss.
        width: bytes of a number in the model.
        trainable: weights of the adapter.
    """
    a_layer = width * tokens * (14 * hidden + 5 * intermediate) + 3 * width * heads * tokens * longest
    logits = 12 * targets * vocabulary
    return Need(memory=layers * a_layer + logits + 20 * trainable, disk=4 * trainable * 6)


def require_room(need: Need, folder: Path, free: int) -> None:
    """Raises Conflict, with the figures, when `free` bytes of memory or the folder's disk cannot hold it."""
    disk = shutil.disk_usage(folder).free
    if need.memory > HEADROOM * free:
        raise Conflict(
            f"Training would need about {need.memory / MIB:,.0f} MiB of memory and {free / MIB:,.0f} MiB are free; "
            "lower max_tokens or max_length in configs/sft_lora.yaml, or retrain.rank.",
            code="no_memory",
        )
    if need.disk > HEADROOM * disk:
        raise Conflict(
            f"Training would need about {need.disk / MIB:,.1f} MiB on the disk of {folder.parent} and "
            f"{disk / MIB:,.1f} MiB are free; make room, or move `state_dir`.",
            code="no_disk",
        )


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, its control group's, its own limit's."""
    process = psutil.Process().memory_info()
    free = [psutil.virtual_memory().available]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - process.vms)
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("utf-8"))
    except (OSError, ValueError):
        most, used = "max", 0
    if most != "max":
        free.append(int(most) - used)
    return max(0, min(free))


def ran_out(error: BaseException) -> str | None:
    """What there was too little of, as a sentence; None for any other error."""
    text = str(error)
    if "out of memory" in text.lower() or "allocate memory" in text or isinstance(error, MemoryError):
        return "Training ran out of memory; lower max_tokens in configs/sft_lora.yaml, retrain.rank or max_examples."
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
        return "The disk is full; make room on the disk of `state_dir` and of the adapters, then retry."
    return None


def one_line(error: BaseException) -> str:
    """What a person reads: the message of our own errors, the kind and first line of others."""
    if isinstance(error, TrimtabError):
        return error.message
    if (told := ran_out(error)) is not None:
        return told
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}; the job's log has the traceback.".replace(": ;", ";")
