"""Faults seeded into a copy of our own code: the suite must notice all of them but one in twenty at most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.faults.seeded import FAULTS, Fault

ROOT = Path(__file__).parents[2]
COPIED = ("service", "retrain_jobs", "demo", "benchmarks", "tests")
QUICK = ("a failed guard is overlooked", "the approval is not awaited")
"""What `make test` seeds, to see that the seeding works."""


OURS = ("TRIMTAB_SOAK", "PYTEST_ADDOPTS")
"""What is said to this run of pytest and not to those that look for the faults."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_stands_where_it_says(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text("utf-8").count(fault.right) == 1
    assert fault.tests
    assert all((ROOT / test).is_file() for test in fault.tests)


@pytest.mark.soak
def test_the_suite_notices_seeded_faults(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in COPIED:
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", code)
    seeded = FAULTS if SOAK else [fault for fault in FAULTS if fault.name in QUICK]
    missed = [fault.name for fault in seeded if not noticed(fault, code, tmp_path / "temp")]
    print(f"{len(seeded) - len(missed)} of {len(seeded)} seeded faults noticed; missed: {', '.join(missed) or 'none'}")
    assert len(seeded) >= (20 if SOAK else 1)
    assert len(missed) <= len(seeded) // 20


def noticed(fault: Fault, code: Path, temp: Path) -> bool:
    """Whether one of the fault's tests fails with it."""
    file = code / fault.file
    whole = file.read_text("utf-8")
    file.write_text(whole.replace(fault.right, fault.wrong), "utf-8")
    try:
        argv = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={temp}"]
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        ran = subprocess.run(
            [*argv, *fault.tests], cwd=code, env={**environment, "PYTHONPATH": str(code)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    finally:
        file.write_text(whole, "utf-8")
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"{fault.name!r} cannot be tried:\n{ran.stdout[-3000:]}")
    return ran.returncode == 1
