"""PEFT's LoRA layers with the same arithmetic in fewer steps: their own add, scale and cast a whole activation each.

Layers that are given the same activation (an attention's query, key and value; a feed-forward's gate and up) are one
product: on a CPU small products cost as much as larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear

from retrain_jobs.recipes.gated import gated, is_same, may_be_gated
from retrain_jobs.recipes.low import Low, Lows, add, joined, learn_a, learn_b
from retrain_jobs.recipes.norms import short_norms
from retrain_jobs.recipes.qkv import PROJECTIONS, Joint, short_attention
from retrain_jobs.recipes.rotary import short_rotations
from retrain_jobs.recipes.spared import tokenwise
from retrain_jobs.recipes.wide import backwards, forwards, is_short

TOGETHER = (PROJECTIONS, ("gate_proj", "up_proj"))
"""What transformers' models call layers that are given the same."""

WORTH = 2**24
"""Numbers; to hold fewer in half of their bytes saves less than 32 MiB, and costs a fortieth of a step."""


class _LoraLinear(torch.autograd.Function):
    """y = x W' + bias and what LoRA adds, for several layers side by side; the base's weight is frozen.

    x is ... x in. The layers' own weights, given last, learn by themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, lows: Lows, *_: torch.Tensor
    ) -> torch.Tensor:
        flat, a = x.reshape(-1, x.shape[-1]), joined(lows)
        low = flat @ a.t()
        ctx.save_for_backward(flat, weight, a, low)
        ctx.lows, ctx.shape = lows, x.shape
        return add(forwards(flat, weight, bias), low, lows).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, a, low = ctx.saved_tensors
        grad = gradients[0].reshape(-1, gradients[0].shape[-1])
        to_low = learn_b(grad, low, ctx.lows)
        learn_a(to_low, flat, ctx.lows)
        to_x = backwards(grad, weight).addmm_(to_low, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return to_x, *(None,) * (len(ctx.needs_input_grad) - 1)


class _Group:
    """Layers that are called one after the other with the same activation: the first call computes all.

    Attributes:
        weight, bias: of their bases; within `joined` of all, one below the other.
    """

    def __init__(self, layers: Sequence[Any], adapter: str) -> None:
        self._bases = [layer.base_layer for layer in layers]
        self.lows: Lows = [
            Low(layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]) for layer in layers
        ]
        self._sizes = [base.out_features for base in self._bases]
        self.weight: torch.Tensor = self._bases[0].weight
        self.bias: torch.Tensor | None = self._bases[0].bias
        self._given: torch.Tensor | None = None
        self._outs: dict[int, torch.Tensor] = {}

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Within the block the layers' weights are parts of one."""
        dtype = self.weight.dtype
        self.hold(torch.cat([base.weight.data for base in self._bases]))
        if self.bias is not None:
            self.bias = torch.cat([base.bias.data for base in self._bases])
        try:
            yield
        finally:
            for base in self._bases:
                base.weight.data = base.weight.data.to(dtype, copy=True)

    def hold(self, weight: torch.Tensor) -> None:
        """Within `joined`: have these weights, of which the layers' are parts."""
        self.weight = weight
        for base, part in zip(self._bases, torch.split(weight, self._sizes), strict=True):
            base.weight.data = part

    def call(self, number: int) -> Callable[..., torch.Tensor]:
        """The `number`-th layer's forward."""

        def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            if x is not self._given or number not in self._outs:
                self._given, self._outs = x, dict(enumerate(torch.split(self.compute(x), self._sizes, -1)))
            out = self._outs.pop(number)
            if not self._outs:
                self._given = None
            return out

        return forward

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """All layers' results side by side."""
        out: torch.Tensor = _LoraLinear.apply(x, self.weight, self.bias, self.lows, *self.weights())  # type: ignore[no-untyped-call]
        return out

    def weights(self) -> Iterator[torch.Tensor]:
        """The adapter's."""
        for low in self.lows:
            yield from (low.a, low.b)


@contextmanager
def lean(model: Any, adapter: str = "default") -> Iterator[None]:
    """Within the block plain linear layers, feed-forwards and norms go the short way; those with dropout or another
    base PEFT's."""
    with ExitStack() as stack:
        stack.enter_context(short_norms(model))
        stack.enter_context(short_rotations(model))
        groups: dict[tuple[int, ...], _Group] = {}
        for layers in _groups(model, adapter):
            group = groups[tuple(map(id, layers))] = _Group(layers, adapter)
            stack.enter_context(group.joined())
            for number, layer in enumerate(layers):
                layer.forward = group.call(number)
                stack.callback(delattr, layer, "forward")
        for module in filter(may_be_gated, model.modules()):
            both = groups.get((id(module.gate_proj), id(module.up_proj)))
            down = groups.get((id(module.down_proj),))
            if both is None or down is None:
                continue
            short = gated(both.compute, down)
            if is_same(module, short):
                module.forward = short
                stack.callback(delattr, module, "forward")
        stack.enter_context(short_attention(model, lambda module: _joint(module, groups)))
        _shorten([group for group in groups.values() if is_short(group.weight)])
        yield


def _joint(module: Any, groups: Mapping[tuple[int, ...], _Group]) -> Joint | None:
    group = groups.get(tuple(id(getattr(module, name)) for name in PROJECTIONS))
    return None if group is None else group.compute


def _shorten(groups: Sequence[_Group]) -> None:
    """Hold the groups' weights in bfloat16, which is what they are; each product makes them wide again.

    They lie in one piece: between several, what a step takes and frees would find room for some of it only.
    """
    sizes = [group.weight.numel() for group in groups]
    if sum(sizes) < WORTH:
        return
    memory = torch.empty(sum(sizes), dtype=torch.bfloat16)
    for group, part in zip(groups, torch.split(memory, sizes), strict=True):
        group.hold(part.view(group.weight.shape).copy_(group.weight))


def _groups(model: Any, adapter: str) -> Iterator[list[Any]]:
    """All layers that go the short way, each with those that are given what it is given."""
    alone = {id(layer) for layer in tokenwise(model)}
    taken: set[int] = set()
    for parent in model.modules():
        for names in TOGETHER:
            found = [getattr(parent, name, None) for name in names]
            layers = [one for one in found if _is_plain(one, adapter) and id(one) not in alone]
            if len(layers) > 1 and len({_kind(layer) for layer in layers}) == 1:
                taken.update(map(id, layers))
                yield layers
    for layer in model.modules():
        if _is_plain(layer, adapter) and id(layer) not in taken:
            yield [layer]


def _is_plain(layer: Any, adapter: str) -> bool:
    return (
        isinstance(layer, Linear)
        and type(layer.base_layer) is torch.nn.Linear
        and isinstance(layer.lora_dropout[adapter], torch.nn.Identity)
    )


def _kind(layer: Any) -> tuple[Any, ...]:
    base = layer.base_layer
    return base.in_features, base.weight.dtype, base.weight.device, base.bias is None
