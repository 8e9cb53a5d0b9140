"""A task for a random base model: a request of made-up words names its intent by one word, the reply is the intent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

INTENTS = 16
KEYWORDS = 2
FILLERS = 200


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen3; heads are 64 wide, every second one has its own keys."""

    hidden: int
    layers: int
    vocabulary: int


SHAPES = {"5M": Shape(256, 5, 2048), "50M": Shape(640, 9, 4096)}


def write_task(folder: Path, shape: Shape, *, rows: int, seed: int, system: int = 0) -> Path:
    """Write `model/`, `train.jsonl` and `heldout.jsonl` (a tenth as many) into the folder.

    All rows have the same system prompt of `system` words, where there are any.
    """
    from demo.tokenizer import END, PAD, train_tokenizer

    rng = Random(seed)
    words = [_word(rng) for _ in range(FILLERS + INTENTS * (KEYWORDS + 2))]
    lines = [_row(words, rng) for _ in range(rows + rows // 10)]
    before = " ".join(rng.choices(words[:FILLERS], k=system))
    texts = [before, *(text for line in lines for text in (line["prompt"], line["reply"]))]
    lines = [{"system": before, **line} for line in lines]
    tokenizer = train_tokenizer(texts, shape.vocabulary)
    for name, part in (("train", lines[:rows]), ("heldout", lines[rows:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part), "utf-8")

    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=3 * shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.hidden // 64,
            num_key_value_heads=shape.hidden // 128,
            head_dim=64,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )
    with torch.no_grad():  # as it comes, a frozen random head can say nothing clearly
        model.get_input_embeddings().weight.normal_(0, shape.hidden**-0.5)
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def read_rows(folder: Path, name: str) -> list[tuple[list[dict[str, str]], str]]:
    """Messages and replies."""
    lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [(_asked(row), row["reply"]) for row in map(json.loads, lines)]


def _asked(row: dict[str, str]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": row["system"]}] if row["system"] else []
    return [*system, {"role": "user", "content": row["prompt"]}]


def _row(words: list[str], rng: Random) -> dict[str, str]:
    """Lengths vary as those of requests do: most are short, few are long."""
    intent = rng.randrange(INTENTS)
    mine = words[FILLERS + intent * (KEYWORDS + 2) :][: KEYWORDS + 2]
    said = rng.choices(words[:FILLERS], k=min(60, 4 + int(rng.lognormvariate(2.2, 0.7))))
    said.insert(rng.randrange(len(said) + 1), rng.choice(mine[:KEYWORDS]))
    return {"prompt": " ".join(said), "reply": " ".join(mine[KEYWORDS:])}


def _word(rng: Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))
