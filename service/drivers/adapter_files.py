"""An adapter's files: checked before an engine sees them, named by their content, registered whole or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from service.core.errors import BadAdapter
from service.core.names import adapter_name
from service.core.records import Adapter
from service.drivers.adapter_shapes import check_against_base, check_pairs
from service.drivers.base_model import base_digest, model_folder
from service.drivers.safetensors import Malformed, is_finite, parse_header
from service.ports import Blobs, Registry

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_FLOATS = ("F16", "BF16", "F32", "F64")
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""These only choose the first values; PiSSA, OLoRA, CorDA and LoftQ change the base model as well."""

_REFUSED = {
    "use_dora": "DoRA",
    "lora_bias": "lora_bias",
    "modules_to_save": "modules_to_save",
    "alora_invocation_tokens": "aLoRA",
    "layer_replication": "layer_replication",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QALoRA",
    "target_parameters": "target_parameters",
    "kasa_config": "KaSA",
    "arrow_config": "Arrow routing",
}


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What the files say: `digest` names them; `rank` is the largest; `size_bytes` is that of all files together."""

    digest: str
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int


def read_adapter(folder: Path) -> dict[str, bytes]:
    """The two files of an adapter; BadAdapter where one is missing."""
    if not folder.is_dir():
        raise BadAdapter(f"There is no folder {folder}; give the folder that PEFT's save_pretrained wrote.")
    if not (folder / WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():
        raise BadAdapter(
            f"{folder} holds adapter_model.bin, a pickle, and those can run code; save it anew with "
            "save_pretrained(…, safe_serialization=True)."
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BadAdapter(f"{folder} has no {name}; give the folder that PEFT's save_pretrained wrote.")
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def adapter_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names, lengths and bytes of the config and the weights; other files do not count."""
    total = sha256()
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise BadAdapter(f"The adapter has no {name}; add it again from a whole folder.")
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return total.hexdigest()


def check_adapter(files: Mapping[str, bytes], base: Path | None, *, max_rank: int) -> AdapterFacts:
    """Refuse what an engine would refuse, or worse: serve wrongly.

    Args:
        files: CONFIG and WEIGHTS.
        base: the base model's folder, whose shapes the adapter must fit; None where it is not on this machine.
        max_rank: the engines' `max_lora_rank`.

    Raises:
        BadAdapter: one line that names the cause and the remedy.
    """
    digest = adapter_digest(files)
    config = _parse_config(files[CONFIG])
    weights = files[WEIGHTS]
    try:
        tensors = parse_header(weights, len(weights))
    except Malformed as error:
        raise BadAdapter(f"{WEIGHTS} cannot be read: {error}; save or copy the adapter again.") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise BadAdapter(f"Tensor {name!r} is of type {tensor.dtype}; save the adapter as bfloat16 or float32.")
        if not is_finite(tensor.dtype, weights[tensor.begin : tensor.end]):
            raise BadAdapter(f"Tensor {name!r} holds NaN or infinite values; train again with a lower learning rate.")
    pairs = check_pairs({name: tensor.shape for name, tensor in tensors.items()}, config)
    rank = max(pair.rank for pair in pairs.values())
    if rank > max_rank:
        raise BadAdapter(
            f"The adapter has rank {rank} and the engines serve at most {max_rank}; set engine.max_lora_rank to "
            "one of 8, 16, 32, 64, 128, 256, 320, 512, or train with a lower rank."
        )
    if base is not None:
        check_against_base(pairs, base)
    modules = sorted({module.rpartition(".")[2] for module in pairs})
    return AdapterFacts(digest, rank, tuple(modules), sum(len(content) for content in files.values()))


async def register_adapter(
    store: Registry,
    blobs: Blobs,
    alias: str,
    folder: Path,
    base_model: str,
    *,
    max_rank: int,
    now: float,
    cycle_id: str | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Adapter:
    """Check the files, put them into the adapter store under the adapter's name, then register it.

    Registering the same files again returns what is registered. Whatever fails, no half-written adapter is left: files
    appear whole, and before the row that names them.

    Args:
        base_model: the folder or Hugging Face id of the base that the adapter is for.
        manifest: what the adapter was made from.
    """
    files = await asyncio.to_thread(read_adapter, folder)
    base = model_folder(base_model)
    facts = await asyncio.to_thread(check_adapter, files, base, max_rank=max_rank)
    adapter = Adapter(
        name=str(adapter_name(alias, facts.digest)),
        alias=alias,
        digest=facts.digest,
        base_digest=await asyncio.to_thread(base_digest, base_model),
        rank=facts.rank,
        size_bytes=facts.size_bytes,
        created_at=now,
        cycle_id=cycle_id,
        manifest=dict(manifest or {}) | {"target_modules": list(facts.target_modules)},
    )
    await blobs.put(adapter.name, files)
    await store.add_adapter(adapter)
    return await store.adapter(adapter.name)


def _parse_config(content: bytes) -> Mapping[str, Any]:
    try:
        config = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadAdapter(f"{CONFIG} is not JSON; save the adapter again with PEFT.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadAdapter(f"{CONFIG} does not describe a LoRA (peft_type 'LORA'); only LoRA adapters can be served.")
    for key, name in _REFUSED.items():
        if config.get(key):
            raise BadAdapter(f"The adapter uses {name}, which vLLM does not serve; train a plain LoRA without {key}.")
    if config.get("bias", "none") != "none":
        raise BadAdapter("The adapter trains biases, which vLLM does not serve; train with bias='none'.")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise BadAdapter(
            f"The adapter was started with init_lora_weights={init!r}, which changes the base model as well; convert "
            "it with PEFT's path_initial_model_for_weight_conversion, or train with the default."
        )
    rank = config.get("r")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise BadAdapter(f"{CONFIG} gives the rank r={rank!r}; it must be a whole number of at least 1.")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise BadAdapter(f"{CONFIG} gives lora_alpha={alpha!r}; it must be a number.")
    if not config.get("target_modules"):
        raise BadAdapter(f"{CONFIG} names no target_modules; save the adapter again with PEFT.")
    return config
