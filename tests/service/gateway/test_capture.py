"""The outbox over a hand-written fake sink: durable, idempotent, bounded, and never stopped by one bad record."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from service.core.errors import ConfigError
from service.core.records import Capture, Feedback, ShadowReply
from service.gateway.capture import Outbox
from service.gateway.dead_letters import bury, read_letters
from service.gateway.shipper import TAGS, Shipper
from service.gateway.spool import Spool, abandoned, closed_segments, read_lines
from service.settings import CaptureSettings
from service.telemetry import GatewayMetrics
from tests.service.gateway.in_process import InThisProcess


class Clock:
    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def capture(number: int, reply: str = "y") -> Capture:
    prompt = [{"role": "user", "content": f"question {number}"}]
    return Capture(f"req_{number}", float(number), "support", "base", "http://e", prompt, reply, 200, 0.1)


class Box:
    def __init__(self, folder, sink, **settings):
        self.registry = CollectorRegistry()
        settings = {"ship_interval_s": 0.02, "fsync_interval_s": 0.01, **settings}
        self.shipping = InThisProcess(sink, settings["ship_interval_s"])
        self.outbox = Outbox(folder, CaptureSettings(**settings), self.shipping, GatewayMetrics(self.registry), Clock())

    async def __aenter__(self):
        await self.outbox.start()
        return self

    async def __aexit__(self, *args):
        await self.outbox.stop()

    def metric(self, name, **labels):
        return self.registry.get_sample_value(name, labels) or 0.0


def spool_of(root, records):
    """A spool with one closed segment of so many captures."""
    spool = Spool(root, 2**20)
    spool.start()
    (tag,) = (tag for tag, kind in TAGS if kind is Capture)
    spool.append(b"".join(tag + msgspec.json.encode(capture(n)) + b"\n" for n in range(records)))
    spool.seal()
    return spool


def segments(folder):
    return sorted([*folder.glob("*/*.jsonl"), *folder.glob("*/*.open")])


async def test_all_kinds_arrive_and_leave_nothing_behind(tmp_path, sink, wait_until):
    async with Box(tmp_path, sink) as box:
        for n in range(1200):
            assert box.outbox.put(capture(n))
        box.outbox.put(ShadowReply("req_1", "c", 1.0, "z", 200, 0.1))
        box.outbox.put(Feedback("f", "req_1", 1.0, 1.0, None, {"a": "b"}))
        await wait_until(lambda: len(sink.captures) == 1200 and sink.shadows and sink.feedback)
        await wait_until(lambda: not segments(tmp_path))
        assert box.metric("trimtab_captures_shipped_total") == 1202
        await wait_until(lambda: box.metric("trimtab_capture_spool_bytes") == 0)
    assert sink.captures["req_7"] == capture(7)
    assert sink.feedback["f"].tags == {"a": "b"}
    assert list(tmp_path.iterdir()) == []


async def test_what_was_taken_last_is_written_at_the_end(tmp_path, sink):
    async with Box(tmp_path, sink, fsync_interval_s=60.0) as box:
        box.outbox.put(capture(1))
    assert set(sink.captures) == {"req_1"}


async def test_a_record_that_cannot_be_written_down_spoils_no_other(tmp_path, sink):
    async with Box(tmp_path, sink, fsync_interval_s=60.0) as box:
        box.outbox.put(capture(1))
        with pytest.raises(TypeError):
            box.outbox.put(replace(capture(2), prompt=[{"role": "user", "content": object()}]))
        box.outbox.put(capture(3))
    assert set(sink.captures) == {"req_1", "req_3"}
    assert not (tmp_path / "dead-letters.jsonl").exists()


async def test_with_the_store_away_the_spool_grows_to_its_cap_then_drops_and_counts(tmp_path, sink, wait_until):
    sink.away = True
    async with Box(tmp_path, sink, spool_bytes=20_000, segment_bytes=4096) as box:
        taken = 0
        for n in range(200):
            taken += box.outbox.put(capture(n))
            if n % 20 == 0:
                await box.outbox.write()
        assert 0 < taken < 200
        assert box.metric("trimtab_captures_dropped_total", reason="spool_full") == 200 - taken
        await box.outbox.write()
        assert sum(s.stat().st_size for s in segments(tmp_path)) < 21_000
        sink.away = False
        await wait_until(lambda: len(sink.captures) == taken, 15.0)
        await wait_until(lambda: box.outbox.put(capture(1000)))


async def test_a_bad_record_goes_to_the_dead_letters_alone(tmp_path, sink, wait_until):
    sink.poison = {"req_37", "req_512"}
    async with Box(tmp_path, sink) as box:
        for n in range(600):
            box.outbox.put(capture(n))
        await wait_until(lambda: len(sink.captures) == 598)
        await wait_until(lambda: not segments(tmp_path))
        assert box.metric("trimtab_captures_dropped_total", reason="refused") == 2
    letters = (tmp_path / "dead-letters.jsonl").read_text()
    assert "question 37" in letters
    assert "question 512" in letters
    assert letters.count("The fake store refuses this row") == 2


async def test_dead_letters_of_the_erased_go_and_others_stay(tmp_path, sink):
    for n, source in enumerate(["user:ann", "user:bob"]):
        record = replace(capture(n), source=source)
        bury(tmp_path, b"C" + msgspec.json.encode(record), "refused\nfor its content")
    bury(tmp_path, b"C{torn", "no record")
    shipper = Shipper(tmp_path, sink, lambda _: None)
    await shipper.drop_erased_letters()
    assert len(read_letters(tmp_path)) == 3
    sink.erased_sources = {"user:ann"}
    await shipper.drop_erased_letters()
    kept = read_letters(tmp_path)
    assert [one.seen and one.seen.source for one in kept] == ["user:bob", None]
    assert kept[0].reason == b"# refused for its content"


async def test_a_record_that_always_fails_in_an_unforeseen_way_does_not_block_the_rest(tmp_path, sink, monkeypatch):
    real = sink.add_captures

    async def failing(captures):
        if any(c.request_id == "req_3" for c in captures):
            raise RuntimeError("unforeseen")
        await real(captures)

    monkeypatch.setattr(sink, "add_captures", failing)
    spool, shipped = spool_of(tmp_path, 10), []
    shipper = Shipper(tmp_path, sink, shipped.append)
    tries = 0
    while not await shipper.ship(spool.folder):
        tries += 1
        assert tries < 10
    assert len(sink.captures) == 9
    assert sum(s.refused for s in shipped) == 1
    spool.stop()


async def test_what_a_process_left_behind_is_shipped_by_the_next(tmp_path, sink, wait_until):
    sink.away = True
    async with Box(tmp_path, sink) as box:
        for n in range(50):
            box.outbox.put(capture(n))
        await box.outbox.write()
    assert segments(tmp_path)
    sink.away = False
    async with Box(tmp_path, sink):
        await wait_until(lambda: len(sink.captures) == 50)
    assert list(tmp_path.iterdir()) == []


async def test_a_living_process_keeps_its_spool(tmp_path, sink):
    sink.away = True
    async with Box(tmp_path, sink) as first:
        first.outbox.put(capture(1))
        await first.outbox.write()
        mine = [path.with_suffix("") for path in segments(tmp_path)]
        async with Box(tmp_path, sink):
            assert [path.with_suffix("") for path in segments(tmp_path)] == mine


async def test_a_store_that_fails_between_batches_gets_them_again(tmp_path, sink, monkeypatch):
    real = sink.add_captures
    calls = []

    async def flaky(captures):
        calls.append(len(captures))
        if len(calls) == 2:
            raise ConnectionError("gone")
        await real(captures)

    monkeypatch.setattr(sink, "add_captures", flaky)
    spool, shipped = spool_of(tmp_path, 700), []
    shipper = Shipper(tmp_path, sink, shipped.append)
    assert not await shipper.ship(spool.folder)
    assert await shipper.ship(spool.folder)
    assert sum(s.rows for s in shipped) == 1200
    spool.stop()
    assert calls == [500, 200, 500, 200]
    assert len(sink.captures) == 700


async def test_a_spool_that_cannot_be_written_is_one_clear_error(tmp_path, sink):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="state_dir"):
        await Box(tmp_path / "file", sink).outbox.start()


def test_a_torn_last_line_is_left_out(tmp_path):
    spool = Spool(tmp_path, 4096)
    spool.start()
    spool.append(b"one\ntwo\n")
    spool.seal()
    (segment,) = closed_segments(spool.folder)
    with segment.open("ab") as file:
        file.write(b"thr")
    assert list(read_lines(segment, 1)) == [[b"one"], [b"two"]]
    assert next(read_lines(segment, 9)) == [b"one", b"two"]
    spool.stop()


def test_a_segment_is_closed_once_no_other_waits_and_a_store_away_meets_few(tmp_path):
    spool = Spool(tmp_path, 4096)
    spool.start()
    for _ in range(3):
        spool.append(b"a line\n")
        spool.tend()
    (first,) = closed_segments(spool.folder)
    assert spool.size_bytes == 21
    first.unlink()
    spool.tend()
    (second,) = closed_segments(spool.folder)
    assert next(read_lines(second, 9)) == [b"a line", b"a line"]
    assert spool.size_bytes == 14
    spool.stop()


def test_a_folder_is_taken_over_only_from_the_dead(tmp_path):
    spool = Spool(tmp_path, 4096)
    spool.start()
    spool.append(b"a line\n")
    with abandoned(spool.folder) as gone:
        assert not gone
    assert not closed_segments(spool.folder)
    os.close(spool._lock_fd)  # as its process's end does
    with abandoned(spool.folder) as gone:
        assert gone
        assert [next(read_lines(path, 9)) for path in closed_segments(spool.folder)] == [[b"a line"]]
        with abandoned(spool.folder) as again:
            assert not again


async def test_kill_nine_loses_at_most_what_was_not_written(tmp_path, sink, wait_until):
    """A process that appends and says so line by line is killed; every record that it called written is shipped."""
    code = f"""
import itertools, sys
from pathlib import Path
import msgspec
from service.core.records import Capture
from service.gateway.dead_letters import bury, read_letters
from service.gateway.shipper import TAGS, Shipper
from service.gateway.spool import Spool, abandoned, closed_segments
spool = Spool(Path({str(tmp_path)!r}), 4096)
spool.start()
for n in itertools.count():
    row = Capture(f"req_{{n}}", float(n), "support", "base", "http://e", [], "y", 200, 0.1)
    spool.append(b"C" + msgspec.json.encode(row) + b"\\n")
    print(n, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert writer.stdout is not None
    for _ in range(100):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    rest, _ = writer.communicate()
    written = 100 + rest.count("\n")
    async with Box(tmp_path, sink):
        await wait_until(lambda: len(sink.captures) >= written)
    assert set(sink.captures) >= {f"req_{n}" for n in range(written)}


async def test_a_record_on_its_way_to_a_busy_disk_is_not_lost_at_the_end(tmp_path, sink, monkeypatch):
    """The write waits behind another call when the outbox stops."""

    def slowly(spool: Spool) -> None:
        time.sleep(0.2)
        tend(spool)

    tend = Spool.tend
    monkeypatch.setattr(Spool, "tend", slowly)
    async with Box(tmp_path, sink) as box:
        await asyncio.sleep(0.1)
        box.outbox.put(capture(1))
        await asyncio.sleep(0.05)
    assert set(sink.captures) == {"req_1"}
