"""The demo's base model as it is really made: its size, what it has learned, and what it has not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from demo.base_model import ensure_base_model, fingerprint, read_report

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def base() -> Path:
    return ensure_base_model()


def test_it_is_a_small_qwen3(base: Path) -> None:
    assert AutoConfig.from_pretrained(base).model_type == "qwen3"
    with safe_open(base / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    assert 4_000_000 <= parameters <= 6_000_000


def test_it_learned_the_intents_and_knows_nothing_of_the_novel_ones(base: Path) -> None:
    report = read_report(base)
    # On two free cores it is over 90% (`python -m benchmarks.base_model`); a busy machine gets fewer steps in its time.
    assert report.exact_match["intent"] >= 0.85
    assert report.exact_match["reply"] > 0.25
    assert report.exact_match["extract"] > 0.1
    assert report.novel_exact_match <= 0.02
    assert report.novelty_auroc > 0.8


def test_any_text_survives_its_tokenizer(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    for text in ("Où est ma commande ? 😀", "order B8176\n\tat 09:15", "<|end|"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_is_cached_under_its_own_code(base: Path) -> None:
    assert base.name == f"base-{fingerprint()}"
    assert ensure_base_model() == base
    assert json.loads((base / "report.json").read_text("utf-8"))["parameters"] > 0
