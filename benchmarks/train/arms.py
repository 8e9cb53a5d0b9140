"""One training in one process: `python -m benchmarks.train.arms ARM FOLDER TARGET SECONDS SEED` prints a line of JSON.

Held-out rows are judged about every `EVERY` steps; the clock runs from the first step and stands still meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.train.task import read_rows
from retrain_jobs import heap
from retrain_jobs.base import prepare_process

RANK, ALPHA, BATCH, EPOCHS, THREADS, MAX_LENGTH = 16, 32, 16, 12, 2, 1024
EVERY = 10
SPIN = 20_000
"""The cores are training's own here, as they are the peers', which spin by default."""


class Reached(Exception):
    """The target loss, or the end of the time."""


@dataclass(slots=True)
class Run:
    """What one arm did; `seconds` is to the target, None where the time ended first."""

    target: float
    limit_s: float
    start_up_s: float = 0.0
    spent_s: float = 0.0
    seconds: float | None = None
    loss: float = math.inf
    steps: int = 0
    tokens: int = 0
    computed: int = 0
    learned: int = 0
    peak_mib: float = 0.0
    mfu: float = 0.0
    dtype: str = ""
    spares: bool = False
    curve: list[tuple[float, float]] = field(default_factory=list)

    def begin(self) -> None:
        self.start_up_s = time.time() - psutil.Process().create_time()

    def judged(self, spent_s: float, loss: float) -> None:
        """Raises Reached when it is over."""
        self.spent_s, self.loss = spent_s, loss
        self.curve.append((round(spent_s, 2), round(loss, 4)))
        if loss <= self.target:
            self.seconds = spent_s
            raise Reached
        if spent_s > self.limit_s:
            raise Reached


def ours(folder: Path, run: Run, seed: int) -> Any:
    """The recipe as a job runs it."""
    from retrain_jobs.base import load_base
    from retrain_jobs.candidate import read_config
    from retrain_jobs.encode import encode
    from retrain_jobs.recipes import loop, sft_lora
    from retrain_jobs.recipes.objective import Likelihood
    from service.settings import Recipe, RetrainSettings

    base = load_base(str(folder / "model"), threads=THREADS, max_length=MAX_LENGTH)

    def rows(name: str) -> list[Any]:
        return [row for asked, reply in read_rows(folder, name) if (row := encode(base, asked, reply)) is not None]

    train, heldout = rows("train"), rows("heldout")
    per_epoch = -(-len(train) // BATCH)
    config = read_config(Recipe.SFT_LORA).model_copy(update={"evaluations_per_epoch": round(per_epoch / EVERY)})
    knobs = RetrainSettings(
        rank=RANK, alpha=ALPHA, batch_size=BATCH, epochs=EPOCHS, patience=1000, max_seconds=1e6, seed=seed
    )
    began = paused = 0.0
    seen = 0
    judge = loop.judge

    def judged(model: Any, rows: Sequence[Any], max_tokens: int) -> tuple[float, float]:
        nonlocal paused
        start = time.monotonic()
        found = judge(model, rows, max_tokens)
        paused += time.monotonic() - start
        return found

    def on_step(share: float, detail: Mapping[str, Any]) -> None:
        nonlocal seen
        spent = time.monotonic() - began - paused
        run.steps, run.spent_s = detail["step"], spent
        run.tokens = detail["tokens"]
        run.computed = detail["computed"]
        if "heldout_loss" in detail and (run.steps - 1) // every != seen:
            seen = (run.steps - 1) // every
            run.judged(spent, detail["heldout_loss"])

    every = max(1, per_epoch // config.evaluations_per_epoch)
    loop.judge = judged
    run.learned = sum(len(row.target) for row in train) // max(1, len(train)) * BATCH
    run.dtype = str(base.model.dtype).removeprefix("torch.")
    run.spares = True
    run.begin()
    began = time.monotonic()
    with suppress(Reached):
        sft_lora.train(base, Likelihood(train), heldout, knobs, config, folder, on_step)
    return base.model


def trl_default(folder: Path, run: Run, seed: int) -> Any:
    """SFTTrainer as it comes, but for the adapter's size."""
    return _trl(folder, run, seed, {})


def trl_tuned(folder: Path, run: Run, seed: int) -> Any:
    """Packing, no gradient checkpointing, our learning rate with its schedule, and the processor's faster type."""
    import torch
    from transformers import AutoConfig

    from retrain_jobs.base import fastest_dtype

    hidden = AutoConfig.from_pretrained(folder / "model").hidden_size
    changed = {
        "packing": True, "max_length": 512, "per_device_train_batch_size": 1, "gradient_checkpointing": False,
        "learning_rate": 1.0 / hidden, "adam_beta2": 0.98, "lr_scheduler_type": "cosine", "weight_decay": 0.01,
        "warmup_steps": 0.05, "bf16": fastest_dtype() is torch.bfloat16,
    }  # fmt: skip
    return _trl(folder, run, seed, changed)


def _trl(folder: Path, run: Run, seed: int, changed: Mapping[str, Any]) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from retrain_jobs.base import Base
    from retrain_jobs.encode import encode
    from retrain_jobs.recipes.forced import forced
    from retrain_jobs.recipes.packing import packing

    torch.set_num_threads(THREADS)
    dataset = Dataset.from_list(
        [
            {"prompt": asked, "completion": [{"role": "assistant", "content": reply}]}
            for asked, reply in read_rows(folder, "train")
        ]
    )
    given: dict[str, Any] = {
        "output_dir": str(folder / "out"), "report_to": [], "save_strategy": "no", "disable_tqdm": True, "seed": seed,
        "num_train_epochs": EPOCHS, "use_cpu": True,
    }  # fmt: skip
    trainer = SFTTrainer(
        model=str(folder / "model"),
        args=SFTConfig(**given | dict(changed)),
        train_dataset=dataset,
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = trainer.model
    base = Base(model, tokenizer, MAX_LENGTH, tokenizer.pad_token_id, frozenset({tokenizer.eos_token_id}))
    heldout = [row for asked, reply in read_rows(folder, "heldout") if (row := encode(base, asked, reply)) is not None]
    collate: Callable[[Sequence[Any]], Any] = trainer.data_collator

    def counted(rows: Sequence[Any]) -> Any:
        batch = collate(rows)
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        run.computed += ids.numel()
        run.tokens += int(mask.sum()) if mask is not None else ids.numel()
        run.learned += int((batch["labels"] != -100).sum())
        return batch

    trainer.data_collator = counted

    class Clock(TrainerCallback):  # type: ignore[misc]
        paused = 0.0
        began = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            run.computed = run.tokens = run.learned = 0
            run.begin()
            self.began = time.monotonic()

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            run.steps = state.global_step
            spent = time.monotonic() - self.began - self.paused
            if state.global_step % EVERY and spent < run.limit_s:
                return
            model.eval()
            with packing(base.model):
                found = forced(model, heldout)
            model.train()
            self.paused = time.monotonic() - self.began - spent
            mean = math.fsum(one.loss / len(row.target) for one, row in zip(found, heldout, strict=True)) / len(heldout)
            run.judged(spent, mean)

    trainer.add_callback(Clock())
    run.dtype = f"{str(next(model.parameters()).dtype).removeprefix('torch.')}, autocast {trainer.args.bf16}"
    with suppress(Reached):
        trainer.train()
    run.learned = run.learned // max(1, run.steps)
    return model


ARMS: dict[str, Callable[[Path, Run, int], Any]] = {
    "ours": ours,
    "ours-polite": ours,
    "trl-default": trl_default,
    "trl-tuned": trl_tuned,
}


def utilisation(model: Any, run: Run) -> float:
    """Share (0..1) of the measured peak that went into useful products.

    2 operations a weight and token forwards, 2 backwards to the activations, 2 more for the adapter's own weights; for
    learned tokens only: the head, and the last layer's parts that the recipe spares the others. Attention, norms and
    padding do not count.
    """
    from retrain_jobs.recipes.spared import tokenwise

    linear = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    head = model.get_input_embeddings().weight.numel()
    every = _operations(linear) - (0 if model.config.tie_word_embeddings else 4 * head)
    spared = _operations([weight for part in tokenwise(model) for weight in part.parameters()]) if run.spares else 0
    operations = run.tokens * (every - spared) + run.steps * run.learned * (4 * head + spared)
    return float(operations / run.spent_s / peak())


def _operations(weights: Sequence[Any]) -> int:
    """A token's, forwards and backwards."""
    return sum((6 if weight.requires_grad else 4) * weight.numel() for weight in weights if weight.dim() == 2)


def peak() -> float:
    """Operations a second of a product of matrices, the best of several, in the type that this processor multiplies
    faster: bfloat16 or, where it has no kernels for that, float32."""
    import torch

    from retrain_jobs.base import fastest_dtype

    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]  # the recipe's base rounds it
    size, best, dtype = 2048, math.inf, fastest_dtype()
    one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
    for _ in range(6):
        began = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def main() -> None:
    arm, folder, target, seconds, seed = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    if arm.startswith("ours"):
        heap.start_over()
        prepare_process(THREADS, 0, 0 if arm == "ours-polite" else SPIN)
    run = Run(float(target), float(seconds))
    model = ARMS[arm](Path(folder), run, int(seed))
    run.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run.mfu = utilisation(model, run)
    print(json.dumps(asdict(run)))


if __name__ == "__main__":
    main()
