"""Whether an adapter's tensors fit each other, its config and the base model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.errors import BadAdapter
from service.drivers.base_model import weight_shapes

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Pair:
    """A module's delta B·A: `outputs` x `rank` times `rank` x `inputs`."""

    inputs: int
    outputs: int
    rank: int


def check_pairs(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, Pair]:
    """The adapter's modules; BadAdapter where a half is missing, misshapen, or of another rank than the config's."""
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadAdapter(f"Tensor {name!r} is no part of a plain LoRA; save the adapter again with PEFT.")
        if len(shape) != 2 or 0 in shape:
            raise BadAdapter(f"Tensor {name!r} has shape {list(shape)}, not that of a matrix; save it again with PEFT.")
        halves.setdefault(match["module"], {})[match["half"]] = shape
    if not halves:
        raise BadAdapter("The adapter holds no tensors; train it before it is added.")
    return {module: _pair(module, half, config) for module, half in halves.items()}


def _pair(module: str, half: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Pair:
    if set(half) != {"A", "B"}:
        raise BadAdapter(f"{module!r} has only one of lora_A and lora_B; save the adapter again with PEFT.")
    (rank, inputs), (outputs, rank_b) = half["A"], half["B"]
    if rank != rank_b or (rank != config["r"] and not config.get("rank_pattern")):
        raise BadAdapter(
            f"{module!r} has ranks {rank} (lora_A) and {rank_b} (lora_B) where adapter_config.json says {config['r']}; "
            "config and weights are not of one adapter."
        )
    return Pair(inputs, outputs, rank)


def check_against_base(pairs: Mapping[str, Pair], base: Path) -> None:
    """BadAdapter unless every module of the adapter is one of the base's, with the same inputs and outputs."""
    config = json.loads((base / "config.json").read_text("utf-8"))
    kept = weight_shapes(base)
    for module, pair in pairs.items():
        expected = kept.get(f"{module}.weight") or _from_config(module, config)
        if expected is None:
            raise BadAdapter(
                f"The base model {base.name!r} has no module {module!r}: the adapter was trained for another model; "
                "train it on this one."
            )
        if tuple(expected) != (pair.outputs, pair.inputs):
            raise BadAdapter(
                f"{module!r} maps {pair.inputs} to {pair.outputs} in the adapter and {expected[1]} to {expected[0]} "
                f"in the base model {base.name!r}: the adapter was trained for another model; train it on this one."
            )


def _from_config(module: str, config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Outputs and inputs of a usual projection, for weights kept under other names (quantized, tied)."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    layer = _LAYER.search(module)
    if not hidden or not heads or (layer and int(layer[1]) >= config.get("num_hidden_layers", 0)):
        return None
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    inner, vocabulary = config.get("intermediate_size", 0), config.get("vocab_size", 0)
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
        "lm_head": (vocabulary, hidden),
    }.get(module.rpartition(".")[2])
