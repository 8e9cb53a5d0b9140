"""Each adapter that could not be served, or would be served wrongly, is refused in one line that says why."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from service.core.errors import BadAdapter, Conflict
from service.drivers.adapter_files import (
    CONFIG,
    WEIGHTS,
    adapter_digest,
    check_adapter,
    read_adapter,
    register_adapter,
)
from service.drivers.base_model import base_digest
from service.drivers.blobs import FolderBlobs
from service.drivers.safetensors import is_finite
from service.drivers.store import open_store

HIDDEN, INNER, RANK = 32, 64, 8
SIZES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
BASE_CONFIG = {
    "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "num_hidden_layers": 2, "vocab_size": 100,
}  # fmt: skip
PEFT = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj", "down_proj"]}

Tensors = dict[str, np.ndarray]
Files = dict[str, bytes]


def tensors(rank: int = RANK, layers: int = 2) -> Tensors:
    made: Tensors = {}
    for layer in range(layers):
        for module, (outputs, inputs) in SIZES.items():
            path = f"base_model.model.model.layers.{layer}.{module}"
            made[f"{path}.lora_A.weight"] = np.full((rank, inputs), 0.5 + layer, np.float32)
            made[f"{path}.lora_B.weight"] = np.zeros((outputs, rank), np.float32)
    return made


def files(config: dict[str, Any] | None = None, weights: Tensors | bytes | None = None) -> Files:
    weights = tensors() if weights is None else weights
    content = weights if isinstance(weights, bytes) else save(weights)
    return {CONFIG: json.dumps(PEFT | (config or {})).encode(), WEIGHTS: content}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model's folder: two layers, with weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(BASE_CONFIG))
    kept = {
        f"model.layers.{layer}.{module}.weight": np.zeros(size, np.float32)
        for layer in range(2)
        for module, size in SIZES.items()
    }
    (folder / "model.safetensors").write_bytes(save(kept))
    return folder


def test_a_good_adapter_is_described(base: Path) -> None:
    good = files()
    facts = check_adapter(good, base, max_rank=16)
    assert facts.digest == adapter_digest(good)
    assert (facts.rank, facts.target_modules) == (RANK, ("down_proj", "q_proj"))
    assert facts.size_bytes == sum(len(content) for content in good.values())


def test_the_digest_is_of_the_two_files_and_nothing_else() -> None:
    one = files()
    assert adapter_digest(one) == adapter_digest(dict(reversed(one.items())) | {"README.md": b"x"})
    assert adapter_digest(one) != adapter_digest(files({"lora_alpha": 32}))
    moved = {CONFIG: one[CONFIG] + one[WEIGHTS][:1], WEIGHTS: one[WEIGHTS][1:]}
    assert adapter_digest(one) != adapter_digest(moved)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "LOHA"}, "only LoRA adapters"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "trains biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"init_lora_weights": "pissa_niter_16"}, "changes the base model"),
        ({"init_lora_weights": "olora"}, "'olora'"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"kasa_config": {"beta": 1e-4}}, "KaSA"),
        ({"r": 0}, "at least 1"),
        ({"r": "8"}, "at least 1"),
        ({"r": True}, "at least 1"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"target_modules": []}, "target_modules"),
        ({"r": 16}, "not of one adapter"),
    ],
)
def test_what_the_config_gives_away(config: dict[str, Any], told: str) -> None:
    with pytest.raises(BadAdapter, match=told):
        check_adapter(files(config), None, max_rank=16)


@pytest.mark.parametrize("config", [{"init_lora_weights": "gaussian"}, {"use_rslora": True}, {"modules_to_save": None}])
def test_harmless_settings_pass(config: dict[str, Any]) -> None:
    assert check_adapter(files(config), None, max_rank=16).rank == RANK


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_config_that_is_no_config(content: bytes) -> None:
    with pytest.raises(BadAdapter, match=CONFIG):
        check_adapter(files() | {CONFIG: content}, None, max_rank=16)


def with_header(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (b"", "empty or truncated"),
        (save(tensors())[:5], "empty or truncated"),
        (save(tensors())[:100], "ends within its header"),
        (save(tensors())[:-1], "truncated"),
        (save(tensors()) + b"\0", "padded"),
        (b"\x80\x02}q\x00." * 50, "no safetensors file"),
        (b"PK\x03\x04" + bytes(500), "no safetensors file"),
        (with_header(b"nonsense"), "no safetensors file"),
        (with_header(b"{nonsense}"), "not JSON"),
        (with_header({"a": TENSOR | {"shape": [2, 2]}}, bytes(4)), "size of its shape"),
        (with_header({"a": TENSOR | {"shape": [-1, -1]}}, bytes(4)), "size of its shape"),
        (with_header({"a": TENSOR | {"dtype": "F7"}}, bytes(4)), "wrongly"),
        (with_header({"a": 1}), "wrongly"),
        (with_header({"a": TENSOR | {"data_offsets": [0]}}, bytes(4)), "wrongly"),
        (with_header({"a": TENSOR, "b": TENSOR}, bytes(4)), "overlaps"),
        (with_header({"a": TENSOR | {"data_offsets": [4, 8]}}, bytes(8)), "hole"),
    ],
)
def test_weights_that_are_no_whole_safetensors_file(weights: bytes, told: str) -> None:
    with pytest.raises(BadAdapter, match=told) as refused:
        check_adapter(files(weights=weights), None, max_rank=16)
    assert "\n" not in refused.value.message


Q = "base_model.model.model.layers.0.self_attn.q_proj"


def changed(change: Callable[[Tensors], object]) -> Tensors:
    made = tensors()
    change(made)
    return made


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({}, "holds no tensors"),
        (changed(lambda t: t.pop(f"{Q}.lora_B.weight")), "only one of lora_A and lora_B"),
        (changed(lambda t: t.update({f"{Q}.lora_A.weight": np.ones((4, HIDDEN), np.float32)})), "not of one adapter"),
        (changed(lambda t: t.update({f"{Q}.lora_A.weight": np.ones(HIDDEN, np.float32)})), "not that of a matrix"),
        (changed(lambda t: t.update({"model.embed_tokens.weight": np.ones((2, 2), np.float32)})), "no part of a plain"),
        (changed(lambda t: t.update({f"{Q}.lora_magnitude_vector": np.ones(2, np.float32)})), "no part of a plain"),
        (changed(lambda t: t.update({f"{Q}.lora_A.weight": np.ones((RANK, HIDDEN), np.int8)})), "of type I8"),
        (changed(lambda t: t[f"{Q}.lora_B.weight"].fill(np.nan)), "NaN or infinite"),
        (changed(lambda t: t[f"{Q}.lora_A.weight"].__setitem__((3, 3), -np.inf)), "NaN or infinite"),
    ],
)
def test_tensors_that_make_no_lora(weights: Tensors, told: str) -> None:
    with pytest.raises(BadAdapter, match=told):
        check_adapter(files(weights=weights), None, max_rank=16)


def test_a_rank_above_the_engines() -> None:
    big = files({"r": 24}, tensors(rank=24))
    with pytest.raises(BadAdapter, match="at most 16"):
        check_adapter(big, None, max_rank=16)
    assert check_adapter(big, None, max_rank=32).rank == 24


def test_an_adapter_for_another_base(base: Path) -> None:
    with pytest.raises(BadAdapter, match=r"no module 'model\.layers\.2.*another model"):
        check_adapter(files(weights=tensors(layers=3)), base, max_rank=16)
    wider = changed(lambda t: t.update({f"{Q}.lora_A.weight": np.ones((RANK, 48), np.float32)}))
    with pytest.raises(BadAdapter, match="maps 48 to 32 in the adapter and 32 to 32 in the base"):
        check_adapter(files(weights=wider), base, max_rank=16)


@pytest.mark.parametrize("fits", [True, False])
def test_shapes_come_from_the_bases_config_where_its_weights_have_other_names(base: Path, fits: bool) -> None:
    (base / "model.safetensors").unlink()
    if fits:
        assert check_adapter(files(), base, max_rank=16).rank == RANK
        return
    (base / "config.json").write_text(json.dumps(BASE_CONFIG | {"hidden_size": 48}))
    with pytest.raises(BadAdapter, match="another model"):
        check_adapter(files(), base, max_rank=16)


@pytest.mark.parametrize("dtype", ["F16", "F32", "F64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found(dtype: str, value: float) -> None:
    kind = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
    extremes = np.array([0.0, -0.0, np.finfo(kind).max, np.finfo(kind).min, np.finfo(kind).tiny, 1.0], kind)
    assert is_finite(dtype, extremes.tobytes())
    for place in range(len(extremes)):
        spoiled = extremes.copy()
        spoiled[place] = value
        assert not is_finite(dtype, spoiled.tobytes())


def test_every_bfloat16_is_judged_as_it_is() -> None:
    for bits in range(2**16):
        value = np.array([bits << 16], np.uint32).view(np.float32)[0]
        assert is_finite("BF16", bits.to_bytes(2, "little")) == np.isfinite(value)


def test_reading_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadAdapter, match="no folder"):
        read_adapter(tmp_path / "none")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(BadAdapter, match="pickle"):
        read_adapter(tmp_path)
    for name, content in files().items():
        with pytest.raises(BadAdapter):
            read_adapter(tmp_path)
        (tmp_path / name).write_bytes(content)
    assert read_adapter(tmp_path) == files()


def test_a_bases_digest_is_of_its_content(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in base.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert base_digest(str(base)) == base_digest(str(copy))
    (copy / "config.json").write_text("{}")
    assert base_digest(str(base)) != base_digest(str(copy))
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    before = base_digest(str(base))
    (base / "model.safetensors").write_bytes(weights)
    assert base_digest(str(base)) != before
    assert base_digest("org/model") == base_digest("org/model") != base_digest("org/other")


async def test_registering_is_whole_and_idempotent(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in files().items():
        (folder / name).write_bytes(content)
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    blobs = FolderBlobs(tmp_path / "adapters")

    async def register(now: float) -> Any:
        return await register_adapter(store, blobs, "support", folder, str(base), max_rank=16, now=now, cycle_id="c1")

    made = await register(1.0)
    assert made.name == f"support@{adapter_digest(files())[:12]}"
    assert (made.rank, made.cycle_id, made.base_digest) == (RANK, "c1", base_digest(str(base)))
    assert await register(2.0) == made == await store.adapter(made.name)
    assert read_adapter(Path(await blobs.local(made.name))) == files()

    (folder / WEIGHTS).write_bytes(files()[WEIGHTS][:-1])
    with pytest.raises(BadAdapter):
        await register(3.0)
    assert [one.name for one in await store.adapters()] == [made.name]
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [made.name]
    await store.close()


async def test_files_that_cannot_be_kept_leave_no_row(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in files().items():
        (folder / name).write_bytes(content)
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}", migrate=True)
    blobs = FolderBlobs(tmp_path / "adapters")
    await blobs.put(f"support@{adapter_digest(files())[:12]}", {"other": b"in the way"})
    with pytest.raises(Conflict):
        await register_adapter(store, blobs, "support", folder, str(base), max_rank=16, now=1.0)
    assert await store.adapters() == []
    await store.close()
