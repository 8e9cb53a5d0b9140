"""LoRA on CPU for the few rows of a decoding step: one compiled call a layer.

A small model's step takes milliseconds, and a PyTorch call in it costs ten microseconds however little it computes.
This kernel does a layer's whole change, y += scale * B A x for each row's own adapter, in one call. It reads no other
adapter's weights, rounds where PEFT's two matmuls round, and a row's result does not depend on the rows beside it.

It is compiled once a type of numbers, by `compiled`. bfloat16 is handled as its bits, the upper half of a float32;
float32 needs no rounding.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import carray, float32, int64, njit, types, uint16, void
from numba.extending import intrinsic
from torch import Tensor

GROUP = 4
"""Rows that share each weight read, and ranks that share each pass over the outputs."""

SHIFT, HALF, TIE = (np.uint32(n) for n in (16, 0x7FFF, 1))

MATH = {"reassoc", "contract", "nsz"}
"""What vectorized sums need of LLVM; infinities and NaN keep their meaning."""

Stacked = tuple[Tensor, ...]


@intrinsic
def as_pointer(_: Any, address: Any) -> Any:
    return types.voidptr(address), lambda _c, build, _s, args: build.inttoptr(args[0], ir.IntType(8).as_pointer())


@intrinsic
def as_bits(_: Any, value: Any) -> Any:
    return types.uint32(types.float32), lambda _c, build, _s, args: build.bitcast(args[0], ir.IntType(32))


@intrinsic
def as_float(_: Any, bits: Any) -> Any:
    return types.float32(types.uint32), lambda _c, build, _s, args: build.bitcast(args[0], ir.FloatType())


@njit(inline="always")
def from_bfloat16(half: Any) -> Any:
    return as_float(np.uint32(half) << SHIFT)


@njit(inline="always")
def to_bfloat16(value: Any) -> Any:
    """To nearest even."""
    bits = as_bits(value)
    return np.uint16((bits + HALF + ((bits >> SHIFT) & TIE)) >> SHIFT)


@njit(inline="always")
def as_it_is(value: Any) -> Any:
    return value


class Format(NamedTuple):
    """How the kernel holds, reads and writes the numbers of one type, and computes with them in float32."""

    stored: Any
    widen: Any
    narrow: Any
    limit: int
    """Multiplications of a call from which the matmuls of `dense_lora` are faster, on one thread (vLLM's)."""


FORMATS = {
    torch.bfloat16: Format(uint16, from_bfloat16, to_bfloat16, limit=2_000_000),  # measured with AVX-512
    torch.float32: Format(float32, as_it_is, as_it_is, limit=8_000_000),  # measured with AVX2
}


@cache
def compiled(dtype: torch.dtype) -> Callable[..., None]:
    """Compile the kernel for one of FORMATS: 2 to 3 s, so engines ask for their own type's, and before they serve."""
    stored, widen, narrow, _ = FORMATS[dtype]

    @njit(void(float32[::1], stored[::1]), inline="never")
    def load(to: Any, row: Any) -> None:
        for i in range(to.shape[0]):
            to[i] = widen(row[i])

    @njit(void(stored[::1], float32[::1]), inline="never")
    def add(row: Any, change: Any) -> None:
        for o in range(change.shape[0]):
            row[o] = narrow(widen(row[o]) + widen(narrow(change[o])))

    @njit(void(float32[:, ::1], float32[:, ::1], stored[:, ::1], float32), fastmath=MATH, inline="never")
    def shrink(h: Any, x: Any, a: Any, scale: Any) -> None:
        """h [GROUP, K] = scale * x [GROUP, in] @ a [K, in].T"""
        x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
        for k in range(a.shape[0]):
            weights = a[k]
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(weights.shape[0]):
                w = widen(weights[i])
                s0 += x0[i] * w
                s1 += x1[i] * w
                s2 += x2[i] * w
                s3 += x3[i] * w
            h[0, k], h[1, k] = widen(narrow(s0)) * scale, widen(narrow(s1)) * scale
            h[2, k], h[3, k] = widen(narrow(s2)) * scale, widen(narrow(s3)) * scale

    @njit(void(float32[:, ::1], float32[:, ::1], stored[:, ::1], int64, int64, int64), fastmath=MATH, inline="never")
    def expand(y: Any, h: Any, b: Any, k: Any, start: Any, end: Any) -> None:
        """y [GROUP, start:end] += h [GROUP, k:] @ b [rank, start:end]"""
        y0, y1, y2, y3 = y[0, start:end], y[1, start:end], y[2, start:end], y[3, start:end]
        for r in range(0, b.shape[0], GROUP):
            b0, b1, b2, b3 = b[r, start:end], b[r + 1, start:end], b[r + 2, start:end], b[r + 3, start:end]
            p0, p1, p2, p3 = h[0, k + r], h[0, k + r + 1], h[0, k + r + 2], h[0, k + r + 3]
            q0, q1, q2, q3 = h[1, k + r], h[1, k + r + 1], h[1, k + r + 2], h[1, k + r + 3]
            r0, r1, r2, r3 = h[2, k + r], h[2, k + r + 1], h[2, k + r + 2], h[2, k + r + 3]
            t0, t1, t2, t3 = h[3, k + r], h[3, k + r + 1], h[3, k + r + 2], h[3, k + r + 3]
            for o in range(y0.shape[0]):
                w0, w1, w2, w3 = widen(b0[o]), widen(b1[o]), widen(b2[o]), widen(b3[o])
                y0[o] += (p0 * w0 + p1 * w1) + (p2 * w2 + p3 * w3)
                y1[o] += (q0 * w0 + q1 * w1) + (q2 * w2 + q3 * w3)
                y2[o] += (r0 * w0 + r1 * w1) + (r2 * w2 + r3 * w3)
                y3[o] += (t0 * w0 + t1 * w1) + (t2 * w2 + t3 * w3)

    @njit(void(*[int64] * 11, float32), error_model="numpy")
    def change(
        y_at: Any, x_at: Any, used_at: Any, a_at: Any, b_at: Any, ends_at: Any,
        rows: Any, slots: Any, slices: Any, rank: Any, width: Any, scale: Any,
    ) -> None:  # fmt: skip
        """Addresses rather than arrays: to unpack six arrays would cost as much as a lone row's arithmetic."""
        ends = carray(as_pointer(ends_at), (slices + 1,), np.int64)
        out, wide = ends[slices], slices * rank
        y, x = carray(as_pointer(y_at), (rows, out), stored), carray(as_pointer(x_at), (rows, width), stored)
        a = carray(as_pointer(a_at), (slots, wide, width), stored)
        b = carray(as_pointer(b_at), (slots, rank, out), stored)
        used = carray(as_pointer(used_at), (rows,), np.int64)
        inputs, h = np.zeros((GROUP, width), np.float32), np.empty((GROUP, wide), np.float32)
        outputs, group = np.empty((GROUP, out), np.float32), np.empty(GROUP, np.int64)
        for slot in range(slots):
            filled = 0
            for row in range(rows + 1):
                if row < rows:
                    if used[row] != slot:
                        continue
                    group[filled] = row
                    filled += 1
                if filled == 0 or (filled < GROUP and row < rows):
                    continue
                for n in range(filled):
                    load(inputs[n], x[group[n]])
                shrink(h, inputs, a[slot], scale)
                outputs[:] = 0
                for part in range(slices):
                    expand(outputs, h, b[slot], part * rank, ends[part], ends[part + 1])
                for n in range(filled):
                    add(y[group[n]], outputs[n])
                filled = 0

    return change  # type: ignore[no-any-return]


def rank_in_use(a: Stacked) -> int:
    """The highest rank of any slot, in whole groups; the engine pads adapters of lower ranks with zeros."""
    used = torch.stack([part.any(dim=3).flatten(0, 1).any(dim=0) for part in a]).any(dim=0).nonzero()
    return min(a[0].shape[2], GROUP * (int(used.max()) // GROUP + 1)) if len(used) else GROUP


class Kernel:
    """One layer's adapters in the order in which the kernel reads them; for `a` and `b` see `dense_lora`."""

    def __init__(self, a: Stacked, b: Stacked) -> None:
        slots, _, padded, width = a[0].shape
        self._most, self._dtype = 0, a[0].dtype
        if padded % GROUP or self._dtype not in FORMATS or any(part.dtype is not self._dtype for part in (*a, *b)):
            return
        self._change = compiled(self._dtype)
        rank = rank_in_use(a)
        self._a = torch.cat([part[:, 0, :rank] for part in a], dim=1)
        self._b = torch.cat([part[:, 0, :, :rank].transpose(1, 2) for part in b], dim=2).contiguous()
        self._ends = torch.tensor([0] + [part.shape[2] for part in b]).cumsum(0)
        self._weights = self._a.data_ptr(), self._b.data_ptr(), self._ends.data_ptr()
        self._shape = slots, len(a), rank, width
        self._width = width
        self._stride = self._b.shape[2], 1
        self._most = FORMATS[self._dtype].limit // (rank * (len(a) * width + self._b.shape[2]))

    def takes(self, y: Tensor, x: Tensor, count: int, slots: int) -> bool:
        """Whether `x [rows, in]` is `count` rows, few enough, laid out with `y [rows, out]` as the kernel reads.

        The matmuls would compute each row for every one of `slots`, the kernel for its own only."""
        return (
            count <= self._most * slots
            and x.shape == (count, self._width)
            and x.dtype is y.dtype is self._dtype
            and x.is_contiguous()
            and y.stride() == self._stride
        )

    def __call__(self, y: Tensor, x: Tensor, count: int, used_at: int, scale: float) -> None:
        """Change `y` in place, by what the slots at address `used_at`, int64, make of `x`; -1 leaves a row alone."""
        self._change(y.data_ptr(), x.data_ptr(), used_at, *self._weights, count, *self._shape, scale)
