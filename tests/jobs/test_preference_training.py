"""DPO and KTO on our loop: TRL's losses, and on a tiny model what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.again import find_manifest, make_again
from retrain_jobs.job import run_job
from service.core.errors import Conflict
from service.core.records import JobStatus, Labelled
from service.drivers.blobs import open_blobs
from service.drivers.store import SqlStore
from service.settings import Recipe, RetrainSettings, Settings
from tests.jobs.queue import NEW, OLD, enqueue, traffic
from tests.jobs.rows import ONSET, desk, labelled

torch = pytest.importorskip("torch")

from peft import get_peft_model  # noqa: E402

from retrain_jobs.base import Base, load_base  # noqa: E402
from retrain_jobs.candidate import goal, read_config  # noqa: E402
from retrain_jobs.encode import Encoded, encode  # noqa: E402
from retrain_jobs.recipes import sft_lora  # noqa: E402
from retrain_jobs.recipes.dpo_lora import Pairs  # noqa: E402
from retrain_jobs.recipes.kto_lora import Thumbs  # noqa: E402
from retrain_jobs.recipes.objective import Objective, reference  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402

KNOBS = RetrainSettings(rank=8, alpha=16, epochs=4, batch_size=16, threads=1, nice=0, patience=8)


@pytest.fixture
def base(tiny_base: Path) -> Base:
    loaded = load_base(str(tiny_base), threads=1, max_length=128)
    loaded.model.float()
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return loaded


def pairs_of(base: Base, count: int, word: str = "please") -> list[tuple[Encoded, Encoded]]:
    """Each kind is preferred to the one after it."""
    found = []
    for row in desk([*OLD, *NEW], count, start=0, word=word):
        assert row.feedback is not None
        kinds = (*OLD, *NEW)
        right = str(row.feedback.expected)
        wrong = kinds[(kinds.index(right) + 1) % len(kinds)]
        asked = [dict(message) for message in row.capture.prompt]
        sides = [encode(base, asked, text) for text in (right, f"{wrong} or so")]
        found.append((sides[0], sides[1]))
    return found  # type: ignore[return-value]


def stirred(base: Base, objective: Objective) -> Any:
    """A LoRA that has moved away from the reference that the objective took."""
    torch.manual_seed(0)
    model = get_peft_model(base.model, sft_lora.lora(KNOBS, read_config(Recipe.SFT_LORA)))
    with packing(base.model):
        objective.begin(model, 4096)
    return model


def stir(model: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".default." in name:
                weight.normal_(0, 0.3)


def ours(base: Base, model: Any, objective: Objective) -> float:
    with packing(base.model):
        total, _ = objective.loss(model, list(range(len(objective.lengths))))
    return total.item() / len(objective.lengths)


def trl_config(kind: Any, folder: Path, **values: Any) -> Any:
    return kind(
        output_dir=str(folder), use_cpu=True, report_to=[], per_device_train_batch_size=4, beta=0.1,
        gradient_checkpointing=False, bf16=False, disable_tqdm=True, **values,
    )  # fmt: skip


def test_the_loss_of_pairs_is_trls(base: Base, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = pairs_of(base, 1)
    objective = Pairs(rows, beta=0.1, sft_weight=0.0, rate_ratio=1.0)
    model = stirred(base, objective)
    some = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 4)
    trainer = DPOTrainer(model, args=trl_config(DPOConfig, tmp_path), train_dataset=some,
                         processing_class=base.tokenizer)  # fmt: skip
    stir(model)
    batch = DataCollatorForPreference(base.pad_id)(
        [
            {"prompt_ids": list(one.prompt), "chosen_ids": list(one.target), "rejected_ids": list(other.target)}
            for one, other in rows
        ]
    )
    theirs = trainer.compute_loss(trainer.model, batch).item()
    assert theirs != pytest.approx(0.69315, abs=0.005), "policy and reference are the same: the test shows nothing"
    assert ours(base, model, objective) == pytest.approx(theirs, rel=1e-4)


def test_the_loss_of_thumbs_is_trls(base: Base, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    rows = pairs_of(base, 2)
    objective = Thumbs([one for one, _ in rows[:6]], [other for _, other in rows[6:]], beta=0.1, rate_ratio=1.0)
    model = stirred(base, objective)
    some = Dataset.from_list([{"prompt": "a", "completion": "b", "label": bool(n % 2)} for n in range(4)])
    config = trl_config(KTOConfig, tmp_path, undesirable_weight=3.0)
    trainer = KTOTrainer(model, args=config, train_dataset=some, processing_class=base.tokenizer)
    stir(model)
    batch = DataCollatorForUnpairedPreference(base.pad_id)(
        [
            {
                "prompt_ids": list(row.prompt), "completion_ids": list(row.target),
                "KL_completion_ids": list(strange.target), "label": place < 6,
            }
            for place, (row, strange) in enumerate(zip(objective.rows, objective.strange, strict=True))
        ]
    )  # fmt: skip
    theirs = trainer.compute_loss(trainer.model, batch).item()
    assert ours(base, model, objective) == pytest.approx(theirs, rel=1e-4)


def test_the_preferred_replys_own_loss_is_its_mean_a_token(base: Base) -> None:
    rows = pairs_of(base, 2)
    plain, anchored = (Pairs(rows, beta=0.1, sft_weight=weight, rate_ratio=1.0) for weight in (0.0, 0.5))
    model = stirred(base, plain)
    with packing(base.model):
        anchored.begin(model, 4096)
    stir(model)
    with packing(base.model):
        found = reference(model, [one for one, _ in rows], 4096)
    nll = sum(-total.item() / len(one.target) for total, (one, _) in zip(found, rows, strict=True)) / len(rows)
    difference = ours(base, model, anchored) - ours(base, model, plain)
    assert difference == pytest.approx(0.5 * nll, rel=1e-4)


def gains(base: Base, objective: Objective, rows: Sequence[Encoded], folder: Path, recipe: Recipe) -> list[float]:
    """By how many nats each row became likelier in a short training."""
    with packing(base.model):
        before = reference(base.model, rows, 4096)
    model, curve = sft_lora.train(
        base, objective, list(rows)[:8], KNOBS, read_config(recipe), folder, lambda share, detail: None
    )
    assert curve.steps > 4
    with packing(base.model):
        return (reference(model, rows, 4096) - before).tolist()


@pytest.mark.parametrize("sft_weight", [0.0, 1.0])
def test_dpo_raises_the_margin_of_preferred_replies(base: Base, tmp_path: Path, sft_weight: float) -> None:
    train, unseen = pairs_of(base, 16), pairs_of(base, 4, word="kindly")
    objective = Pairs(train, beta=0.1, sft_weight=sft_weight, rate_ratio=0.1)
    found = gains(base, objective, [row for pair in unseen for row in pair], tmp_path, Recipe.DPO_LORA)
    margins = [one - other for one, other in zip(found[::2], found[1::2], strict=True)]
    assert sum(margins) / len(margins) > 1.0
    assert sum(margin > 0 for margin in margins) > 0.9 * len(margins)


def test_kto_makes_wanted_replies_likelier_than_rejected_ones(base: Base, tmp_path: Path) -> None:
    train, unseen = pairs_of(base, 16), pairs_of(base, 4, word="kindly")
    wanted, rejected = [one for one, _ in train[::2]], [other for _, other in train[1::2]]
    objective = goal(read_config(Recipe.KTO_LORA), wanted, rejected, seed=0)
    assert isinstance(objective, Thumbs)
    rows = [one for one, _ in unseen] + [other for _, other in unseen]
    found = gains(base, objective, rows, tmp_path, Recipe.KTO_LORA)
    up, down = found[: len(unseen)], found[len(unseen) :]
    assert sum(up) / len(up) - sum(down) / len(down) > 1.0


def test_both_kinds_of_thumbs_weigh_the_same() -> None:
    row = Encoded((1, 2), (3,))
    objective = Thumbs([row] * 6, [row] * 2, beta=0.1, rate_ratio=1.0)
    weights = objective.weights(torch.tensor([True] * 6 + [False] * 2))
    assert weights[:6].sum() == weights[6:].sum()
    assert all(len(one) <= 3 for one in objective.strange)


def corrected(rows: Sequence[Labelled]) -> list[Labelled]:
    kinds = (*OLD, *NEW)
    return [
        replace(row, capture=replace(row.capture, reply=kinds[kinds.index(row.feedback.expected or "") - 1]))
        for row in rows if row.feedback
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", [Recipe.DPO_LORA, Recipe.KTO_LORA])
async def test_a_job_of_preferences_is_made_again_to_the_byte(
    store: SqlStore, settings: Settings, tiny_base: Path, recipe: Recipe
) -> None:
    knobs = settings.retrain.model_copy(update={"recipe": recipe, "epochs": 3.0})
    trained = settings.model_copy(update={"model": str(tiny_base), "retrain": knobs})
    thumbs = [
        labelled(f"down-{n}", f"nothing of the kind {n * 7919} {chr(97 + n) * 8}", rating=-1.0, at=ONSET + 300 + n,
                 reply=f"odd {n}")
        for n in range(12)
    ]  # fmt: skip
    await enqueue(store, [*corrected(traffic()), *thumbs])
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    adapter = await run_job(store, blobs, trained, "j1", "me", threads=1)
    told = adapter.manifest["dataset"]
    alone = [name for name in told["rejected"] if name.startswith("down-")]
    assert len(alone) == (12 if recipe is Recipe.KTO_LORA else 0)
    assert set(told["rejected"]) - set(alone) == set(told["train"])
    assert set(alone) <= set(told["new"])
    assert adapter.manifest["recipe"]["beta"] == 0.1
    new = (await store.job("j1")).result["evaluation"]["heldout"]["new"]
    assert new["candidate"] > new["champion"] or recipe is Recipe.KTO_LORA, (
        "a preferred reply is learned by itself, too"
    )
    judged = (await store.job("j1")).result["evaluation"]["preferences"]
    assert judged["n"] == len(told["heldout"])
    assert judged["candidate"] > judged["champion"], "what is learned of preferences holds for held-out pairs"
    again = await make_again(store, blobs, settings.model_copy(update={"model": str(tiny_base)}),
                             await find_manifest(store, adapter.name), None)  # fmt: skip
    assert again.digest == adapter.digest


async def test_without_corrections_a_job_of_pairs_ends_before_the_model_is_touched(
    store: SqlStore, settings: Settings
) -> None:
    """The base model of these settings is not there, and nobody noticed."""
    knobs = settings.retrain.model_copy(update={"recipe": Recipe.DPO_LORA})
    rows = [labelled(f"up-{n}", f"question {n * 7919} {n}", rating=1.0, reply=f"yes {n % 3}", at=ONSET + n)
            for n in range(60)]  # fmt: skip
    await enqueue(store, rows)
    blobs = open_blobs(settings.blobs_url, settings.state_dir / "cache")
    with pytest.raises(Conflict, match="0 corrected replies"):
        await run_job(store, blobs, settings.model_copy(update={"retrain": knobs}), "j1", "me", threads=1)
    job = await store.job("j1")
    assert job.status is JobStatus.FAILED
    assert "retrain.recipe" in (job.error or "")
