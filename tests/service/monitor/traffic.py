"""Made traffic: a support desk with a few intents, and a new domain that its model answers wrongly and unsurely."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from service.core.records import Adapter, Capture, Feedback, Labelled
from service.drivers.store import SqlStore

ALIAS = "support"

_DESK = {
    "order_status": ["where is my {item}", "when will the {item} arrive", "has my {item} order {n} shipped yet"],
    "refund": ["i want my money back for the {item}", "please refund the {item} that i sent back", "refund order {n}"],
    "cancel": ["cancel the {item} order", "stop my order {n} please", "i do not want the {item} any more"],
    "invoice": ["send me the invoice for order {n}", "i need a bill for the {item}", "the bill for my {item} is wrong"],
    "password": ["i forgot my password", "how do i reset my login", "my account {n} is locked and i cannot sign in"],
    "hours": ["when are you open on {day}", "what are your opening hours", "is the shop closed on {day}"],
}
_TRAVEL = [
    "book a flight from {city} to {city} on {day}", "do i need a visa for a trip to {city}",
    "how long is the layover in {city}", "find me a hotel near the airport of {city} until {day}",
    "which vaccination is needed before travelling to {city}", "my luggage got lost between {city} and {city}",
]  # fmt: skip
_SLOTS = {
    "item": ["shoes", "blue jacket", "kettle", "phone case", "desk lamp", "tent", "garden chair", "headphones"],
    "day": ["monday", "friday", "sunday", "new year", "saturday"],
    "city": ["lisbon", "osaka", "nairobi", "toronto", "lima", "oslo"],
}
_AROUND = ["", "", "hi ", "hello there ", "excuse me ", "quick question "]


def traffic(
    seed: int, n: int, *, novel: float = 0.0, labelled: float = 1.0, start: float = 1000.0, right: float = 0.95,
    novel_right: float = 0.05, unsure: bool = True, renamed: float = 0.0,
) -> list[Labelled]:  # fmt: skip
    """`n` requests, one a second after `start`, a share `novel` of them about travel.

    `right` and `novel_right`: how often the model answers rightly; `unsure`: whether it doubts its replies on travel;
    `renamed`: how often the right answer to a known request is another than it was.
    """
    random = Random(seed)
    rows = []
    for i in range(n):
        is_novel = random.random() < novel
        intent = random.choice(sorted(_DESK))
        text = random.choice(_AROUND) + random.choice(_TRAVEL if is_novel else _DESK[intent])
        prompt = _fill(text, random)
        is_right = random.random() < (novel_right if is_novel else right)
        target = "travel" if is_novel else intent
        reply = target if is_right else random.choice([name for name in sorted(_DESK) if name != target])
        if renamed and random.random() < renamed:
            target = f"{target}_v2"
        doubtful = random.random() < 0.05 or (unsure if is_novel else not is_right)
        confidence = random.uniform(-1.6, -0.2) if doubtful else -random.expovariate(20.0)
        request = f"{seed}-{start:.0f}-{i}"
        capture = capture_of(request, start + 1.0 + i, prompt, reply, confidence=confidence)
        told = random.random() < labelled
        rows.append(Labelled(capture, Feedback(request, request, capture.at, expected=target) if told else None))
    return rows


def capture_of(request: str, at: float, prompt: str, reply: str, *, confidence: float | None) -> Capture:
    messages = [{"role": "system", "content": "Name the intent."}, {"role": "user", "content": prompt}]
    return Capture(
        request, at, ALIAS, "base", "http://engine", messages, reply, 200, 0.1,
        prompt_tokens=8 + len(prompt.split()), completion_tokens=1 + reply.count("_"), confidence=confidence,
    )  # fmt: skip


def _fill(text: str, random: Random) -> str:
    for name, values in _SLOTS.items():
        while "{" + name + "}" in text:
            text = text.replace("{" + name + "}", random.choice(values), 1)
    return text.replace("{n}", str(random.randint(10, 99)))


def write_base_model(
    folder: Path, *, dtype: str = "BF16", name: str = "model.embed_tokens.weight"
) -> np.ndarray[Any, Any]:
    """A folder with what the embedder reads of a base model; returns the matrix as it was written."""
    folder.mkdir(parents=True)
    texts = [text for texts in _DESK.values() for text in texts] * 5
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    weight = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 32)).astype(np.float32)
    if dtype == "BF16":
        raw = (weight.view(np.uint32) >> 16).astype(np.uint16)
        weight = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        raw = weight.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype])
    write_safetensors(folder / "model.safetensors", {name: (dtype, raw)})
    return weight


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, np.ndarray[Any, Any]]]) -> None:
    header: dict[str, Any] = {}
    body = b""
    for name, (dtype, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(raw.shape), "data_offsets": [len(body), len(body) + raw.nbytes]}
        body += raw.tobytes()
    start = json.dumps(header).encode()
    path.write_bytes(len(start).to_bytes(8, "little") + start + body)


async def promote(store: SqlStore, now: float) -> None:
    """A new champion, whose reference begins now."""
    digest = f"{int(now):064x}"
    name = f"{ALIAS}@{digest[-12:]}"
    await store.add_adapter(Adapter(name, ALIAS, digest, "b" * 64, 8, 1, now))
    await store.promote(ALIAS, name, actor="test", reason="test", now=now)


def later(rows: Sequence[Labelled]) -> float:
    """When the last of them was served."""
    return rows[-1].capture.at
