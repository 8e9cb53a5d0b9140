"""What a person may ask for in place of a training: adapters merged into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from service.core.errors import BadRequest, Conflict
from service.core.records import Adapter

MOST_PARENTS = 8


class MergeMethod(StrEnum):
    """PEFT's `combination_type`. `SVD` sums what the adapters add to the weights and keeps what the rank can hold; the
    others add their two matrices, and drop what disagrees (TIES) or some of it at random (DARE)."""

    SVD = "svd"
    LINEAR = "linear"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"


@dataclass(frozen=True, slots=True)
class Merge:
    """Adapters by name, and how they become one.

    `weights` are one an adapter, by default equal ones, of such a size that an adapter merged with itself is itself;
    `density` is the share (0..1] of an adapter's numbers that TIES and DARE keep.
    """

    adapters: tuple[str, ...]
    method: MergeMethod = MergeMethod.SVD
    weights: tuple[float, ...] = ()
    density: float = 0.5

    def __post_init__(self) -> None:
        count = len(self.adapters)
        if not 2 <= count <= MOST_PARENTS or len(set(self.adapters)) < count:
            raise BadRequest(f"Name 2 to {MOST_PARENTS} different adapters to merge.", param="merge")
        if self.weights and len(self.weights) != count:
            raise BadRequest(f"{count} adapters need {count} weights, not {len(self.weights)}.", param="merge")
        if not all(-10.0 <= weight <= 10.0 and weight for weight in self.weights):
            raise BadRequest("A weight is a number from -10 to 10, and not 0.", param="merge")
        if not 0.0 < self.density <= 1.0:
            raise BadRequest(f"The density is a share above 0, up to 1; {self.density:g} is none.", param="merge")
        if not self.weights:
            object.__setattr__(self, "weights", (_equal(self.method, count),) * count)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Merge:
        """What `told` made."""
        return cls(
            tuple(told["adapters"]), MergeMethod(told["method"]), tuple(map(float, told["weights"])),
            float(told["density"]),
        )  # fmt: skip

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "adapters": list(self.adapters), "weights": list(self.weights)}


def _equal(method: MergeMethod, count: int) -> float:
    """SVD adds what the adapters do; the linear ones add the matrices with the weights' roots; TIES takes means."""
    if method is MergeMethod.SVD:
        return 1.0 / count
    return 1.0 / count**2 if method in {MergeMethod.LINEAR, MergeMethod.DARE_LINEAR} else 1.0


def require_alike(parents: Sequence[Adapter], method: MergeMethod) -> None:
    """Raises Conflict where the adapters cannot become one."""
    if len({parent.base_digest for parent in parents}) > 1:
        raise Conflict("The adapters are for different base models; merge those of one.", code="other_base")
    ranks = {parent.name: parent.rank for parent in parents}
    if len(set(ranks.values())) > 1 and method is not MergeMethod.SVD:
        told = ", ".join(f"{name} {rank}" for name, rank in ranks.items())
        raise Conflict(f"{method} needs adapters of one rank ({told}); use svd.", code="other_rank")
