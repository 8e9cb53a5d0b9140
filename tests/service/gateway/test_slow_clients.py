"""Clients that send or read too slowly: each is cut off in time, and the good ones do not feel them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from statistics import quantiles

import psutil
import pytest

from tests.service.gateway.live import CHAT, ROOT, STREAM, Process, eventually, post, raw_request, session, world

pytestmark = pytest.mark.soak

SHORT = {"head_timeout_s": 1.0, "body_timeout_s": 1.0, "stall_timeout_s": 1.0}
REQUEST = raw_request(CHAT)
HEAD = REQUEST[: REQUEST.index(b"\r\n\r\n")]


async def send_slowly(gateway: Process, first: bytes, then: bytes, every_s: float = 0.1) -> tuple[bytes, float]:
    """What the gateway says before it hangs up, and after how many seconds it does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    started = time.perf_counter()

    async def trickle() -> None:
        writer.write(first)
        for byte in then * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(every_s)

    sending = asyncio.create_task(trickle())
    try:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 20.0), time.perf_counter() - started
        return b"", time.perf_counter() - started
    finally:
        sending.cancel()
        writer.close()


SLOW = {
    "silent": (b"", b"", None),
    "newlines": (b"", b"\r\n", b"408"),
    "path": (HEAD[:20], b"x", b"408"),
    "header": (HEAD + b"\r\nx-slow: ", b"x", b"408"),
    "body": (HEAD + b"\r\n\r\n", b" ", b"408"),
    "control": (b"POST /api/v1/aliases HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n", b"x", b"408"),
    "after a reply": (b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n", b"200"),
    "after a refusal": (b"POST /v1/no HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n", b"x", b"404"),
}
CHUNKED = HEAD[: HEAD.index(b"content-length")] + b"transfer-encoding: chunked\r\n\r\n"
MANY = b"x: y\r\n" * 2**18
NO_REQUEST = {
    "endless path": (b"GET /" + b"x" * 2**20, b"431"),
    "endless header": (b"GET / HTTP/1.1\r\nx: " + b"x" * 2**20, b"431"),
    "endless headers": (b"GET / HTTP/1.1\r\n" + MANY, b"431"),
    "endless trailers": (CHUNKED + b"0\r\n" + MANY, b"431"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
    "a version of the future": (b"GET / HTTP/9.9\r\n\r\n", b"400"),
    "two lengths": (CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n"), b"400"),
}


def code_of(said: bytes) -> str:
    return str(json.loads(said.split(b"\r\n\r\n", 1)[1])["error"]["code"])


async def test_who_sends_too_slowly_is_cut_off_and_who_is_steady_is_not(tmp_path):
    async with world(tmp_path, gateway=SHORT) as (gateway, _):
        slow = asyncio.gather(*(send_slowly(gateway, first, then) for first, then, _ in SLOW.values()))
        assert await send_steadily(gateway) == b"200"
        for (name, (_, _, status)), (said, after_s) in zip(SLOW.items(), await slow, strict=True):
            assert (said.split(b" ", 2)[1] if said else None) == status, name
            assert 1.0 < after_s < 10.0, name
            assert status != b"408" or code_of(said) == "request_timeout"


async def test_a_crowd_is_cut_off_bit_by_bit(tmp_path):
    """All at once, they would delay the others and come again at once."""
    count = 60
    async with world(tmp_path, gateway=SHORT) as (gateway, _):
        heard = await asyncio.gather(*(send_slowly(gateway, HEAD, b"") for _ in range(count)))
    after = sorted(after_s for _, after_s in heard)
    assert all(said.startswith(b"HTTP/1.1 408") for said, _ in heard)
    assert after[0] > 1.0
    assert 2.0 < after[-1] - after[0] < 10.0


def upload_on(port: int) -> bytes:
    """What a client hears that reads only after it has sent on for a while."""
    with socket.create_connection(("127.0.0.1", port), 20.0) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        while not select.select([sock], [], [], 0.1)[0]:
            sock.sendall(b" ")
        for _ in range(5):
            time.sleep(0.05)
            sock.sendall(b" ")
        return sock.recv(2**16)


async def test_who_still_sends_hears_the_refusal(tmp_path):
    async with world(tmp_path, gateway=SHORT) as (gateway, _):
        assert (await asyncio.to_thread(upload_on, gateway.port)).startswith(b"HTTP/1.1 408")


async def test_what_is_no_request_is_refused_at_once(tmp_path):
    async with world(tmp_path) as (gateway, (engine,)):
        for name, (bytes_sent, status) in NO_REQUEST.items():
            said, after_s = await send_slowly(gateway, bytes_sent, b"")
            assert after_s < 5.0, name
            assert said.split(b" ", 2)[1] == status, name
            assert code_of(said), name
        assert "/v1/chat/completions" not in (await engine.get("/stats"))["paths"]


async def test_an_offer_to_upgrade_is_not_taken_and_the_body_not_lost(tmp_path):
    """As Java's HTTP client does with each first request."""
    offer = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    asked = REQUEST.replace(b"\r\n\r\n", offer, 1)
    async with world(tmp_path) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        for _ in range(2):
            writer.write(asked)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert json.loads(await reader.readuntil(b"}}"))["object"] == "reply"
        writer.close()
        assert "upgrade" not in gateway.log.read_text()


async def send_steadily(gateway: Process) -> bytes:
    """The status of a request whose body takes longer than `body_timeout_s`, but comes at a good pace."""
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 48_000}]}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 6144):
        writer.write(body[at : at + 6144])
        await asyncio.sleep(0.4)
    try:
        return (await asyncio.wait_for(reader.readline(), 10.0)).split(b" ")[1]
    finally:
        writer.close()


async def test_who_stops_reading_is_cut_off_and_costs_little(tmp_path):
    count = 20
    async with world(tmp_path, knobs={"tokens": 1_000_000, "width": 2_000}, gateway=SHORT) as (gateway, (engine,)):
        process = psutil.Process(gateway.process.pid)
        before = process.memory_info().rss
        deaf = []
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", gateway.port))
            sock.sendall(raw_request(STREAM))
            deaf.append(sock)

        async def all_told() -> bool:
            return await gateway.metric("trimtab_requests_total", code="499") == count

        after_s = await eventually(all_told, 30.0)
        used = (process.memory_info().rss - before) / count / 2**20
        print(f"{count} clients that do not read: cut off after {after_s:.1f} s, {used:.2f} MiB each")
        assert used < 2.0
        assert (await engine.get("/stats"))["running"] == 0
        for sock in deaf:
            sock.close()


async def latencies(gateway: Process, seconds: float) -> list[float]:
    """Of good requests on four connections, one after the other on each."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def ask(client) -> None:
        while time.perf_counter() < until:
            reply = await post(client, gateway.url, CHAT)
            assert reply.status == 200, reply
            taken.append(reply.seconds)
            await asyncio.sleep(0.01)

    async with session() as client:
        await asyncio.gather(*(ask(client) for _ in range(4)))
    return taken


@contextlib.contextmanager
def closed_doors(count: int) -> Iterator[list[int]]:
    """Ports on which the kernel alone takes `count` connections and what they send: nobody works for them."""
    with contextlib.ExitStack() as stack:
        made = (socket.create_server(("127.0.0.1", 0), backlog=1000) for _ in range(0, count, 900))
        doors = [stack.enter_context(door) for door in made]
        yield [door.getsockname()[1] for door in doors]


@contextlib.asynccontextmanager
async def attack(count: int, *ports: int) -> AsyncIterator[psutil.Process]:
    argv = ["-m", "tests.service.gateway.trickle", str(count), *map(str, ports)]
    slow = await asyncio.create_subprocess_exec(sys.executable, *argv, cwd=ROOT)
    try:
        yield psutil.Process(slow.pid)
    finally:
        slow.kill()
        await slow.wait()


async def most_open(process: psutil.Process, count: int) -> bool:
    return process.num_fds() >= 0.75 * count  # the others are between being cut off and coming again


async def p99(gateway: Process, seconds: float) -> float:
    return quantiles(await latencies(gateway, seconds), n=100)[98]


async def test_good_requests_do_not_feel_thousands_of_slow_ones(tmp_path, scale, soaking):
    """The attackers' own work delays everybody on these two cores, so it is there in the comparison as well."""
    count, seconds = scale(300, 5_000), scale(1.0, 30.0)
    async with world(tmp_path, knobs={"first_ms": 5}) as (gateway, _):
        process = psutil.Process(gateway.process.pid)
        alone = await p99(gateway, seconds)
        with closed_doors(count) as ports:
            async with attack(count, *ports) as attacker:
                await eventually(lambda: most_open(attacker, count), 30.0, 0.1)
                elsewhere = await p99(gateway, seconds)
        before = process.memory_info().rss
        async with attack(count, gateway.port):
            await eventually(lambda: most_open(process, count), 30.0, 0.1)
            beside = await p99(gateway, seconds)
            assert await most_open(process, count)
            used = (process.memory_info().rss - before) / count / 1024
    print(
        f"p99 of good requests: {alone * 1e3:.1f} ms alone, {elsewhere * 1e3:.1f} ms with {count} trickling elsewhere, "
        f"{beside * 1e3:.1f} ms with {count} here ({beside / elsewhere:.2f}x; {beside / alone:.2f}x of alone); "
        f"{used:.0f} KiB a trickling connection"
    )
    if soaking:
        assert beside <= 2 * elsewhere
