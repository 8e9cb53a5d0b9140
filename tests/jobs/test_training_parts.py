"""Encoding, generation and the collator against transformers' own ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrain_jobs.dataset import Options, build
from retrain_jobs.examples import GoldenItem, Turn
from retrain_jobs.manifest import code_version, manifest
from service.settings import RetrainSettings
from tests.jobs.queue import NEW, OLD
from tests.jobs.rows import ONSET, desk

torch = pytest.importorskip("torch")

from retrain_jobs.base import Base, load_base  # noqa: E402
from retrain_jobs.encode import IGNORED, encode  # noqa: E402
from retrain_jobs.generate import greedy, target_losses  # noqa: E402
from retrain_jobs.recipes.completion import Collator  # noqa: E402

QUESTIONS = ["hi", "where is my travel booking for next week", "a refund please", "x " * 20]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    """In float32, where equality means something."""
    loaded = load_base(str(tiny_base), threads=1, max_length=2048)
    loaded.model.float()
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
    losses = target_losses(base.model, base, rows, batch_tokens=100)
    for row, loss in zip(rows, losses, strict=True):
        data = {name: torch.tensor([ids]) for name, ids in row.row().items()}
        mean = base.model(**data).loss.item()
        assert loss == pytest.approx(mean * len(row.target), rel=1e-4)


def test_the_collator_puts_all_targets_at_the_right_edge() -> None:
    rows = [
        {"input_ids": [5, 6, 7, 8], "labels": [IGNORED, IGNORED, 7, 8]},
        {"input_ids": [5, 9], "labels": [IGNORED, 9]},
    ]
    batch = Collator(pad_id=0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [0, 0, 5, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert batch["labels"].tolist() == [[7, 8], [IGNORED, 9]]


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
