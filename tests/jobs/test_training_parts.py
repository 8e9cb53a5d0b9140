"""Encoding, generation, packing and the optimizer against transformers' own ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.dataset import build
from retrain_jobs.examples import GoldenItem, Turn
from retrain_jobs.manifest import code_version, manifest
from retrain_jobs.options import Options
from service.settings import RetrainSettings
from tests.jobs.queue import NEW, OLD
from tests.jobs.rows import ONSET, desk

torch = pytest.importorskip("torch")


from retrain_jobs import generate  # noqa: E402
from retrain_jobs.base import Base, load_base  # noqa: E402
from retrain_jobs.encode import IGNORED, Encoded, encode  # noqa: E402
from retrain_jobs.generate import Reply, answered, greedy  # noqa: E402
from retrain_jobs.recipes.attention import attend  # noqa: E402
from retrain_jobs.recipes.flat import FlatAdamW  # noqa: E402
from retrain_jobs.recipes.forced import forced  # noqa: E402
from retrain_jobs.recipes.pace import Pace  # noqa: E402
from retrain_jobs.recipes.packed import STEP, pack, row_losses, target_logits  # noqa: E402
from retrain_jobs.recipes.packing import packing  # noqa: E402
from retrain_jobs.recipes.watch import Curve, Watch  # noqa: E402

QUESTIONS = ["hi", "where is my travel booking for next week", "a refund please", "x " * 20]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    """In float32, where equality means something."""
    loaded = load_base(str(tiny_base), threads=1, max_length=2048)
    loaded.model.float()
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return loaded


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_prompt_and_target_are_tokenized_as_they_are_served(base: Base) -> None:
    row = encode(base, asked("a refund please"), "refund")
    assert row is not None
    served = base.tokenizer.apply_chat_template(asked("a refund please"), add_generation_prompt=True)["input_ids"]
    assert list(row.prompt) == served
    assert base.tokenizer.decode(row.target) == "refund<|end|>"
    assert row.row()["labels"] == [IGNORED] * len(row.prompt) + list(row.target)
    assert base.max_length == 128
    assert encode(base, asked("word " * 200), "refund") is None


def test_batched_greedy_replies_are_those_of_generate_alone(base: Base) -> None:
    prompts = [row.prompt for text in QUESTIONS if (row := encode(base, asked(text), "x"))]
    told: list[int] = []
    replies = greedy(base.model, base, prompts, max_new_tokens=6, batch_tokens=120, on_batch=told.append)
    assert told == sorted(told)
    assert told[-1] == len(prompts)
    for prompt, reply in zip(prompts, replies, strict=True):
        ids = torch.tensor([prompt])
        out = base.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        alone = out.sequences[0, len(prompt) :].tolist()
        steps = [torch.log_softmax(s[0], -1)[t].item() for s, t in zip(out.scores, alone, strict=True)]
        assert list(reply.ids) == [token for token in alone if token not in base.end_ids]
        assert reply.confidence == pytest.approx(sum(steps) / len(steps), abs=1e-4)


def test_what_a_callback_raises_ends_the_generation(base: Base) -> None:
    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        greedy(base.model, base, [(1, 2)], max_new_tokens=2, on_batch=stop)


def test_losses_of_targets_are_the_models_own(base: Base) -> None:
    rows = [row for text in QUESTIONS if (row := encode(base, asked(text), f"{text[:3]} reply"))]
    with packing(base.model):
        found = forced(base.model, rows, 100)
    for row, one in zip(rows, found, strict=True):
        data = {name: torch.tensor([ids]) for name, ids in row.row().items()}
        mean = base.model(**data).loss.item()
        assert one.loss == pytest.approx(mean * len(row.target), rel=1e-4)


def test_a_target_that_would_be_said_is_the_reply_without_being_generated(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [row.prompt for text in QUESTIONS if (row := encode(base, asked(text), "reply"))]
    end = greedy(base.model, base, prompts[:1], max_new_tokens=6)[0].ids[-1]
    ending = replace(base, end_ids=frozenset({end}))
    replies = greedy(base.model, ending, prompts, max_new_tokens=6)
    rows = [Encoded(prompt, (*reply.ids, end)) for prompt, reply in zip(prompts, replies, strict=True)]
    wrong = (*replies[-1].ids, end)[0] + 1
    rows[-1] = Encoded(prompts[-1], (wrong, end))
    generated: list[Sequence[int]] = []

    def watched(model: Any, base: Base, prompts: Sequence[Sequence[int]], **given: Any) -> list[Reply]:
        generated.extend(prompts)
        return greedy(model, base, prompts, **given)

    monkeypatch.setattr(generate, "greedy", watched)
    found, losses = answered(base.model, ending, rows, max_new_tokens=6)
    assert [reply.ids for reply in found] == [reply.ids for reply in replies]
    assert [reply.confidence for reply in found] == pytest.approx([reply.confidence for reply in replies], abs=1e-4)
    assert losses[0] == pytest.approx(-replies[0].confidence * len(rows[0].target), rel=1e-4)
    assert prompts[-1] in generated
    assert prompts[0] not in generated


def test_packed_rows_do_not_attend_to_each_other(base: Base) -> None:
    rows = [row for text in QUESTIONS if (row := encode(base, asked(text), f"{text[:3]} reply"))]
    batch = pack(rows, base.model.device)
    with packing(base.model), torch.no_grad():
        logits = target_logits(base.model, batch)
        losses = row_losses(logits, batch)
    alone = []
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.target]])
        with torch.no_grad():
            alone.append(base.model(ids).logits[0, len(row.prompt) - 1 : -1])
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert batch.tokens.computed - STEP < sum(map(len, rows)) == batch.tokens.used
    own = [
        -one.log_softmax(-1)[range(len(row.target)), row.target].mean().item()
        for one, row in zip(alone, rows, strict=True)
    ]
    assert losses.tolist() == pytest.approx(own, rel=1e-4)


def test_a_sliding_window_hides_what_lies_before_it() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, STEP, 4) for heads in (4, 2, 2))
    rows = [Encoded((1, 2, 3), (4, 5)), Encoded((1,), (2,))]
    batch = pack(rows, query.device)
    out, _ = attend(torch.nn.Identity(), query, key, value, None, scaling=0.5, batch=batch, sliding_window=3)
    for span in (slice(0, 5), slice(5, 7)):
        n = span.stop - span.start
        mask = torch.ones(n, n, dtype=torch.bool).tril() & ~torch.ones(n, n, dtype=torch.bool).tril(-3)
        part = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, span], key[:, :, span], value[:, :, span], mask, scale=0.5, enable_gqa=True
        )
        torch.testing.assert_close(out[:, span], part.transpose(1, 2))


def test_a_flat_optimizer_steps_as_torchs_does() -> None:
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.arange(n, dtype=torch.float32)) for n in (3, 5)] for _ in range(2))
    flat = FlatAdamW(ours, torch.float32, beta2=0.98, weight_decay=0.01, max_norm=1.0)
    adam = torch.optim.AdamW(theirs, lr=0.1, betas=(0.9, 0.98), weight_decay=0.01)
    for _ in range(3):
        for weights in (ours, theirs):
            sum((weight**2).sum() for weight in weights).backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        adam.step()
        adam.zero_grad()
        flat.step(0.1)
    flat.release()
    torch.testing.assert_close([*ours], [*theirs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_of_the_weights_is_near_where_steps_that_are_too_long_circle_around(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, goal = torch.nn.Parameter(torch.zeros(64, dtype=dtype)), torch.randn(64)
    flat = FlatAdamW([weight], dtype, beta2=0.98, weight_decay=0.0, max_norm=10.0)

    def distance() -> float:
        return float((weight.detach().float() - goal).norm())

    def walk(steps: int) -> None:
        for _ in range(steps):
            ((weight.float() - goal + torch.randn(64)) ** 2).sum().backward()
            flat.step(0.2)

    walk(200)
    alone, here = distance(), weight.detach().clone()
    with flat.averaged():
        assert distance() < alone / 2
    assert torch.equal(weight, here)
    kept, random = deepcopy(flat.state()), torch.get_rng_state()
    walk(5)
    one = flat.average.clone()
    flat.load(kept)
    torch.set_rng_state(random)
    walk(5)
    assert torch.equal(flat.average, one)


def test_the_best_weights_stay_what_they_were_while_training_goes_on() -> None:
    watch = Watch(Curve(), Pace(0.1, 60.0), RetrainSettings(patience=9), lambda share, detail: None, steps=9)
    weights = torch.zeros(3)
    kept = []
    for loss in (3.0, 1.0, 2.0):
        weights += 1
        watch.evaluated(loss, 0.5, weights)
        assert watch.best is not None
        kept.append(watch.best.tolist())
    assert kept == [[1.0] * 3, [2.0] * 3, [2.0] * 3]


def test_equal_inputs_give_an_equal_manifest_without_times_or_paths() -> None:
    options = Options(4, 100, 0.5, 0.2, 0)

    def made(**changes: object) -> dict[str, object]:
        dataset = build(desk(NEW, 20, start=ONSET + 1), desk(OLD, 20, start=1), (), options)
        values: dict[str, object] = {
            "dataset": dataset, "golden": (GoldenItem((Turn("user", "q"),), "a"),), "knobs": RetrainSettings(),
            "config": {"scheduler": "cosine"}, "spec": {"champion": "base"}, "base_digest": "0" * 64, "threads": 2,
        }  # fmt: skip
        return manifest(**{**values, **changes})  # type: ignore[arg-type]

    one = made()
    assert one == made()
    assert json.loads(json.dumps(one)) == one
    assert one["code"] == code_version()
    assert str(Path(__file__).parents[2]) not in json.dumps(one)
    assert one != made(golden=())
    assert one != made(knobs=RetrainSettings(seed=1))
    assert one != made(base_digest="1" * 64)
    dataset = one["dataset"]
    assert isinstance(dataset, dict)
    assert dataset["train"]
    assert not set(dataset["train"]) & set(dataset["heldout"])
