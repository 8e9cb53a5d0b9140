"""What a safetensors file holds, read with the standard library alone: no torch, no numpy.

The format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes without holes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


class Malformed(ValueError):
    """The bytes are not a whole safetensors file; the message says what is wrong, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `begin` and `end` count from the first byte of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(start: bytes, file_bytes: int) -> dict[str, Tensor]:
    """Read the header from `start`, the file's first bytes (header included), and check it against the file's size."""
    length = header_length(start, file_bytes)
    try:
        header = json.loads(start[8 : 8 + length])
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Malformed("its header is not JSON, so it is no safetensors file") from error
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    expected = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != expected:
            raise Malformed(f"tensor {name!r} overlaps another or leaves a hole")
        expected = tensor.end
    if expected != file_bytes:
        raise Malformed(f"it has {file_bytes} bytes where its header promises {expected}: it is truncated or padded")
    return tensors


def header_length(start: bytes, file_bytes: int) -> int:
    """Bytes of the JSON header, from the file's first 9 bytes."""
    if len(start) < 9:
        raise Malformed("it is empty or truncated")
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES or start[8:9] != b"{":
        raise Malformed("it does not begin with a header, so it is no safetensors file")
    if 8 + length > file_bytes:
        raise Malformed("it ends within its header: it is truncated")
    return length


def read_header(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    """The raw header (length included) and the tensors of a file that may be larger than memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        start += file.read(header_length(start, size) - 1)
    return start, parse_header(start, size)


def is_finite(dtype: str, content: bytes) -> bool:
    """Whether no value is NaN or infinite, that is: no exponent is all ones. Other types than floats are finite."""
    if dtype == "F16":
        return not any(content[1::2].translate(_marks(0x7C)))
    if dtype == "BF16":
        return not _both(content[1::2].translate(_marks(0x7F)), content[0::2].translate(_marks(0x80)))
    if dtype == "F32":
        return not _both(content[3::4].translate(_marks(0x7F)), content[2::4].translate(_marks(0x80)))
    if dtype == "F64":
        return not _both(content[7::8].translate(_marks(0x7F)), content[6::8].translate(_marks(0xF0)))
    return True


def _marks(mask: int) -> bytes:
    return bytes(1 if byte & mask == mask else 0 for byte in range(256))


def _both(high: bytes, low: bytes) -> bool:
    """Whether both are marked at one place; as two large integers this runs at memory speed."""
    return bool(int.from_bytes(high, "little") & int.from_bytes(low, "little"))


def _tensor(name: str, entry: Any, data_start: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
        if not whole or end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise Malformed(f"tensor {name!r} does not have the size of its shape")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed(f"its header describes tensor {name!r} wrongly") from error
    return Tensor(dtype, shape, data_start + begin, data_start + end)
