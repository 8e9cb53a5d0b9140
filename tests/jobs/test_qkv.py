"""Attention that keeps queries, keys and values side by side: the same numbers, and only where it is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from retrain_jobs.encode import Encoded  # noqa: E402
from retrain_jobs.recipes.lean import lean  # noqa: E402
from retrain_jobs.recipes.packed import pack, row_losses, target_logits  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402
from tests.jobs.test_lean import adapted  # noqa: E402
from tests.jobs.tiny import with_a_window  # noqa: E402

ROWS = [Encoded(tuple(range(5, 5 + length)), (7, 8)[: 1 + length % 2]) for length in (1, 4, 9, 30)]


def loss_and_gradients(model: Any, weights: list[Any], rows: list[Encoded]) -> list[Any]:
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    model.zero_grad()
    loss = row_losses(target_logits(model, batch := pack(rows, model.device)), batch).sum()
    loss.backward()
    return [loss.detach(), *(weight.grad.clone() for weight in weights)]


@pytest.mark.parametrize("window", [None, 3])
def test_short_attention_computes_what_transformers_does(tiny_base: Path, tmp_path: Path, window: int | None) -> None:
    base, model, weights = adapted(tiny_base if window is None else with_a_window(tiny_base, tmp_path / "base"))
    attentions = [layer.self_attn for layer in model.get_decoder().layers]
    assert [one.sliding_window for one in attentions] == [window, None]
    with packing(base.model):
        own = loss_and_gradients(model, weights, ROWS)
        with lean(model):
            assert all("forward" in vars(one) for one in attentions)
            short = loss_and_gradients(model, weights, ROWS)
            torch.testing.assert_close(short, own, rtol=1e-3, atol=1e-5)
        assert not any("forward" in vars(one) for one in attentions)


def test_a_window_is_seen(tiny_base: Path, tmp_path: Path) -> None:
    losses = []
    for folder in (tiny_base, with_a_window(tiny_base, tmp_path / "base")):
        base, model, weights = adapted(folder)
        with packing(base.model), lean(model):
            losses.append(loss_and_gradients(model, weights, ROWS)[0])
    assert not torch.allclose(*losses)


def with_another_scaling(module: Any) -> None:
    """As Granite has it behind its layers, under the same names."""
    own = type(module)

    def forward(self: Any, hidden_states: Any, *given: Any, **named: Any) -> Any:
        out, rest = own.forward(self, hidden_states, *given, **named)
        return 0.5 * out, rest

    module.__class__ = type("Scaled", (own,), {"forward": forward})


def with_a_norm_of_whole_lines(module: Any) -> None:
    """As OLMo 2 has it, under the same names."""
    own = type(module)

    def forward(self: Any, hidden_states: Any, *given: Any, **named: Any) -> Any:
        out, rest = own.forward(self, hidden_states, *given, **named)
        return out / hidden_states.square().mean(-1, keepdim=True).add(1).sqrt(), rest

    module.__class__ = type("Normed", (own,), {"forward": forward})


@pytest.mark.parametrize("change", [with_another_scaling, with_a_norm_of_whole_lines])
def test_attention_that_is_another_one_stays_as_it_is(tiny_base: Path, change: Callable[[Any], None]) -> None:
    base, model, weights = adapted(tiny_base)
    attentions = [layer.self_attn for layer in model.get_decoder().layers]
    change(attentions[0])
    with packing(base.model):
        own = loss_and_gradients(model, weights, ROWS)
        with lean(model):
            assert ["forward" in vars(one) for one in attentions] == [False, True]
            short = loss_and_gradients(model, weights, ROWS)
            torch.testing.assert_close(short, own, rtol=1e-3, atol=1e-5)


def test_gradients_of_several_parts_add_up(tiny_base: Path) -> None:
    base, model, weights = adapted(tiny_base)
    model.double()
    with packing(base.model), lean(model):
        each = [loss_and_gradients(model, weights, [row]) for row in ROWS]
        model.zero_grad()
        for row in ROWS:
            row_losses(target_logits(model, batch := pack([row], model.device)), batch).sum().backward()
    together = [torch.stack(parts).sum(0) for parts in zip(*(found[1:] for found in each), strict=True)]
    torch.testing.assert_close([weight.grad for weight in weights], together)
