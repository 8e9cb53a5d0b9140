"""Several processes share each step's rows: one leads, the others compute their part of the gradient and no more.

The leader alone has the lease, the clock, the optimizer, the held-out rows and the checkpoint. Before a step it sends
its weights, after it the gradients come back: no more than an all-reduce moves, and there is nothing else that must be
kept in step. The others do as they are told until it is over, and end when nobody leads any more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from peft import get_peft_model

from retrain_jobs.base import Base, load_base
from retrain_jobs.limits import one_line
from retrain_jobs.processes import LEADER
from retrain_jobs.recipes.bare import take_out_lora
from retrain_jobs.recipes.flat import FlatWeights
from retrain_jobs.recipes.lean import lean
from retrain_jobs.recipes.objective import Objective
from retrain_jobs.recipes.order import within
from retrain_jobs.recipes.packed import Tokens
from retrain_jobs.recipes.packing import packing
from service.core.errors import Conflict
from service.drivers.base_model import base_digest
from service.settings import Quantize

log = logging.getLogger(__name__)

SILENCE = timedelta(minutes=30)
"""Who hears nothing for so long takes the others for lost; one that dies is noticed at once."""

CPU = torch.device("cpu")

Compute = Callable[[int, Sequence[int]], tuple[torch.Tensor, Tokens]]
"""Adds the gradient of a step's batch; returns its mean loss, and the tokens that were computed."""


class Command(StrEnum):
    LOOK = "look"  # at the model as training begins with it
    TELL = "tell"  # what went wrong
    END = "end"  # of this training
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Begin:
    """A training: what to wrap the base model in, and what to make small."""

    adapter: Any
    goal: Objective
    seed: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    number: int
    batch: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """To Begin and TELL: the digest of the base model, and what went wrong."""

    base: str = ""
    error: str | None = None


@dataclass(slots=True)
class Share:
    """One process's part of a training."""

    model: Any
    weights: FlatWeights
    goal: Objective
    seed: int
    max_tokens: int
    rank: int = LEADER
    size: int = 1
    error: Exception | None = field(default=None, init=False)

    def compute(self, number: int, batch: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        """Of the batch's rows every `size`th, so that lengths are even; together they make the whole batch's mean.

        The random numbers of a step follow from the seed and the step.
        """
        torch.manual_seed((self.seed * 1_000_003 + number) * self.size + self.rank)
        loss = torch.zeros((), device=self.model.device)
        self.model.train()
        tokens = Tokens()
        for part in within(batch[self.rank :: self.size], self.goal.lengths, self.max_tokens):
            whole, its = self.goal.loss(self.model, part)
            share = whole / len(batch)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
            tokens += its
        return loss, tokens

    def look(self) -> None:
        """Take the leader's weights and look at the model."""
        self._take()
        try:
            self.goal.begin(self.model, self.max_tokens)
        except Exception as error:  # told with the first step
            self._failed(error)

    def step(self, number: int, batch: Sequence[int]) -> tuple[torch.Tensor, Tokens, bool]:
        """Take the leader's weights, compute, and add everybody's up at the leader's: loss, tokens, whether all did.

        Who fails takes part all the same, so that nobody waits.
        """
        self._take()
        loss, tokens = torch.zeros((), device=self.model.device), Tokens()
        try:
            if self.error is None:
                loss, tokens = self.compute(number, batch)
        except Exception as error:
            self._failed(error)
        gradient = self.weights.gradient
        if self.error is not None:
            gradient.zero_()
        counts = (tokens.used, tokens.computed, self.error is not None)
        told = [loss.float(), *(loss.new_tensor(float(n)) for n in counts)]
        vector = torch.cat([gradient.float(), torch.stack(told)])
        with _others():
            dist.reduce(vector, LEADER)
        if self.rank == LEADER:
            gradient.copy_(vector[:-4])
        else:
            gradient.zero_()
        return vector[-4], Tokens(int(vector[-3]), int(vector[-2])), not vector[-1]

    def _take(self) -> None:
        master = self.weights.master.detach()
        values = master if self.rank == LEADER else torch.empty_like(master)
        with _others():
            dist.broadcast(values, LEADER)
        if self.rank != LEADER:
            self.weights.put(values)

    def _failed(self, error: Exception) -> None:
        log.error("process %d: %s", self.rank, error, exc_info=error)
        self.error = error


def join() -> None:
    """Meet the others; on a GPU this process takes the one of its local rank. Raises Conflict when they do not come."""
    os.environ.setdefault("LOCAL_RANK", "0")
    gpu = torch.cuda.is_available()
    with _others():
        PartialState(cpu=not gpu, backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=SILENCE)


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def dismiss() -> None:
    """The leader needs the others no more."""
    if dist.is_initialized():
        _say(Command.OVER)
        dist.destroy_process_group()


@contextmanager
def crew(model: Any, weights: FlatWeights, goal: Objective, *, seed: int, max_tokens: int) -> Iterator[Compute]:
    """Within the block all processes train; yields how a step is computed by all.

    Raises Conflict when one of the others is lost or fails, or has another base model.
    """
    own = Share(model, weights, goal, seed, max_tokens, LEADER, size())
    if own.size == 1:
        goal.begin(model, max_tokens)
        yield own.compute
        return
    _say(Begin(model.peft_config["default"], goal, seed, max_tokens))
    answers = _gather(Answer(base_digest(model.get_base_model().name_or_path)))
    if any(other.base != answers[LEADER].base for other in answers if other.error is None):
        raise Conflict("The processes that train together have other base models.", code="other_base")
    _require_well(answers)
    _say(Command.LOOK)
    own.look()

    def compute(number: int, batch: Sequence[int]) -> tuple[torch.Tensor, Tokens]:
        _say(Step(number, batch))
        loss, tokens, well = own.step(number, batch)
        if own.error is not None:
            raise own.error
        if not well:
            _say(Command.TELL)
            _require_well(_gather(Answer()))
        return loss, tokens

    try:
        yield compute
    finally:
        if dist.is_initialized():
            _say(Command.END)


def follow(model: str, *, threads: int, max_length: int, quantize: Quantize = Quantize.NONE) -> None:
    """Compute what the leader asks for, until it is over. Raises Conflict when nobody leads any more."""
    base: Base | None = None
    own: Share | None = None
    digest, failed = "", None
    try:
        base = load_base(model, threads=threads, max_length=max_length, quantize=quantize)
        digest = base_digest(model)
    except Exception as error:
        log.error("process %d: %s", dist.get_rank(), error, exc_info=error)
        failed = one_line(error)
    with ExitStack() as open_:
        while (said := _hear()) is not Command.OVER:
            match said:
                case Begin() if base is not None:
                    own = _share(base, said, open_)
                    _gather(Answer(digest))
                case Begin():
                    _gather(Answer(error=failed))
                case Command.LOOK if own is not None:
                    own.look()
                case Step() if own is not None:
                    own.step(said.number, said.batch)
                case Command.TELL if own is not None:
                    _gather(Answer(digest, None if own.error is None else one_line(own.error)))
                case Command.END if base is not None:
                    open_.close()
                    take_out_lora(base.model)
                    own = None
    dist.destroy_process_group()


def _share(base: Base, begin: Begin, open_: ExitStack) -> Share:
    model = get_peft_model(base.model, begin.adapter)
    weights = FlatWeights([weight for weight in model.parameters() if weight.requires_grad], base.model.dtype)
    open_.enter_context(packing(base.model))
    open_.enter_context(lean(model))
    return Share(model, weights, begin.goal, begin.seed, begin.max_tokens, dist.get_rank(), dist.get_world_size())


def _require_well(answers: Sequence[Answer]) -> None:
    for rank, answer in enumerate(answers):
        if answer.error is not None:
            raise Conflict(f"Training process {rank} of {len(answers)} failed: {answer.error}", code="process_failed")


def _say(what: Begin | Step | Command) -> None:
    with _others():
        dist.broadcast_object_list([what], LEADER, device=CPU)


def _hear() -> Any:
    said: list[Any] = [None]
    with _others():
        dist.broadcast_object_list(said, LEADER, device=CPU)
    return said[0]


def _gather(own: Answer) -> list[Answer]:
    """Everybody's answer by rank, at the leader's; nothing elsewhere."""
    found: list[Any] | None = [None] * size() if dist.get_rank() == LEADER else None
    with _others():
        dist.gather_object(own, found, LEADER)
    return found or []


@contextmanager
def _others() -> Iterator[None]:
    """What goes wrong between processes is the loss of one; leaving the rest at once has them notice too."""
    leads = os.environ.get("RANK", "0") == str(LEADER)
    try:
        yield
    except (RuntimeError, ValueError) as error:
        log.error("lost: %s", error)
        if dist.is_initialized():
            dist.destroy_process_group()
        raise Conflict(
            "One of the processes that train together is gone; its log or its node says why. Retry the job."
            if leads else "The process that led this training is gone, or found another one gone.",
            code="process_lost",
        ) from error  # fmt: skip
