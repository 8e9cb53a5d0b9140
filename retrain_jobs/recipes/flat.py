"""All trainable weights as one vector, so that a step of the optimizer is a handful of operations on any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

FORGETS = 8
"""What an average of weights holds is old by 1 / (FORGETS + 2) of the steps so far, in the mean: a tenth."""


class FlatWeights:
    """Float32 masters; the model computes with copies in its own type.

    Gradients lie in one vector too, which is what several processes add up.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], dtype: torch.dtype) -> None:
        self._parameters = list(parameters)
        self.master = torch.nn.Parameter(torch.cat([weight.detach().float().flatten() for weight in self._parameters]))
        self._working = self.master.detach().to(dtype)  # the same memory where the type is the same
        self.gradient = torch.zeros_like(self._working)
        start = 0
        for weight in self._parameters:
            end = start + weight.numel()
            weight.grad = None
            weight.data = self._working[start:end].view(weight.shape)
            weight.grad = self.gradient[start:end].view(weight.shape)
            start = end

    def put(self, values: torch.Tensor) -> None:
        """Set all weights."""
        with torch.no_grad():
            self.master.copy_(values)
        self._publish()

    def release(self) -> None:
        """Give the model its weights in float32, each with memory of its own."""
        start = 0
        for weight in self._parameters:
            end = start + weight.numel()
            weight.grad = None
            weight.data = self.master.detach()[start:end].view(weight.shape).clone()
            start = end

    def _publish(self) -> None:
        if self._working.data_ptr() != self.master.data_ptr():
            self._working.copy_(self.master.detach())


class FlatAdamW(FlatWeights):
    """AdamW (Loshchilov and Hutter, 2019) on the masters, and the average of the weights that it has gone through.

    The average (polynomial decay: Shamir and Zhang, 2013) is where steps at a high rate circle around: at any moment
    it is about as good as the weights would be had the rate been lowered by then.

    Attributes:
        average: the weights to judge and to keep, as one vector.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], dtype: torch.dtype, *, beta2: float, weight_decay: float,
        max_norm: float,
    ) -> None:  # fmt: skip
        super().__init__(parameters, dtype)
        self._max_norm = max_norm
        self._adam = torch.optim.AdamW([self.master], lr=0.0, betas=(0.9, beta2), weight_decay=weight_decay, fused=True)
        self.average = self.master.detach().clone()
        self._steps = 0

    def step(self, rate: float) -> None:
        """Follow the gradient, no further than its norm allows, and clear it."""
        gradient = self.gradient.float()  # the same memory where it is float32 already
        norm = torch.linalg.vector_norm(gradient)
        self.master.grad = gradient.mul_((self._max_norm / (norm + 1e-6)).clamp(max=1.0))
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self.master.grad = None
        self.gradient.zero_()
        self._publish()
        self._steps += 1
        self.average.lerp_(self.master.detach(), (FORGETS + 1) / (FORGETS + self._steps))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model has the average of its weights."""
        own = self.master.detach().clone()
        self.put(self.average)
        try:
            yield
        finally:
            self.put(own)

    def state(self) -> dict[str, Any]:
        """For `load`: weights, their average, and moments."""
        weights = {"master": self.master.detach().clone(), "average": self.average.clone(), "steps": self._steps}
        return {**weights, "adam": self._adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.put(state["master"])
        self.average.copy_(state["average"])
        self._steps = state["steps"]
        self._adam.load_state_dict(state["adam"])
