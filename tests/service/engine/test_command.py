"""vLLM's command line, and what is refused before it is started."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import ConfigError
from service.engine.command import check_engine, cpu_dtype, engine_command, served_name
from service.engine.processor import has_fast_bfloat16
from service.settings import Settings, load_settings

PLENTY = 64 * 2**30


def settings(**values: Any) -> Settings:
    return load_settings(overrides=values)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    (folder / "model.safetensors").write_bytes(b"0" * 1000)
    return folder


def test_a_cpu_engine_allows_runtime_loading_and_goes_offline_for_a_folder(model: Path) -> None:
    command = engine_command(settings(model=str(model)), "cpu")
    assert command.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert command.env["TORCHDYNAMO_DISABLE"] == "1"
    assert "--enable-lora" in command.argv
    assert "--gpu-memory-utilization" not in command.argv
    assert command.argv[command.argv.index("--served-model-name") + 1] == "my-model"


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (4, "3"), (16, None)])
def test_on_few_cores_the_model_runs_in_the_engine_cores_process(
    model: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = settings(model=str(model), engine={"extra_args": ["--distributed-executor-backend", "mp"]})
    command = engine_command(own, "cpu", cores)
    chosen = [argv for flag, argv in pairwise(command.argv) if flag == "--distributed-executor-backend"]
    assert command.env.get("OMP_NUM_THREADS") == threads
    assert chosen[-1] == "mp", "what the operator says comes last, and counts"
    assert len(chosen) == (1 if threads is None else 2)
    assert all(name.rsplit(".", 1)[-1] == "UniProcExecutor" for name in chosen[:-1])


def test_a_hub_id_keeps_its_name_and_may_be_downloaded() -> None:
    command = engine_command(settings(model="Qwen/Qwen3-0.6B"), "cuda")
    assert "HF_HUB_OFFLINE" not in command.env
    assert "--gpu-memory-utilization" in command.argv
    assert served_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "No base model is set"), ("./absent", "There is no base model"), ("/a/b/c", "There is no base model")],
)
def test_a_model_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_engine(settings(model=name), "cpu", PLENTY)


def test_a_folder_that_is_no_model(model: Path) -> None:
    check_engine(settings(model=str(model)), "cpu", PLENTY)
    (model / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        check_engine(settings(model=str(model)), "cpu", PLENTY)
    (model / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        check_engine(settings(model=str(model)), "cpu", PLENTY)


def test_too_little_memory_names_the_setting(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.kv_cache_gib"):
        check_engine(settings(model=str(model)), "cpu", 2**30)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx2 avx512f", "bfloat16"), ("fpu avx avx2", "float32"), (None, "bfloat16")],
)
def test_a_processor_without_kernels_for_bfloat16_computes_in_float32(
    tmp_path: Path, flags: str | None, dtype: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: a processor\nflags\t\t: {flags}\nbugs\t\t:\n")
    assert cpu_dtype("auto", fast_bfloat16=has_fast_bfloat16(cpuinfo)) == dtype
    assert cpu_dtype("float16", fast_bfloat16=has_fast_bfloat16(cpuinfo)) == "float16"


def test_an_arm_processor_is_taken_to_be_able(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert has_fast_bfloat16(tmp_path / "cpuinfo")
