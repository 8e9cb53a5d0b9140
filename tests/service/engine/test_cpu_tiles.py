"""The plugin that asks for AMX."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

pytest.importorskip("vllm")

import torch
from vllm.platforms import current_platform

from service.engine import cpu_tiles

MAY_USE_TILES = """
import ctypes
may = ctypes.c_uint64()
ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(may))  # arch_prctl, ARCH_GET_XCOMP_PERM
print(may.value >> 18 & 1)
"""
REGISTER = "from service.engine.cpu_tiles import register\nregister()\n"


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this processor has no AMX")
@pytest.mark.parametrize(("asked", "may"), [("", "0"), (REGISTER, "1")])
def test_an_engine_may_use_tiles_once_it_has_asked(asked: str, may: str) -> None:
    done = subprocess.run([sys.executable, "-c", asked + MAY_USE_TILES], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == may


@pytest.mark.parametrize("allowed", [True, False])
def test_a_refusal_is_told(allowed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: allowed)
    with caplog.at_level(logging.WARNING):
        cpu_tiles.register()
    assert ("does not let this engine use" in caplog.text) is not allowed


@pytest.mark.parametrize(("is_cpu", "has_amx"), [(False, True), (True, False)])
def test_nobody_else_asks(is_cpu: bool, has_amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: is_cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: pytest.fail("asked"))
    cpu_tiles.register()
