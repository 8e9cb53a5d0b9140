"""Debian's programs that some tests drive for real: without one, a failure on CI, and elsewhere a skip."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, package: str | None = None) -> str:
    """The path of `program`, or a skip (on CI: a failure) that names the Debian package."""
    path = shutil.which(program)
    if path is not None:
        return path
    message = f"{program} is not installed: apt-get install {package or program}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
