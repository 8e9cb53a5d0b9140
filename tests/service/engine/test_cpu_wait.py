"""The plugin that lets the engine core's threads take turns."""

from __future__ import annotations

import logging
import threading
import time

import pytest

pytest.importorskip("vllm")

from vllm.distributed.device_communicators import shm_broadcast
from vllm.platforms import current_platform

from service.engine import cpu_wait


def test_vllm_waits_in_our_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm_broadcast, "sched_yield", None)
    cpu_wait.register()
    assert isinstance(shm_broadcast.sched_yield, cpu_wait.Wait)


def test_other_platforms_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm_broadcast, "sched_yield", None)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    cpu_wait.register()
    assert shm_broadcast.sched_yield is None


def test_a_vllm_that_waits_otherwise_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(shm_broadcast, "sched_yield")
    with caplog.at_level(logging.WARNING):
        cpu_wait.register()
    assert "waits in another way" in caplog.text


def test_another_thread_gets_its_turn_while_one_waits() -> None:
    waiting, turns, pause = threading.Event(), 0, cpu_wait.Wait()

    def wait() -> None:
        while not waiting.is_set():
            pause()

    thread = threading.Thread(target=wait)
    thread.start()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        time.sleep(0)
        turns += 1
    waiting.set()
    thread.join()
    assert turns > 100
