"""LoRA on CPU by two matmuls a layer: every row meets every adapter, and keeps only its own.

A *row* is one token of an engine step (one request, for logits). A *slot* is an adapter's place in
vLLM's stacked weights, one pair a slice of the layer (q, k, v are slices of one layer):
`a [slots, 1, rank, in]`, `b [slots, 1, out, rank]`. They are packed here, when an adapter changes,
into `A [K, in]` and `B [out of all slices, K]`, where K runs over slots, then slices, then ranks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

Slots = tuple[int, ...]
Linear = Callable[[Tensor], Tensor]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Rows:
    """Which slot each row uses: `slots [rows]`, -1 for none."""

    def __init__(self, slots: Tensor) -> None:
        distinct = slots.unique().tolist()
        self.slots = slots
        self.active = frozenset(slot for slot in distinct if slot >= 0)
        self.uniform = len(distinct) == 1
        self._keep: dict[tuple[Slots, int, int], Tensor] = {}

    def mask(self, h: Tensor, slots: Slots) -> Tensor:
        """Zero, in place, what `h [rows, K]` holds of slots other than the row's own."""
        if self.uniform:
            return h
        if len(h) != len(self.slots):
            raise ValueError(
                f"{len(h)} rows of activations, but the batch maps {len(self.slots)} to adapters:"
                " prompt_logprobs of a model with adapters on its output layer cannot be batched."
            )
        layout = slots, h.shape[1] // len(slots), h.element_size()
        if layout not in self._keep:
            own = self.slots.unsqueeze(1) == torch.tensor(slots)
            self._keep[layout] = -own.to(BITS[layout[2]]).repeat_interleave(layout[1], dim=1)
        # Bits, not a product: 0 * inf is NaN, and one adapter's overflow must not reach other rows.
        h.view(BITS[layout[2]]).bitwise_and_(self._keep[layout])
        return h


class Packed:
    """One layer's stacked weights, packed once for each set of slots until an adapter changes."""

    def __init__(self, stacked: Sequence[Tensor], pack: Callable[[Slots], Tensor]) -> None:
        self.stacked = tuple(stacked)
        self.pack = pack
        self.versions: tuple[int, ...] = ()

    def refresh(self) -> None:
        """Forget all that was packed, if vLLM wrote to the stacked weights since."""
        versions = tuple([tensor._version for tensor in self.stacked])
        if versions != self.versions:
            self.versions = versions
            self.linears: dict[Slots, Linear] = {}
            self.written = frozenset[int]().union(
                *(b.flatten(1).any(dim=1).nonzero().flatten().tolist() for b in self.stacked)
            )

    def linear(self, slots: Slots) -> Linear:
        if slots not in self.linears:
            self.linears[slots] = engine_linear(self.pack(slots))
        return self.linears[slots]

    def slots(self, rows: Rows) -> Slots:
        """The slots to compute for `rows`; none where no row's adapter changes this layer."""
        if rows.active.isdisjoint(self.written):
            return ()
        # All of them in a mixed batch, so that what is packed does not follow the traffic.
        return tuple(sorted(rows.active if rows.uniform else self.written))


def engine_linear(weight: Tensor) -> Linear:
    """`x @ weight.T` by the kernel that the engine gives a layer of this shape on this CPU."""
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    linear = layer.cpu_linear
    return lambda x: linear(x, weight, None)


def pack_a(stacked: Sequence[Tensor], slots: Slots) -> Tensor:
    chosen = list(slots)
    return torch.stack([a[chosen, 0] for a in stacked], dim=1).flatten(0, 2)


def pack_b(stacked: Sequence[Tensor], slots: Slots) -> Tensor:
    """Block-diagonal over the slices: a slice's output takes only what its own `a` shrank."""
    return torch.cat([torch.block_diag(*[b[slot, 0] for b in stacked]) for slot in slots], dim=1)


class DensePunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU LoRA interface, with each row changed by its own adapter and by no other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens = self._requests = Rows(torch.empty(0, dtype=torch.long))
        self._a: dict[int, Packed] = {}
        self._b: dict[int, Packed] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        self._tokens = Rows(self.token_lora_indices.clone())
        self._requests = Rows(self.sampler_indices.clone())

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        self._apply(y, x, lora_a_stacked, lora_b_stacked, scale, self._tokens, add_inputs)

    def add_lora_logits(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensor,
        lora_b_stacked: Tensor,
        scale: float,
        **kwargs: Any,
    ) -> None:
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        self._apply(y, x, (lora_a_stacked,), (lora_b_stacked,), scale, self._requests, True)

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        self._expand(y, x.unsqueeze(1), (lora_b_stacked,), add_inputs)

    def add_shrink(
        self,
        y: Sequence[Tensor] | Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        packed, x = self._packed_a(lora_a_stacked), x.view(-1, x.shape[-1])
        slots = packed.slots(self._tokens)
        if slots:
            h = self._tokens.mask(packed.linear(slots)(x.to(lora_a_stacked[0].dtype)), slots)
            own = h.view(len(x), len(slots), len(y), -1).sum(dim=1) * scale
        for index, target in enumerate(y):
            target.copy_(own[:, index]) if slots else target.zero_()

    def add_expand(
        self,
        y: Tensor,
        x: Sequence[Tensor] | Tensor,
        lora_b_stacked: tuple[Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        y = y.view(-1, y.shape[-1])[:, offset_start : offset_start + sum(output_slices)]
        self._expand(y, torch.stack(tuple(x), dim=1), lora_b_stacked, add_inputs)

    def _apply(
        self,
        y: Tensor,
        x: Tensor,
        a: tuple[Tensor, ...],
        b: tuple[Tensor, ...],
        scale: float,
        rows: Rows,
        add: bool,
    ) -> None:
        expand = self._packed_b(b)
        slots = expand.slots(rows)
        if slots:
            h = rows.mask(self._packed_a(a).linear(slots)(x.to(a[0].dtype)), slots)
            write(y, expand.linear(slots)(h if scale == 1 else h * scale), rows, slots, add)

    def _expand(self, y: Tensor, h: Tensor, b: tuple[Tensor, ...], add: bool) -> None:
        """Expand `h [rows, slices, rank]`, each row of it shrunk by the row's own slot."""
        expand, rows = self._packed_b(b), self._tokens
        slots = expand.slots(rows)
        if slots:
            spread = h.to(b[0].dtype).flatten(1).repeat(1, len(slots))
            write(y, expand.linear(slots)(rows.mask(spread, slots)), rows, slots, add)

    def _packed_a(self, stacked: tuple[Tensor, ...]) -> Packed:
        return find(self._a, stacked, pack_a)

    def _packed_b(self, stacked: tuple[Tensor, ...]) -> Packed:
        return find(self._b, stacked, pack_b)


def find(
    known: dict[int, Packed],
    stacked: tuple[Tensor, ...],
    pack: Callable[[Sequence[Tensor], Slots], Tensor],
) -> Packed:
    """What is packed of these weights now; held with them, so that an id is never another's."""
    packed = known.get(id(stacked[0]))
    if packed is None:
        packed = known[id(stacked[0])] = Packed(stacked, lambda slots: pack(stacked, slots))
    packed.refresh()
    return packed


def write(y: Tensor, delta: Tensor, rows: Rows, slots: Slots, add: bool) -> None:
    """Add `delta` to `y`, or put it in place of the rows of `y` that use one of `slots`."""
    if y.shape != delta.shape:  # logits may be padded beyond the adapter's vocabulary
        width = min(y.shape[1], delta.shape[1])
        y, delta = y[:, :width], delta[:, :width]
    if add:
        y.add_(delta)
    else:
        own = torch.isin(rows.slots, torch.tensor(slots)).unsqueeze(1)
        y.copy_(torch.where(own, delta.to(y.dtype), y))
