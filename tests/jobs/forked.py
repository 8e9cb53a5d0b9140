"""`python -m retrain_jobs` in processes of their own, forked from one that has imported what a job needs: importing it
a dozen times over would be most of a test's time."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch

import retrain_jobs.base
import retrain_jobs.candidate  # imported once for all
from retrain_jobs.main import main

FAILS = "FAILS"
"""The variable with the rank of the process that has no memory to train with."""


class Forked:
    """One process, with as much of `subprocess.Popen`'s ways as the tests need; its standard error is text."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        handle, name = tempfile.mkstemp(suffix=".stderr")
        os.close(handle)
        self._told = Path(name)
        self._process = context.Process(target=_run, args=(list(arguments), dict(env), name))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for the end. Raises TimeoutError when it does not come."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self._process.pid} goes on after {timeout} s")
        return None, self._told.read_text("utf-8")

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._process.join()
        self._told.unlink()


def _run(arguments: list[str], env: dict[str, str], told: str) -> None:
    os.dup2(os.open(told, os.O_WRONLY), 2)
    os.environ.update(env)
    # Two sums in another order: float32 tells them apart by little.
    retrain_jobs.base.fastest_dtype = lambda: torch.float32
    if env[FAILS] == env["RANK"]:
        from retrain_jobs.recipes.objective import Likelihood

        def loss(self: object, model: object, items: object) -> None:
            raise MemoryError

        Likelihood.loss = loss  # type: ignore[method-assign,assignment]
    sys.exit(main(arguments))
