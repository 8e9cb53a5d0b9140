"""Schemathesis makes requests out of our own OpenAPI description, right and wrong ones: none may end in a 5xx."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.service.gateway.live import CANDIDATE, world

pytestmark = pytest.mark.soak


async def test_no_request_is_a_fault_of_the_server(tmp_path, scale):
    examples, phases = scale(4, 100), scale("fuzzing", "examples,coverage,fuzzing")
    async with world(tmp_path, shadow=1.0) as (gateway, (engine,)):
        await engine.load(CANDIDATE)
        command = [
            "run", f"{gateway.url}/openapi.json", "--checks=not_a_server_error", f"--max-examples={examples}",
            f"--phases={phases}", "--no-shrink", "--seed=1", "--generation-database=none",
            "--suppress-health-check=all", "--continue-on-failure", "--warnings=off", "--no-color",
        ]  # fmt: skip
        main = "import sys; from schemathesis.cli import schemathesis; schemathesis(sys.argv[1:])"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", main, *command, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
        log = gateway.log.read_text()
        assert (await gateway.get("/ready")) == {"status": "ready"}
    print(output[-1500:])
    assert process.returncode == 0, output[-8000:]
    assert "Traceback" not in log, log[-4000:]
