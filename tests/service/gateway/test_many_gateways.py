"""Several gateways over one store: conversations that meet all of them see each flip once, and soon."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from service.core.records import Adapter
from tests.service.gateway.live import (
    CANDIDATE,
    CHAMPION,
    CHAT,
    Process,
    engine,
    gateway,
    opened,
    post,
    prepare,
    session,
)

pytestmark = pytest.mark.soak

GATEWAYS, CONVERSATIONS = 3, 6
ADAPTERS = (CHAMPION, CANDIDATE)
SETTLE_S = 0.5
BETWEEN_S = 1.5


@dataclass(frozen=True)
class Turn:
    """One request of a conversation: when it was asked, and who answered."""

    at: float
    adapter: str


@contextlib.asynccontextmanager
async def gateways(folder: Path, **section: float) -> AsyncIterator[list[Process]]:
    """Processes with spools of their own over one store, whose only engine holds both adapters."""
    state = folder / "state"
    async with contextlib.AsyncExitStack() as stack:
        stub = await stack.enter_async_context(engine(folder))
        await prepare(state, [stub])
        async with opened(state) as store:
            for name in ADAPTERS:
                await stub.load(name)
                await store.add_adapter(Adapter(name, "support", name[-12:].ljust(64, "0"), "b" * 64, 8, 1, 0.0))
            await store.promote("support", CHAMPION, actor="test", reason="first", now=0.0)
        starting = (stack.enter_async_context(gateway(state, [stub], gateway=section)) for _ in range(GATEWAYS))
        yield list(await asyncio.gather(*starting))


async def played(folder: Path, running: list[Process], flips: int) -> tuple[list[list[Turn]], list[float]]:
    """The turns of all conversations, each at a gateway chosen by chance, and when the alias was flipped."""
    flipped: list[float] = []
    over = asyncio.Event()

    async def converse(client, seed: int) -> list[Turn]:
        turns, chance = [], random.Random(seed)
        while not over.is_set():
            at = time.time()
            reply = await post(client, chance.choice(running).url, CHAT)
            assert reply.status == 200, reply
            turns.append(Turn(at, reply.headers["x-trimtab-adapter"]))
            await asyncio.sleep(0.01)
        return turns

    async with session() as client, opened(folder / "state") as store:
        talking = [asyncio.create_task(converse(client, seed)) for seed in range(CONVERSATIONS)]
        for number in range(1, flips + 1):
            await asyncio.sleep(BETWEEN_S)
            flipped.append(time.time())
            await store.promote("support", ADAPTERS[number % 2], actor="test", reason="to be seen", now=flipped[-1])
        await asyncio.sleep(BETWEEN_S)
        over.set()
        return await asyncio.gather(*talking), flipped


def returns(turns: list[Turn], flipped: list[float]) -> int:
    """How often the old one came after the new one, between a flip and the next."""
    count = 0
    for number, (since, until) in enumerate(pairwise([*flipped, float("inf")]), start=1):
        new = [turn.adapter == ADAPTERS[number % 2] for turn in turns if since <= turn.at < until]
        count += sum(before and not after for before, after in pairwise(new))
    return count


def latest(turns: list[Turn], flipped: list[float]) -> float:
    """Seconds after its flip until the last request that the old one answered was asked."""
    late = [0.0]
    for number, (since, until) in enumerate(pairwise([*flipped, float("inf")]), start=1):
        late += [turn.at - since for turn in turns if since <= turn.at < until and turn.adapter != ADAPTERS[number % 2]]
    return max(late)


async def test_a_conversation_never_meets_the_old_one_after_the_new_one(tmp_path, scale):
    flips = scale(3, 40)
    async with gateways(tmp_path, settle_s=SETTLE_S) as running:
        conversations, flipped = await played(tmp_path, running, flips)
    turns = sum(map(len, conversations))
    after_s = max(latest(one, flipped) for one in conversations)
    print(f"\n{flips} flips, {GATEWAYS} gateways, {turns} turns: the old one answered for {after_s:.2f} s at most")
    assert turns > 50 * flips
    assert sum(returns(one, flipped) for one in conversations) == 0
    assert after_s < 1.0


async def test_that_check_notices_gateways_that_do_not_wait_for_each_other(tmp_path):
    async with gateways(tmp_path, routing_poll_s=0.6) as running:
        conversations, flipped = await played(tmp_path, running, 2)
    assert sum(returns(one, flipped) for one in conversations) > 0
