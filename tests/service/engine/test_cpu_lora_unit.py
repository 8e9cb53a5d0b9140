"""The dense LoRA path against a loop over rows that reads like the definition."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("vllm")

from service.engine import cpu_lora, dense_lora
from service.engine.dense_lora import DensePunicaWrapper

SLOTS, RANK, WIDTH = 4, 8, 24
MIXES = {
    "base alone": [0] * 6,
    "one adapter alone": [12] * 6,
    "one adapter and base": [0, 12, 12, 0, 0, 12],
    "two adapters": [11, 12, 12, 11, 11, 12],
    "all and base": [0, 11, 12, 14, 0, 13],
}
mixes = pytest.mark.parametrize("adapters", MIXES.values(), ids=MIXES.keys())


def wrapper_for(adapters: list[int]) -> DensePunicaWrapper:
    """A wrapper in the state of a step whose rows use `adapters` (ids 11.. in slots 0.., 0: none)."""
    wrapper = DensePunicaWrapper(64, 64, torch.device("cpu"))
    route(wrapper, adapters)
    return wrapper


def route(wrapper: DensePunicaWrapper, adapters: list[int]) -> None:
    rows = tuple(adapters)
    mapping = SimpleNamespace(index_mapping=rows, prompt_mapping=rows, is_prefill=True)
    wrapper.update_metadata(mapping, [11, 12, 13, 14], SLOTS + 1, 100)


def weights(out: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    a = torch.randn(SLOTS, 1, RANK, WIDTH).to(dtype)
    return a, torch.randn(SLOTS, 1, out, RANK).to(dtype)


def delta(x: Tensor, a: Tensor, b: Tensor, adapters: list[int]) -> Tensor:
    """Each row through its own adapter, in float64; zero for rows without one."""
    out = torch.zeros(len(x), b.shape[2], dtype=torch.float64)
    for row, adapter in enumerate(adapters):
        if adapter:
            slot = adapter - 11
            out[row] = b[slot, 0].double() @ (a[slot, 0].double() @ x[row].double())
    return out


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@mixes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_adds_each_rows_own_adapter_in_each_slice(adapters: list[int], dtype: torch.dtype) -> None:
    sizes = (16, 8, 8)
    x, y = torch.randn(6, WIDTH).to(dtype), torch.randn(6, sum(sizes)).to(dtype)
    pairs = [weights(size, dtype) for size in sizes]
    before = y.clone()
    a, b = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    wrapper_for(adapters).add_lora_linear(y, x, a, b, 1.0, sizes)

    expected = before.double() + torch.cat([delta(x, *pair, adapters) for pair in pairs], dim=1)
    # h and y are each rounded once to dtype, and a rounding of h reaches y through RANK terms.
    error = torch.finfo(dtype).eps * (expected.abs() + 20 * RANK**0.5)
    assert ((y.double() - expected).abs() <= error).all()
    base = torch.tensor(adapters) == 0
    assert torch.equal(y[base], before[base])


@mixes
def test_scale_multiplies_the_change_only(adapters: list[int]) -> None:
    x, y = torch.randn(6, WIDTH), torch.randn(6, 16)
    before, (a, b) = y.clone(), weights(16)
    wrapper_for(adapters).add_lora_linear(y, x, (a,), (b,), 0.5, (16,))
    expected = before.double() + 0.5 * delta(x, a, b, adapters)
    torch.testing.assert_close(y, expected.float())


@mixes
@pytest.mark.parametrize("add", [True, False])
def test_shrink_then_expand_equals_linear(adapters: list[int], add: bool) -> None:
    x, y = torch.randn(6, WIDTH), torch.randn(6, 16)
    before, (a, b) = y.clone(), weights(16)
    wrapper, buffer = wrapper_for(adapters), torch.full((1, 6, RANK), 7.0)

    wrapper.add_shrink(buffer, x, (a,), 1.0)
    wrapper.add_expand(y, buffer, (b,), (16,), add_inputs=add)

    expected = delta(x, a, b, adapters)
    if add:
        expected += before
    else:
        base = torch.tensor(adapters) == 0
        expected[base] = before[base].double()
    torch.testing.assert_close(y, expected.float())


@mixes
def test_expand_writes_at_its_offset(adapters: list[int]) -> None:
    x, y = torch.randn(6, WIDTH), torch.zeros(6, 32)
    a, b = weights(8)
    wrapper, buffer = wrapper_for(adapters), torch.zeros(1, 6, RANK)
    wrapper.add_shrink(buffer, x, (a,), 1.0)
    wrapper.add_expand(y, buffer, (b,), (8,), offset_start=16)
    expected = torch.zeros(6, 32, dtype=torch.float64)
    expected[:, 16:24] = delta(x, a, b, adapters)
    torch.testing.assert_close(y, expected.float())


@mixes
def test_embedding_expands_rows_that_their_own_slot_shrank(adapters: list[int]) -> None:
    h, y = torch.randn(6, RANK), torch.randn(6, 16)
    before, (_, b) = y.clone(), weights(16)
    kept = h.clone()
    wrapper_for(adapters).add_lora_embedding(y, h, b, add_input=True)
    expected = before.double()
    for row, adapter in enumerate(adapters):
        if adapter:
            expected[row] += b[adapter - 11, 0].double() @ h[row].double()
    torch.testing.assert_close(y, expected.float())
    assert torch.equal(h, kept)


@mixes
def test_logits_may_be_wider_and_finer_than_the_adapter(adapters: list[int]) -> None:
    x, y = torch.randn(6, WIDTH).bfloat16(), torch.randn(6, 20, dtype=torch.float32)
    before, (a, b) = y.clone(), weights(16, torch.bfloat16)
    wrapper_for(adapters).add_lora_logits(y, x, a, b, 1.0)
    expected = before.double()
    expected[:, :16] += delta(x, a, b, adapters)
    torch.testing.assert_close(y, expected.float(), rtol=0.02, atol=0.5)
    assert torch.equal(y[:, 16:], before[:, 16:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_onednn_has_no_product_pytorchs_serves(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("could not create a primitive descriptor for the matmul primitive")

    monkeypatch.setattr(dense_lora.ops, "create_onednn_mm", refuse)
    weight, x = torch.randn(RANK, WIDTH).to(dtype), torch.randn(6, WIDTH).to(dtype)
    out = dense_lora.Gemm(weight, shrinks=True)(x, dense_lora.Rows(torch.zeros(6, dtype=torch.long)))
    torch.testing.assert_close(out, x @ weight.t())


def test_the_engine_compiles_its_own_types_kernel_before_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []
    monkeypatch.setattr(dense_lora, "compiled", asked.append)
    for dtype in (torch.float32, torch.float16):
        DensePunicaWrapper(64, 64, torch.device("cpu"), lora_config=SimpleNamespace(lora_dtype=dtype))
    assert asked == [torch.float32]


def test_one_adapters_overflow_stays_in_its_own_rows() -> None:
    adapters = MIXES["all and base"]
    x, y = torch.ones(6, WIDTH), torch.zeros(6, 16)
    a, b = weights(16)
    a[1] = torch.inf
    wrapper_for(adapters).add_lora_linear(y, x, (a,), (b,), 1.0, (16,))
    others = torch.tensor(adapters) != 12
    assert y[others].isfinite().all()
    assert not y[~others].isfinite().any()


def test_a_slot_rewritten_in_place_counts_at_once() -> None:
    x, (a, b) = torch.randn(6, WIDTH), weights(16)
    adapters = [12] * 6
    wrapper = wrapper_for(adapters)
    b[1] = 0
    y = torch.zeros(6, 16)
    wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (16,))
    assert not y.any()
    with torch.inference_mode():
        b[1, 0].copy_(torch.randn(16, RANK))
        wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (16,))
    torch.testing.assert_close(y, delta(x, a, b, adapters).float())


def test_a_new_batch_is_routed_anew() -> None:
    x, (a, b) = torch.randn(6, WIDTH), weights(16)
    wrapper = wrapper_for([11] * 6)
    route(wrapper, adapters := [0, 12, 12, 0, 13, 14])
    y = torch.zeros(6, 16)
    wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (16,))
    torch.testing.assert_close(y, delta(x, a, b, adapters).float())


def test_rows_that_the_mapping_does_not_describe_are_refused_not_guessed() -> None:
    a, b = weights(16)
    wrapper = wrapper_for([0, 11, 12])
    with pytest.raises(ValueError, match=r"5 rows .* maps 3"):
        wrapper.add_lora_logits(torch.zeros(5, 16), torch.zeros(5, WIDTH), a, b, 1.0)


def test_the_plugin_takes_the_cpu_platforms_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = pretend_platform(monkeypatch, cpu=True, wrapper=cpu_lora.STOCK)
    cpu_lora.register()
    cpu_lora.register()
    assert platform.get_punica_wrapper() == cpu_lora.DENSE


def test_other_platforms_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = pretend_platform(monkeypatch, cpu=False, wrapper="a.GPU")
    cpu_lora.register()
    assert platform.get_punica_wrapper() == "a.GPU"


def test_an_unknown_wrapper_is_refused_when_lora_is_switched_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = pretend_platform(monkeypatch, cpu=True, wrapper="some.OtherWrapper")
    cpu_lora.register()
    with pytest.raises(cpu_lora.UnknownLoraPath, match=r"some\.OtherWrapper"):
        platform.get_punica_wrapper()


def test_a_changed_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = pretend_platform(monkeypatch, cpu=True, wrapper=cpu_lora.STOCK)
    monkeypatch.setattr(cpu_lora, "fingerprint", lambda: "0123456789ab")
    cpu_lora.register()
    with pytest.raises(cpu_lora.UnknownLoraPath, match="0123456789ab"):
        platform.get_punica_wrapper()


def pretend_platform(monkeypatch: pytest.MonkeyPatch, *, cpu: bool, wrapper: str) -> Any:
    class Platform:
        def is_cpu(self) -> bool:
            return cpu

        @classmethod
        def get_punica_wrapper(cls) -> str:
            return wrapper

    import vllm.platforms

    platform = Platform()
    monkeypatch.setattr(vllm.platforms, "current_platform", platform, raising=False)
    return platform
