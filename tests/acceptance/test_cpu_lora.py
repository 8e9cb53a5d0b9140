"""The CPU LoRA plugin in a real vLLM, beside the same vLLM without it.

About two minutes on two cores, most of it the start of the two engines (at once, idle in turn).
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import Qwen3ForCausalLM

from benchmarks.tiny_model import save_adapter, save_model, tokenizer
from benchmarks.traffic import chat, send, texts
from benchmarks.vllm_server import vllm_server

pytestmark = pytest.mark.acceptance

ADAPTERS = ("one", "two", "three")
ALL = ("base", *ADAPTERS)
CONCURRENCY = 32
REPLIES = 208
STOCK_REPLIES = 64
"""Of the slow path, enough to see that nearly all are changed."""

PLUGINS_BUT_LORA = "trimtab_cpu_wait,trimtab_cpu_norm,trimtab_cpu_tiles"
TOKENS = 16
NEAR_TIE = 0.03
"""In nats between likely tokens: twice the most by which rounding was seen to turn one."""
COMPILED = "compiled"
"""Where PyTorch would put what it compiles while requests wait."""


@dataclass(frozen=True)
class Engines:
    folder: Path
    plugin: str
    stock: str


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    folder = tmp_path_factory.mktemp("cpu_lora")
    model = save_model(folder / "base")
    adapters = {name: save_adapter(folder / name, model, seed=seed) for seed, name in enumerate(ADAPTERS, start=1)}
    servers = [
        vllm_server(
            model, adapters, folder / "plugin.log", environment={"TORCHINDUCTOR_CACHE_DIR": str(folder / COMPILED)}
        ),
        vllm_server(
            model,
            adapters,
            folder / "stock.log",
            environment={"VLLM_PLUGINS": PLUGINS_BUT_LORA},
        ),
    ]
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        plugin, stock = pool.map(stack.enter_context, servers)
        yield Engines(folder, plugin, stock)


@dataclass(frozen=True, slots=True)
class Token:
    """A greedy token, and by how many nats it won over each of the next likely ones: several may be nearly tied."""

    chosen: str
    leads: dict[str, float]


Reply = tuple[Token, ...]


def replies(url: str, models: Sequence[str], count: int = REPLIES) -> list[Reply]:
    """Greedy replies to `count` texts, each sent to all of `models` in turn."""
    bodies = [
        chat(model, text, tokens=TOKENS) | {"logprobs": True, "top_logprobs": 5, "return_tokens_as_token_ids": True}
        for text in texts(count)
        for model in models
    ]
    run = send(url, bodies, CONCURRENCY)
    return [tuple(map(read, reply["choices"][0]["logprobs"]["content"])) for reply in run.replies]


def read(position: dict[str, Any]) -> Token:
    best = position["logprob"]
    return Token(position["token"], {one["token"]: best - one["logprob"] for one in position["top_logprobs"]})


def changed(alone: Reply, mixed: Reply) -> bool:
    """Whether they part at anything but a near-tie, which the rounding of matmuls of few or of many rows may turn."""
    for a, b in zip(alone, mixed, strict=True):
        if a.chosen != b.chosen:
            return max(a.leads.get(b.chosen, math.inf), b.leads.get(a.chosen, math.inf)) > NEAR_TIE
    return False


def changed_by_company(url: str, models: Sequence[str], mixed: Sequence[Reply]) -> dict[str, int]:
    """How many replies of each of `models` are changed in `mixed`, where requests to all four shared batches."""
    count = len(mixed) // len(ALL)
    return {
        model: sum(map(changed, replies(url, [model], count), mixed[ALL.index(model) :: len(ALL)])) for model in models
    }


@pytest.fixture(scope="module")
def mixed(engines: Engines) -> list[Reply]:
    return replies(engines.plugin, ALL)


def test_the_plugin_is_in_force_in_one_engine_only(engines: Engines) -> None:
    assert "Using DensePunicaWrapper." in (engines.folder / "plugin.log").read_text()
    assert "Using PunicaWrapperCPU." in (engines.folder / "stock.log").read_text()


def test_requests_that_come_together_are_served_together(engines: Engines) -> None:
    """One after the other they would take 32 times as long as one, as in vLLM without `cpu_wait` on two busy cores."""
    bodies = [chat("base", text, tokens=32) for text in texts(CONCURRENCY)]
    send(engines.plugin, bodies, CONCURRENCY)
    one = min(send(engines.plugin, bodies[:1], 1).wall_s for _ in range(3))
    all_ = min(send(engines.plugin, bodies, CONCURRENCY).wall_s for _ in range(3))
    assert all_ < 12 * one


def test_no_request_waits_for_a_compiler(engines: Engines) -> None:
    """Confidences are log-probabilities; vLLM's sampler would have PyTorch compile for them, and for a temperature."""
    asked = [
        chat(model, "hello", tokens=4) | {"logprobs": True, "top_logprobs": 2, "temperature": 1.0} for model in ALL
    ]
    for reply in send(engines.plugin, asked, CONCURRENCY).replies:
        assert len(reply["choices"][0]["logprobs"]["content"]) == 4
    assert not list((engines.folder / COMPILED).rglob("*.cpp"))


def test_no_reply_changes_by_being_batched_with_those_of_others(engines: Engines, mixed: list[Reply]) -> None:
    assert changed_by_company(engines.plugin, ALL, mixed) == dict.fromkeys(ALL, 0)


def test_that_check_catches_the_defect_of_the_stock_path(engines: Engines) -> None:
    mixed = replies(engines.stock, ALL, STOCK_REPLIES)
    assert changed_by_company(engines.stock, ["base"], mixed)["base"] > 0.9 * STOCK_REPLIES


def test_every_adapter_changes_the_replies(mixed: list[Reply]) -> None:
    told = [tuple(token.chosen for token in reply) for reply in mixed]
    for first in range(0, len(told), len(ALL)):
        assert len(set(told[first : first + len(ALL)])) == len(ALL)


def test_log_probabilities_are_pefts_within_bfloat16_error(engines: Engines) -> None:
    """vLLM is no further from PEFT in float32 than PEFT in bfloat16 is, but for chance."""
    prompts = [tokenizer().encode(text * 3)[:64] for text in texts(8, seed=1)]
    bodies = [
        {"model": model, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0} for prompt in prompts for model in ALL
    ]
    told = send(engines.plugin, bodies, CONCURRENCY, "/v1/completions").replies
    exact = {model: peft_logprobs(engines.folder, model, prompts, torch.float32) for model in ALL}
    for offset, model in enumerate(ALL):
        served = torch.tensor(
            [
                next(iter(position.values()))["logprob"]
                for reply in told[offset :: len(ALL)]
                for position in reply["choices"][0]["prompt_logprobs"][1:]
            ]
        )
        rounded = peft_logprobs(engines.folder, model, prompts, torch.bfloat16)
        bfloat16_error = rms(rounded - exact[model])
        assert rms(served - exact[model]) < 1.25 * bfloat16_error, model
        others = [rms(exact[other] - exact[model]) for other in ALL if other != model]
        assert min(others) > 20 * bfloat16_error, "the adapters differ too little for this test to tell"


def rms(error: torch.Tensor) -> float:
    return error.square().mean().sqrt().item()


def peft_logprobs(folder: Path, name: str, prompts: list[list[int]], dtype: torch.dtype) -> torch.Tensor:
    """Log-probability of each prompt's tokens after the first, by transformers and PEFT."""
    model: torch.nn.Module = Qwen3ForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    if name != "base":
        model = PeftModel.from_pretrained(model, str(folder / name), autocast_adapter_dtype=False)
        model = model.to(dtype)
    told = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        told.append(logprobs.gather(1, ids[0, 1:, None])[:, 0])
    return torch.cat(told)
