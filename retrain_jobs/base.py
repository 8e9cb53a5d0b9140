"""The base model in memory: weights, tokenizer, and how long a row may be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from service.core.errors import ConfigError
from service.settings import Quantize


@dataclass(frozen=True, slots=True)
class Base:
    """`model` is a transformers causal LM in evaluation mode; `max_length` is in tokens, prompt and reply together."""

    model: Any
    tokenizer: Any
    max_length: int
    pad_id: int
    end_ids: frozenset[int]


def prepare_process(
    threads: int | None, nice: int, spin: int = 0, *, sharing: int = 1, beside_server: bool = False
) -> int:
    """Be a polite neighbour; call before torch is imported. Returns the number of threads in use, which are this
    process's part of the cores where several are `sharing` them, and of half of the cores `beside_server`.

    OpenMP's threads sleep while they wait, at once or after `spin` turns of waiting busily: spinning beside a busy
    server slows both (docs/retraining.md).
    """
    cores = (os.cpu_count() or 1) // (2 if beside_server else 1)
    count = threads or max(1, cores // sharing)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", str(spin))
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    os.environ.update(
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_VERBOSITY="error",
        TRANSFORMERS_NO_ADVISORY_WARNINGS="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    )
    os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    return count


def load_base(model: str, *, threads: int, max_length: int, quantize: Quantize = Quantize.NONE) -> Base:
    """Load a folder or Hugging Face id.

    Raises ConfigError when it is not there, has no chat template, or cannot be quantized here.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else fastest_dtype()
    if dtype is torch.bfloat16:
        # The LoRA's own weights stay float32; only their products are rounded, as the tensor cores of a GPU do.
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        config = AutoConfig.from_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
        given: dict[str, Any] = {"dtype": dtype}
        if quantize is not Quantize.NONE:
            given |= {"quantization_config": _quantization(quantize), "device_map": {"": device}}
        loaded = AutoModelForCausalLM.from_pretrained(model, **given)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The base model {model!r} cannot be loaded ({_first_line(error)}); "
            "set `model` to a Hugging Face folder or id.",
            param="model",
        ) from error
    if tokenizer.chat_template is None:
        raise ConfigError(f"The base model {model!r} has no chat template; add one to its tokenizer.", param="model")
    loaded = (loaded if quantize is not Quantize.NONE else loaded.to(device)).eval()
    ends = loaded.generation_config.eos_token_id or tokenizer.eos_token_id
    end_ids = frozenset({ends} if isinstance(ends, int) else ends or ()) | ({tokenizer.eos_token_id} - {None})
    limit = getattr(config.get_text_config(), "max_position_embeddings", max_length)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(end_ids, default=0)
    return Base(loaded, tokenizer, min(limit, max_length), pad_id, end_ids)


def fastest_dtype() -> Any:
    """bfloat16 where this CPU multiplies it itself, 2x to 4x as fast as float32; else float32, faster there."""
    import torch

    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32


def _quantization(quantize: Quantize) -> Any:
    """As QLoRA has it: NF4 with its constants quantized too, products in bfloat16 (Dettmers et al., 2023); or LLM.int8.

    Raises ConfigError without a GPU or without bitsandbytes.
    """
    import torch
    from transformers import BitsAndBytesConfig

    lacking = [
        what for what, there in (("a GPU", torch.cuda.is_available()), ("bitsandbytes", find_spec("bitsandbytes")))
        if not there
    ]  # fmt: skip
    if lacking:
        raise ConfigError(
            f"retrain.quantize {quantize} needs {' and '.join(lacking)}, which is not here; set it to none, or "
            "train where both are.",
            param="retrain.quantize",
        )
    if quantize is Quantize.EIGHT:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
