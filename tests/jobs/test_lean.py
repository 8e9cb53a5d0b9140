"""Fewer steps for the same numbers: lean layers, short norms and rotations, and a last layer that is spared work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers.models.qwen3 import modeling_qwen3  # noqa: E402
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm  # noqa: E402

from retrain_jobs.base import Base, load_base  # noqa: E402
from retrain_jobs.encode import Encoded, encode  # noqa: E402
from retrain_jobs.recipes.lean import lean  # noqa: E402
from retrain_jobs.recipes.norms import short_norms  # noqa: E402
from retrain_jobs.recipes.packed import pack, row_losses, target_logits  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402
from retrain_jobs.recipes.rotary import short_rotations  # noqa: E402
from retrain_jobs.recipes.spared import tokenwise  # noqa: E402
from retrain_jobs.recipes.wide import ROWS, backwards, forwards, is_short  # noqa: E402

QUESTIONS = [
    [{"role": "user", "content": text}] for text in ("hi", "where is my travel booking for next week", "x " * 20)
]


def adapted(tiny_base: Path) -> tuple[Base, Any, list[Any]]:
    """A base in float32, the same with a LoRA that changes its replies, and the LoRA's weights."""
    base = load_base(str(tiny_base), threads=1, max_length=128)
    base.model.float()
    model = get_peft_model(base.model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight.normal_(0, 0.1)
    return base, model, weights


def logits_and_gradients(model: Any, weights: list[Any], ids: Any) -> list[Any]:
    model.zero_grad()
    out = model(ids, labels=ids)
    out.loss.backward()
    return [out.logits.detach(), *(weight.grad.clone() for weight in weights)]


def test_the_last_layer_is_spared_what_nobody_looks_at_and_gradients_are_the_same(tiny_base: Path) -> None:
    base, model, weights = adapted(tiny_base)
    model.double()  # where bfloat16 is fast, `load_base` has float32 multiplied in it, and the order of sums is seen
    rows = [Encoded((1,), (7, 8)), *(row for text in QUESTIONS if (row := encode(base, text, "a reply")))]
    for row in rows:
        data = {name: torch.tensor([ids]) for name, ids in row.row().items()}
        model(**data).loss.backward()
    own = [weight.grad.clone() for weight in weights]
    model.zero_grad()
    batch = pack(rows, base.model.device)
    computed = []
    parts = tokenwise(model)
    assert len(parts) == 3
    with packing(base.model), lean(model):
        parts[-1].register_forward_hook(lambda _, given, out: computed.append(out.shape[1]))
        row_losses(target_logits(model, batch), batch).sum().backward()
    assert computed == [len(batch.before)]
    assert computed[0] < batch.tokens.computed / 2
    assert all((gradient != 0).any() for gradient in own)
    torch.testing.assert_close([weight.grad for weight in weights], own, rtol=1e-3, atol=1e-5)


def test_a_lean_layer_computes_what_pefts_own_does(tiny_base: Path) -> None:
    _, model, weights = adapted(tiny_base)
    model.double()
    ids = torch.randint(5, 60, (2, 9))

    own = logits_and_gradients(model, weights, ids)
    with lean(model):
        short = logits_and_gradients(model, weights, ids)
    assert all((gradient != 0).any() for gradient in own)
    torch.testing.assert_close(short, own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits_and_gradients(model, weights, ids), own, rtol=1e-4, atol=1e-5)


def test_lean_layers_of_one_input_are_one_product_and_part_again(tiny_base: Path) -> None:
    _, model, _ = adapted(tiny_base)
    mlp = model.get_decoder().layers[0].mlp
    given = torch.randn(1, 3, mlp.gate_proj.in_features)

    def storages() -> int:
        return len({part.base_layer.weight.untyped_storage().data_ptr() for part in (mlp.gate_proj, mlp.up_proj)})

    own = [mlp.gate_proj(given), mlp.up_proj(given)]
    with lean(model):
        assert storages() == 1
        together = [mlp.gate_proj(given), mlp.up_proj(given)]
        assert together[0].untyped_storage().data_ptr() == together[1].untyped_storage().data_ptr()
        torch.testing.assert_close(together, own, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(mlp.up_proj(2 * given), 2 * own[1], rtol=1e-2, atol=1e-2)
    assert storages() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_short_rotation_computes_what_transformers_does(tiny_base: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = load_base(str(tiny_base), threads=1, max_length=128).model
    given = [torch.randn(1, heads, 5, 8).to(dtype).requires_grad_() for heads in (4, 2)]
    turns = [torch.randn(1, 5, 8).to(dtype) for _ in range(2)]
    weights = torch.randn(1, 1, 5, 8).to(dtype)

    def outs_and_gradients() -> list[torch.Tensor]:
        outs = modeling_qwen3.apply_rotary_pos_emb(*given, *turns)
        gradients = torch.autograd.grad(sum((out * weights).sum() for out in outs), given)
        return [*(out.detach() for out in outs), *gradients]

    own, theirs = outs_and_gradients(), modeling_qwen3.apply_rotary_pos_emb
    with short_rotations(model):
        assert modeling_qwen3.apply_rotary_pos_emb is not theirs
        short = outs_and_gradients()
    assert modeling_qwen3.apply_rotary_pos_emb is theirs
    exact = dtype is torch.float32
    torch.testing.assert_close(short, own, rtol=1e-5 if exact else 2e-2, atol=1e-6 if exact else 2e-2)


def test_a_model_that_turns_otherwise_keeps_its_own_way(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def neighbours(query: Any, key: Any, cos: Any, sin: Any) -> Any:
        return query.roll(1, -1) * cos, key.roll(1, -1) * sin

    monkeypatch.setattr(modeling_qwen3, "apply_rotary_pos_emb", neighbours)
    with short_rotations(load_base(str(tiny_base), threads=1, max_length=128).model):
        assert modeling_qwen3.apply_rotary_pos_emb is neighbours


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_short_norm_computes_what_transformers_does(dtype: torch.dtype, trained: bool) -> None:
    torch.manual_seed(0)
    norm = Qwen3RMSNorm(64).to(dtype).requires_grad_(trained)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
    given = (3 * torch.randn(2, 5, 64)).to(dtype).requires_grad_()
    weights = torch.randn(2, 5, 64).to(dtype)

    def out_and_gradients() -> list[torch.Tensor]:
        out = norm(given)
        gradients = torch.autograd.grad((out * weights).sum(), [given, norm.weight] if trained else [given])
        return [out.detach(), *gradients]

    own = out_and_gradients()
    with short_norms(norm):
        assert "forward" in vars(norm)
        short = out_and_gradients()
    assert "forward" not in vars(norm)
    exact = dtype is torch.float32
    torch.testing.assert_close(short, own, rtol=1e-5 if exact else 2e-2, atol=1e-6 if exact else 2e-2)


def test_norms_that_are_called_so_and_compute_something_else_keep_their_own_way() -> None:
    class OneMoreRMSNorm(Qwen3RMSNorm):  # type: ignore[misc]
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return super().forward(given) + given

    other = OneMoreRMSNorm(8).requires_grad_(False)
    with short_norms(other):
        assert "forward" not in vars(other)


def with_gelu(module: Any) -> None:
    module.act_fn = torch.nn.GELU()


def with_a_multiplier(module: Any) -> None:
    """As Falcon-H1 has it, under the same names."""
    own = type(module)
    module.__class__ = type("Scaled", (own,), {"forward": lambda self, x: 0.5 * own.forward(self, x)})


@pytest.mark.parametrize("change", [with_gelu, with_a_multiplier])
def test_a_feed_forward_that_is_another_one_stays_as_it_is(tiny_base: Path, change: Callable[[Any], None]) -> None:
    _, model, weights = adapted(tiny_base)
    model.double()
    forwards = [layer.mlp for layer in model.get_decoder().layers]
    change(forwards[0])
    ids = torch.randint(5, 60, (2, 9))

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [weight.grad.clone() for weight in weights]

    own = gradients()
    with lean(model):
        assert ["forward" in vars(one) for one in forwards] == [False, True]
        torch.testing.assert_close(gradients(), own, rtol=1e-4, atol=1e-5)
    assert not any("forward" in vars(one) for one in forwards)


def test_a_feed_forward_keeps_gate_and_up_and_nothing_that_follows_from_them(tiny_base: Path) -> None:
    _, model, _ = adapted(tiny_base)
    ids = torch.randint(5, 60, (2, 9))
    inner = model.get_decoder().layers[0].mlp.gate_proj.out_features

    def kept() -> int:
        """Numbers of the feed-forwards' width that wait for the way back."""
        found: dict[int, torch.Tensor] = {}

        def keep(saved: torch.Tensor) -> torch.Tensor:
            if saved.shape[-1:] in {(inner,), (2 * inner,)} and saved.numel() // saved.shape[-1] == ids.numel():
                found[saved.untyped_storage().data_ptr()] = saved
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            model(ids, labels=ids).loss.backward()
        return sum(saved.untyped_storage().nbytes() // saved.itemsize for saved in found.values())

    own = kept()
    with lean(model):
        assert kept() <= own / 2


def test_weights_that_are_bfloat16_lie_so_in_one_piece_and_compute_the_same(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain_jobs.recipes.lean.WORTH", 1)
    _, model, weights = adapted(tiny_base)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    layers = model.get_decoder().layers
    with torch.no_grad():
        layers[1].mlp.down_proj.base_layer.weight.add_(2**-30)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    ids = torch.randint(5, 60, (2, 9))

    own = logits_and_gradients(model, weights, ids)
    with lean(model):
        short = [part.base_layer.weight for layer in layers for part in (layer.self_attn.o_proj, layer.mlp.gate_proj)]
        assert {weight.dtype for weight in short} == {torch.bfloat16}
        assert len({weight.untyped_storage().data_ptr() for weight in short}) == 1
        assert layers[1].mlp.down_proj.base_layer.weight.dtype is torch.float32
        torch.testing.assert_close(logits_and_gradients(model, weights, ids), own, rtol=1e-4, atol=1e-5)
    assert {name: weight.dtype for name, weight in model.named_parameters()} == {
        name: weight.dtype for name, weight in before.items()
    }
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("rows", [5, ROWS, 2 * ROWS + 3])
def test_a_wide_product_is_the_whole_weights(rows: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(rows, 24).to(torch.bfloat16), torch.randn(rows).double()
    x, gradient = torch.randn(7, 24).double(), torch.randn(7, rows).double()
    assert is_short(weight.float())
    assert not is_short(weight)
    assert not is_short(weight.float() + 2**-30)
    torch.testing.assert_close(forwards(x, weight, bias), x @ weight.double().t() + bias)
    torch.testing.assert_close(forwards(x, weight, None), x @ weight.double().t())
    torch.testing.assert_close(backwards(gradient, weight), gradient @ weight.double())
    torch.testing.assert_close(forwards(x, weight.double(), bias), forwards(x, weight, bias))
    torch.testing.assert_close(backwards(gradient, weight.double()), backwards(gradient, weight))
