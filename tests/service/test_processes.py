"""Children: restarted when they die, stopped with their whole group, never outliving their parent."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from service.core.errors import ConfigError, Conflict
from service.processes import Child, ChildSpec, check_port_free, keep_running, last_line


def spec(tmp_path: Path, code: str) -> ChildSpec:
    return ChildSpec(
        "child", [sys.executable, "-u", "-c", textwrap.dedent(code)], tmp_path / "child.log", stop_timeout_s=2.0
    )


async def until(condition: object, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    stop = asyncio.Event()
    code = f"open({str(runs)!r}, 'a').write('x')"
    keeper = asyncio.create_task(keep_running(spec(tmp_path, code), stop))
    await until(lambda: runs.exists() and len(runs.read_text()) >= 2)
    stop.set()
    await asyncio.wait_for(keeper, 5.0)


async def test_a_configuration_error_is_final_and_says_why(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('trimtab: no model\\n'); sys.exit(2)"
    with pytest.raises(ConfigError, match="no model"):
        await asyncio.wait_for(keep_running(spec(tmp_path, code), asyncio.Event()), 10.0)


async def test_stopping_ends_the_whole_group_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{grandchild.pid}}")
        time.sleep(600)
    """
    child = await Child.start(spec(tmp_path, code))
    await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    await child.stop()
    await until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = f"""
        import asyncio, sys
        from pathlib import Path
        from service.processes import Child, ChildSpec
        async def main():
            argv = [sys.executable, "-c", "import time; time.sleep(600)"]
            child = await Child.start(ChildSpec("c", argv, Path({str(tmp_path / "log")!r})))
            print(child.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5.0)
    assert not alive(pid)


def test_a_port_in_use_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Conflict, match=r"server\.port"):
            check_port_free("127.0.0.1", taken.getsockname()[1], "server.port")


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "no log" in last_line(log)
    log.write_text("first\nsecond\n\n")
    assert last_line(log) == "second"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_threads_that_were_there_before_give_way_too() -> None:
    code = """
        import os, threading, time
        from service.processes import lower_priority
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        lower_priority(5)
        lower_priority(3)
        lower_priority(19)
        threads = [int(one) for one in os.listdir("/proc/self/task")]
        print(sorted((os.getpriority(os.PRIO_PROCESS, one), os.sched_getscheduler(one)) for one in threads))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str([(19, os.SCHED_IDLE)] * 2)


async def test_children_share_their_parents_session_and_the_lowest_gives_way_at_once(tmp_path: Path) -> None:
    """In sessions of their own the engine and a job would be weighed as equals, whatever their niceness."""
    told = tmp_path / "told"
    code = f"""
        import os, time
        found = os.getsid(0), os.getpgid(0), os.nice(0), os.sched_getscheduler(0)
        open({str(told)!r}, "w").write(" ".join(map(str, found)))
        time.sleep(600)
    """
    child = await Child.start(dataclasses.replace(spec(tmp_path, code), nice=19))
    try:
        await until(lambda: told.exists() and len(told.read_text().split()) == 4)
        assert told.read_text().split() == [str(os.getsid(0)), str(child.pid), "19", str(os.SCHED_IDLE)]
    finally:
        await child.stop()
