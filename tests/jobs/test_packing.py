"""Whatever the base model is, what is learned is what it computes of each row by itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

from retrain_jobs.base import Base  # noqa: E402
from retrain_jobs.encode import Encoded  # noqa: E402
from retrain_jobs.generate import greedy  # noqa: E402
from retrain_jobs.recipes.attention import attend  # noqa: E402
from retrain_jobs.recipes.beginnings import sharing  # noqa: E402
from retrain_jobs.recipes.lean import lean  # noqa: E402
from retrain_jobs.recipes.packed import PACKED, pack, row_losses, target_logits  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402

SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

PACKS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16},
    "gpt2": {},
    "mixtral": {},
    "olmo2": {},
    "phi3": {},
}
APART: dict[str, dict[str, Any]] = {
    "bloom": {},  # has no attention that could be another
    "gemma2": {"attn_logit_softcapping": 1.0},
    "gpt_oss": {"sliding_window": 16},  # with sinks
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "nemotron": {"head_dim": None},  # turns a half of each head, and tells its attention nothing of ours
}

BEGINNING = tuple(range(5, 45))
ROWS = sharing(
    [Encoded((*BEGINNING, *range(100, 100 + own)), (7, 8, 9)[: 1 + own % 3]) for own in (1, 4, 9, 30)]
    + [Encoded((3, 4), (5,))]
)


def made(kind: str, more: dict[str, Any]) -> tuple[Any, list[Any]]:
    """A model of this kind with a LoRA that changes its replies, and the LoRA's weights."""
    torch.manual_seed(0)
    given = {name: value for name, value in (SIZES | more).items() if value is not None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).float()
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight.normal_(0, 0.2)
    return model, weights


def gradients(weights: list[Any]) -> list[Any]:
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]


def learned_row_by_row(model: Any, weights: list[Any]) -> tuple[float, list[Any]]:
    losses = []
    for row in ROWS:
        loss = model(**{name: torch.tensor([ids]) for name, ids in row.row().items()}).loss
        loss.backward()
        losses.append(loss.item())
    found = [one.clone() for one in gradients(weights)]
    model.zero_grad()
    return sum(losses), found


@pytest.mark.parametrize("kind", [*PACKS, *APART])
def test_every_kind_of_model_learns_what_it_would_row_by_row(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    assert any(row.shared for row in ROWS)
    model, weights = made(kind, (PACKS | APART)[kind])
    loss, own = learned_row_by_row(model, weights)

    with caplog.at_level(logging.WARNING), packing(model.get_base_model()), lean(model):
        assert (model.config._attn_implementation == PACKED) == (kind in PACKS)
        packed = row_losses(target_logits(model, batch := pack(ROWS, model.device)), batch).sum()
        packed.backward()
    assert model.config._attn_implementation != PACKED
    assert packed.item() == pytest.approx(loss, rel=1e-4)
    most = max(float(one.abs().max()) for one in own)
    torch.testing.assert_close(gradients(weights), own, rtol=1e-3, atol=1e-4 * most)
    assert ("more slowly" in caplog.text) == (kind in APART)


def test_a_model_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = made("bloom", {})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with packing(model.get_base_model()):
                pass
    assert caplog.text.count("more slowly") == 1


def test_being_asked_leaves_no_trace() -> None:
    model, weights = made("llama", {})
    base = model.get_base_model().train()
    before = base.config._attn_implementation
    with packing(base):
        assert base.training
    assert base.config._attn_implementation == before
    assert all(weight.grad is None for weight in weights)


def test_packed_attention_computes_the_same_where_types_are_chosen_automatically() -> None:
    model, _ = made("llama", {})
    batch = pack(ROWS, model.device)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        alone = target_logits(model, batch)
        with packing(model.get_base_model()):
            found = target_logits(model, batch)
    torch.testing.assert_close(found, alone, rtol=0.05, atol=0.05)


def test_rows_that_would_see_each_other_are_found_out(caplog: pytest.LogCaptureFixture) -> None:
    def leaking(module: Any, query: Any, key: Any, value: Any, mask: Any, *, batch: Any, **more: Any) -> Any:
        return sdpa_attention_forward(module, query, key, value, mask, is_causal=True, **more)

    model, weights = made("llama", {})
    loss, _ = learned_row_by_row(model, weights)
    AttentionInterface.register(PACKED, leaking)
    try:
        with caplog.at_level(logging.WARNING), packing(model.get_base_model()), lean(model):
            found = row_losses(target_logits(model, batch := pack(ROWS, model.device)), batch).sum().item()
    finally:
        AttentionInterface.register(PACKED, attend)
    assert "otherwise than each by itself" in caplog.text
    assert found == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("kind", APART)
def test_every_kind_of_model_replies_in_a_batch_as_it_would_alone(kind: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    model, _ = made(kind, APART[kind])
    base = Base(model.get_base_model(), None, 128, 0, frozenset({2}))
    prompts = [tuple(range(10, 10 + length)) for length in (3, 17, 8, 4)]
    together = greedy(model, base, prompts, max_new_tokens=8)
    alone = [greedy(model, base, [prompt], max_new_tokens=8)[0] for prompt in prompts]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert len({one.ids for one in alone}) > 1
