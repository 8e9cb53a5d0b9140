"""Places, queue, fairness, and what cancelling in the queue leaves behind."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from service.core.errors import Overloaded
from service.gateway.admission import Admission, Lane
from service.settings import GatewaySettings
from service.telemetry import GatewayMetrics


async def test_places_go_first_come_first_served():
    lane = Lane(places=1, queue=3)
    order = []

    async def use(name):
        await lane.enter()
        order.append(name)
        await asyncio.sleep(0)
        lane.leave()

    await asyncio.gather(*(use(n) for n in "abcd"))
    assert order == list("abcd")
    assert (lane.in_flight, lane.queued) == (0, 0)


async def test_beyond_the_queue_requests_are_refused_at_once():
    lane = Lane(places=1, queue=0)
    await lane.enter()
    with pytest.raises(Overloaded) as refused:
        await lane.enter()
    assert refused.value.retry_after_s
    lane.leave()
    await lane.enter()


async def test_a_cancelled_waiter_takes_no_place():
    lane = Lane(places=1, queue=5)
    await lane.enter()
    waiters = [asyncio.create_task(lane.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    assert lane.queued == 2
    lane.leave()
    waiters[1].cancel()  # its turn was given in this very moment: it must pass it on
    await asyncio.gather(*waiters, return_exceptions=True)
    assert waiters[1].cancelled()
    assert not waiters[2].cancelled()
    assert (lane.in_flight, lane.queued) == (1, 0)
    lane.leave()
    assert lane.in_flight == 0


async def test_a_waiter_that_is_cancelled_as_a_place_becomes_free_ends_as_cancelled():
    lane = Lane(places=1, queue=5)
    await lane.enter()
    waiter = asyncio.create_task(lane.enter())
    await asyncio.sleep(0)
    waiter.cancel()
    lane.leave()
    await asyncio.gather(waiter, return_exceptions=True)
    assert waiter.cancelled()
    assert (lane.in_flight, lane.queued) == (0, 0)


async def test_lanes_are_apart():
    admission = Admission(GatewaySettings(max_in_flight=1, max_queue=0), GatewayMetrics(CollectorRegistry()))
    await admission.lane("a").enter()
    await admission.lane("b").enter()
    assert [admission.lane(alias).in_flight for alias in "ab"] == [1, 1]
    assert admission.lane("a") is admission.lane("a")
