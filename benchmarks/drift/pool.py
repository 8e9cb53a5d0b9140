"""Requests with a real base model's own replies and confidences, answered once and kept: streams are drawn from them.

*CLINC150*: the base model of `benchmarks.clinc` on the validation and test splits of the five domains that it was
taught, and all of travel, which it was not. *Made*: the demo's base model on the demo's held-out requests and on its
novel intents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import clinc
from benchmarks.drift.answered import Answered
from demo.base_model import ensure_base_model
from demo.corpus import Example, Split, novel, taught

MADE_KNOWN, MADE_NOVEL = 5000, 1200
_BATCH = 64
_MOST_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Pool:
    """What streams are drawn from; `model` is the base model's folder, for its embeddings."""

    name: str
    model: Path
    known: tuple[Answered, ...]
    novel: tuple[Answered, ...]


def pools(cache: Path, data: Path) -> list[Pool]:
    """Both pools, answered now unless `cache` has them; the base models are trained where they are missing."""
    return [_clinc(cache, data), _made(cache)]


def _clinc(cache: Path, data: Path) -> Pool:
    texts = clinc.read(data)
    model = cache / "clinc150"
    clinc.make_base(model, texts, lambda share, line: None)
    known = [*texts.taught["val"], *texts.taught["test"]]
    new = [example for split in ("train", "val", "test") for example in texts.novel[split]]
    return _pool("CLINC150", model, known, new, cache)


def _made(cache: Path) -> Pool:
    model = ensure_base_model(cache)
    return _pool("made", model, taught(101, MADE_KNOWN, Split.HELD), novel(102, MADE_NOVEL, Split.HELD), cache)


def _pool(name: str, model: Path, known: Sequence[Example], new: Sequence[Example], cache: Path) -> Pool:
    asked = "\n".join(f"{example.text}\t{example.target}" for example in (*known, *new))
    digest = sha256(f"{model.name}\n{(model / 'model.safetensors').stat().st_mtime_ns}\n{asked}".encode()).hexdigest()
    kept = cache / f"drift-{name.lower()}-{digest[:12]}.json"
    if not kept.is_file():
        answered = _answer(model, known, novel=False) + _answer(model, new, novel=True)
        kept.write_text(json.dumps([asdict(one) for one in answered]), "utf-8")
    found = [Answered(**one) for one in json.loads(kept.read_text("utf-8"))]
    return Pool(name, model, *(tuple(one for one in found if one.novel is is_new) for is_new in (False, True)))


@torch.no_grad()
def _answer(model: Path, examples: Sequence[Example], *, novel: bool) -> list[Answered]:
    """Greedy replies, a batch of requests of like length at a time."""
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
    found: dict[int, Answered] = {}
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        prompts = [
            tokenizer.apply_chat_template(list(examples[i].messages), add_generation_prompt=True, tokenize=False)
            for i in batch
        ]
        asked = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        told = network.generate(
            **asked, max_new_tokens=_MOST_TOKENS, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
        chances = torch.log_softmax(torch.stack(told.scores, 1).float(), -1)
        width = asked["input_ids"].shape[1]
        for row, i in enumerate(batch):
            ids = told.sequences[row, width:].tolist()
            end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids) - 1
            sure = float(torch.stack([chances[row, k, ids[k]] for k in range(end + 1)]).mean())
            reply = tokenizer.decode(ids[:end], skip_special_tokens=True)
            tokens = int(asked["attention_mask"][row].sum())
            found[i] = Answered(examples[i].text, examples[i].target, novel, reply, sure, tokens, end + 1)
    return [found[i] for i in range(len(examples))]
