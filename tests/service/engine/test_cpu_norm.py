"""The plugin that has a CPU engine normalise with vLLM's compiled kernels: the same numbers as vLLM's own layers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

pytest.importorskip("vllm")

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor import custom_op
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, RMSNorm
from vllm.platforms import current_platform

from service.engine import cpu_norm

HIDDEN = 64


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    found: dict[str, type] = {}
    monkeypatch.setattr(custom_op, "op_registry_oot", found)
    with set_current_vllm_config(VllmConfig()):
        yield found


def layer(dtype: torch.dtype = torch.float32, **given: object) -> RMSNorm:
    torch.manual_seed(1)
    made = RMSNorm(HIDDEN, eps=1e-5, dtype=dtype, **given)
    if made.has_weight:
        made.weight.data = torch.randn(HIDDEN).to(dtype)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, HIDDEN), (37, HIDDEN), (5, 3, HIDDEN)])
def test_the_same_numbers(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (3 * torch.randn(*shape)).to(dtype)
    expected = layer(dtype).forward_native(x)
    cpu_norm.register()
    made = layer(dtype)
    assert type(made) is not RMSNorm
    torch.testing.assert_close(made.forward_cpu(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_sum_and_numbers_with_a_residual(dtype: torch.dtype) -> None:
    x, residual = (torch.randn(9, HIDDEN).to(dtype) for _ in range(2))
    expected = layer(dtype).forward_native(x.clone(), residual.clone())
    cpu_norm.register()
    found = layer(dtype).forward_cpu(x, residual)
    torch.testing.assert_close(found, expected)


def test_a_part_of_a_wider_row_is_read_as_that_part() -> None:
    """Queries are columns of one product of queries, keys and values."""
    wide = torch.randn(7, 4 * HIDDEN)
    heads = wide.split([2 * HIDDEN, HIDDEN, HIDDEN], -1)[0].view(7, 2, HIDDEN)
    expected = layer().forward_native(heads)
    cpu_norm.register()
    torch.testing.assert_close(layer().forward_cpu(heads), expected)
    part = wide[:, HIDDEN : 2 * HIDDEN]
    torch.testing.assert_close(
        layer().forward_cpu(part, part.clone()), layer().forward_native(part.clone(), part.clone())
    )


@pytest.mark.parametrize("given", [{"has_weight": False}, {"var_hidden_size": HIDDEN // 2}])
def test_what_the_kernels_do_not_know_goes_vllms_way(given: dict[str, object]) -> None:
    x = torch.randn(4, HIDDEN)
    expected = layer(**given).forward_native(x)
    cpu_norm.register()
    torch.testing.assert_close(layer(**given).forward_cpu(x), expected)


def test_registered_twice_or_beside_another_kind_of_norm(registry: dict[str, type]) -> None:
    cpu_norm.register()
    first = dict(registry)
    cpu_norm.register()
    assert registry == first
    assert type(GemmaRMSNorm(HIDDEN)) is GemmaRMSNorm


def test_other_platforms_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, registry: dict[str, type]) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    cpu_norm.register()
    assert registry == {}


def test_a_vllm_without_the_kernels_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, registry: dict[str, type]
) -> None:
    monkeypatch.setattr(cpu_norm, "NEEDED", ("no_such_kernel",))
    with caplog.at_level(logging.WARNING):
        cpu_norm.register()
    assert registry == {}
    assert "no compiled normalisation" in caplog.text
