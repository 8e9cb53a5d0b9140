"""Trains the demo's base model from nothing in minutes of two CPU cores; one readable loop."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from demo.lessons import batches
from demo.muon import Muon
from demo.tokenizer import END, PAD
from retrain_jobs.base import fastest_dtype
from retrain_jobs.encode import Encoded
from retrain_jobs.recipes.norms import short_norms
from retrain_jobs.recipes.packed import pack, target_logits
from retrain_jobs.recipes.packing import packing
from retrain_jobs.recipes.rotary import short_rotations

Progress = Callable[[float, str], None]
"""Told the share of the work that is done (0 to 1) and a line about it."""

Lessons = Callable[[PreTrainedTokenizerFast, int, Callable[[], float]], Iterator[list[Encoded]]]
"""Gives batches for ever: (tokenizer, tokens a batch, share of the work that is done) → batches."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes the model; training ends at the steps or the seconds, whichever is first."""

    vocabulary: int = 1536
    hidden: int = 256
    feed_forward: int = 1024
    layers: int = 4
    heads: int = 8
    key_value_heads: int = 4
    head_size: int = 32
    max_length: int = 512
    steps: int = 560
    batch_tokens: int = 2048
    matrix_rate: float = 0.02
    other_rate: float = 3e-3
    warm_up_steps: int = 20
    decay_share: float = 0.5
    seed: int = 0


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Make an untrained Qwen3 model for this tokenizer."""
    torch.manual_seed(recipe.seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            head_dim=recipe.head_size,
            max_position_embeddings=recipe.max_length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )
    model.generation_config.do_sample = False
    return model


def train(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    seconds: float,
    progress: Progress,
    lessons: Lessons = batches,
) -> Qwen3ForCausalLM:
    """Train on replies only; give the model in bfloat16, as it will be served."""
    began = time.perf_counter()
    dtype = fastest_dtype()
    master = build(recipe, tokenizer)
    worker = copy.deepcopy(master).to(dtype)
    weights, working = list(master.parameters()), list(worker.parameters())
    matrices = [weight for name, weight in master.named_parameters() if _is_matrix(name, weight)]
    others = [weight for name, weight in master.named_parameters() if not _is_matrix(name, weight)]
    muon = Muon(matrices, dtype=dtype)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)

    step = 0

    def done() -> float:
        return max(step / recipe.steps, (time.perf_counter() - began) / seconds)

    for rows in lessons(tokenizer, recipe.batch_tokens, done):
        batch = pack(rows, worker.device)
        with packing(worker), short_norms(worker), short_rotations(worker):
            loss = cross_entropy(target_logits(worker, batch), batch.targets)
            torch.autograd.backward(loss)
        for weight, copied in zip(weights, working, strict=True):
            weight.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        rate = _rate(step, done(), recipe)
        muon.step(rate * recipe.matrix_rate)
        adam.param_groups[0]["lr"] = rate * recipe.other_rate
        adam.step()
        with torch.no_grad():
            torch._foreach_copy_(working, weights)
        step += 1
        if step % 10 == 0:
            progress(min(done(), 1.0), f"step {step}, loss {loss.item():.2f}")
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is not finite at step {step}")
        if done() >= 1:
            break
    return master.to(torch.bfloat16).eval()


def _is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Tell whether Muon may step this weight; embeddings are looked up, not multiplied."""
    return weight.ndim == 2 and "embed" not in name


def _rate(step: int, done: float, recipe: Recipe) -> float:
    """Warm up, hold, then decay in a line to a fiftieth."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    return warm * min(1.0, max(0.02, (1 - done) / recipe.decay_share))
