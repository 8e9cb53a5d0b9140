"""LoRA on CPU by two matmuls a layer: every row meets every adapter, and keeps only its own.

A *row* is one token of an engine step (one request, for logits). A *slot* is an adapter's place in
vLLM's stacked weights, one pair a slice of the layer (q, k, v are slices of one layer):
`a [slots, 1, rank, in]`, `b [slots, 1, out, rank]`. They are packed here, when an adapter changes,
into `A [K, in]` and `B [out of all slices, K]`, where K runs over slots, then slices, then ranks.

A small model's step takes milliseconds and its cost is calls rather than arithmetic: hence direct
kernel calls, and buffers that all layers of a step share; and for few rows `lora_kernel`, one call for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import _custom_ops as ops
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from service.engine.lora_kernel import FORMATS, Kernel, Stacked, compiled

Slots = tuple[int, ...]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Rows:
    """Which slot each row of a step uses: `slots [rows]`, -1 for none."""

    def __init__(self, slots: Tensor) -> None:
        distinct = set(slots.tolist())
        self.slots = slots
        self.count, self.address = len(slots), slots.data_ptr()
        self.active = frozenset(slot for slot in distinct if slot >= 0)
        self.uniform: Slots = tuple(self.active) if len(distinct) == 1 else ()
        self.buffers: dict[tuple[int, int, bool], Tensor] = {}
        self._keep: dict[tuple[Slots, int], Tensor] = {}

    def mask(self, h: Tensor, slots: Slots) -> None:
        """Zero, in place, what `h [rows, K]` holds of slots other than the row's own."""
        if self.uniform:
            return
        if len(h) != len(self.slots):
            raise ValueError(
                f"{len(h)} rows of activations, but the batch maps {len(self.slots)} to adapters:"
                " prompt_logprobs of a model with adapters on its output layer cannot be batched."
            )
        bits = BITS[h.element_size()]
        keep = self._keep.get((slots, h.shape[1]))
        if keep is None:
            own = (self.slots.unsqueeze(1) == torch.tensor(slots)).to(bits)
            keep = (-own).repeat_interleave(h.shape[1] // len(slots), dim=1)
            self._keep[slots, h.shape[1]] = keep
        # Bits, not a product: 0 * inf is NaN, and one adapter's overflow must not reach other rows.
        h.view(bits).bitwise_and_(keep)


def onednn(weight: Tensor) -> Any:
    """oneDNN's product with `weight [in, out]`, or None where it has none, as of bfloat16 on CPUs without AVX-512."""
    if not ops._supports_onednn:
        return None
    try:
        return ops.create_onednn_mm(weight, 32)
    except RuntimeError:
        return None


class Gemm:
    """`x @ weight.T` by the kernel of vLLM's own CPU layers, into a buffer that the step shares."""

    def __init__(self, weight: Tensor, *, shrinks: bool) -> None:
        self._width, self._dtype, self._shrinks = len(weight), weight.dtype, shrinks
        self._weight = weight.t()
        self._handler = onednn(self._weight)
        if self._handler:
            self._run, self._key = torch.ops._C.onednn_mm.default, self._handler.handler_tensor

    def __call__(self, x: Tensor, rows: Rows) -> Tensor:
        # Shrunk and expanded rows may be equally wide, and one is read while the other is written.
        size = len(x), self._width, self._shrinks
        out = rows.buffers.get(size)
        if out is None:
            out = rows.buffers[size] = torch.empty(size[0], size[1], dtype=self._dtype)
        if self._handler:
            self._run(out, x, None, self._key)
        else:
            torch.mm(x, self._weight, out=out)
        return out


class Packed:
    """Some of one layer's stacked weights, packed as they are asked for until an adapter changes."""

    def __init__(self, stacked: Stacked) -> None:
        self._stacked = stacked
        self._version = -1

    def refresh(self) -> None:
        """Forget what was packed, if vLLM wrote to the weights since: it writes to all of a layer's at once."""
        version = self._stacked[0]._version + self._stacked[-1]._version
        if version != self._version:
            self._version = version
            self._gemms: dict[tuple[Any, Slots], Gemm] = {}
            self._kernel: Kernel | None = None
            nonzero = torch.stack([weight.flatten(1).any(dim=1) for weight in self._stacked])
            self._written: Slots = tuple(nonzero.any(dim=0).nonzero()[:, 0].tolist())

    def slots(self, rows: Rows) -> Slots:
        """The slots to compute for `rows`; none where no row's adapter changes this layer."""
        if rows.active.isdisjoint(self._written):
            return ()
        # All of them in a mixed batch, so that what is packed does not follow the traffic.
        return rows.uniform or self._written

    def gemm(self, pack: Callable[[Stacked, Slots], Gemm], stacked: Stacked, slots: Slots) -> Gemm:
        gemm = self._gemms.get((pack, slots))
        if gemm is None:
            gemm = self._gemms[pack, slots] = pack(stacked, slots)
        return gemm

    def kernel(self, a: Stacked, b: Stacked) -> Kernel:
        if self._kernel is None:
            self._kernel = Kernel(a, b)
        return self._kernel


def pack_a(stacked: Stacked, slots: Slots) -> Gemm:
    weight = torch.stack([a[list(slots), 0] for a in stacked], dim=1)
    return Gemm(weight.flatten(0, 2), shrinks=True)


def pack_b(stacked: Stacked, slots: Slots) -> Gemm:
    """Block-diagonal over the slices: a slice's output takes only what its own `a` shrank."""
    blocks = [torch.block_diag(*[b[slot, 0] for b in stacked]) for slot in slots]  # type: ignore[no-untyped-call]
    return Gemm(torch.cat(blocks, dim=1), shrinks=False)


class DensePunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU LoRA interface, with each row changed by its own adapter and by no other."""

    def __init__(self, *args: Any, lora_config: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if lora_config is not None and lora_config.lora_dtype in FORMATS:
            compiled(lora_config.lora_dtype)  # at the engine's start rather than in its first request
        self._tokens = self._requests = Rows(torch.empty(0, dtype=torch.long))
        self._packed: dict[tuple[int, bool], Packed] = {}

    def update_metadata(self, mapping: Any, *args: Any, **kwargs: Any) -> None:
        # Not what else vLLM derives of a prompt's rows: that is for its own kernels, and costs a tenth of a step.
        self._update_base_metadata(mapping, *args)
        self.is_prefill = mapping.is_prefill
        self._tokens = Rows(self.token_lora_indices.clone())
        self._requests = Rows(self.sampler_indices.clone())

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Stacked,
        lora_b_stacked: Stacked,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        if self._tokens.active:
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
        if self._requests.active:
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            self._apply(y, x, (lora_a_stacked,), (lora_b_stacked,), scale, self._requests, True)

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        self._expand(y, x, (lora_b_stacked,), add_inputs)

    def add_shrink(
        self,
        y: Sequence[Tensor] | Tensor,
        x: Tensor,
        lora_a_stacked: Stacked,
        scale: float,
        **kwargs: Any,
    ) -> None:
        layer, x = self._of(lora_a_stacked), x.view(-1, x.shape[-1])
        slots = layer.slots(self._tokens)
        if slots:
            h = layer.gemm(pack_a, lora_a_stacked, slots)(x.to(lora_a_stacked[0].dtype), self._tokens)
            self._tokens.mask(h, slots)
            own = h.view(len(x), len(slots), len(y), -1).sum(dim=1) * scale
        for index, target in enumerate(y):
            target.copy_(own[:, index]) if slots else target.zero_()

    def add_expand(
        self,
        y: Tensor,
        x: Sequence[Tensor] | Tensor,
        lora_b_stacked: Stacked,
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        y = y.view(-1, y.shape[-1])[:, offset_start : offset_start + sum(output_slices)]
        self._expand(y, torch.cat(tuple(x), dim=1), lora_b_stacked, add_inputs)

    def _apply(self, y: Tensor, x: Tensor, a: Stacked, b: Stacked, scale: float, rows: Rows, add: bool) -> None:
        layer = self._of(a, b)
        slots = layer.slots(rows)
        if not slots:
            return
        kernel = layer.kernel(a, b)
        if add and kernel.takes(y, x, rows.count, len(slots)):
            kernel(y, x, rows.count, rows.address, scale)
            return
        h = layer.gemm(pack_a, a, slots)(x.to(a[0].dtype), rows)
        rows.mask(h, slots)
        write(y, layer.gemm(pack_b, b, slots)(h if scale == 1 else h.mul_(scale), rows), rows, slots, add)

    def _expand(self, y: Tensor, h: Tensor, b: Stacked, add: bool) -> None:
        """Expand `h [rows, slices * rank]`, which each row's own slot shrank."""
        layer, rows = self._of(b), self._tokens
        slots = layer.slots(rows)
        if slots:
            h = h.to(b[0].dtype).repeat(1, len(slots))
            rows.mask(h, slots)
            write(y, layer.gemm(pack_b, b, slots)(h, rows), rows, slots, add)

    def _of(self, stacked: Stacked, others: Stacked = ()) -> Packed:
        """What is packed of these weights; it holds them, so that their id is never another's."""
        key = id(stacked[0]), bool(others)
        packed = self._packed.get(key)
        if packed is None:
            packed = self._packed[key] = Packed((*stacked, *others))
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
