"""Helm's own words: render the chart with values, or hear why it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm"
VALUES = {
    "default": None,
    **{path.stem.removesuffix("-values"): path for path in sorted((CHART / "ci").glob("*.yaml"))},
}

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm would not render; its message."""


def render(helm: Path, values: Path | Mapping[str, Any] | None = None) -> list[Manifest]:
    """Every manifest of release `demo` in namespace `ml`, in Helm's order."""
    command = [str(helm), "template", "demo", str(CHART), "--namespace", "ml"]
    given = None
    if isinstance(values, Path):
        command += ["--values", str(values)]
    elif values is not None:
        command += ["--values", "-"]
        given = json.dumps(values)
    result = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    if result.returncode != 0:
        raise Refused(result.stderr)
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def lint(helm: Path, values: Path | None) -> subprocess.CompletedProcess[str]:
    extra = ["--values", str(values)] if values else []
    command = [str(helm), "lint", "--strict", str(CHART), *extra]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def one(manifests: Sequence[Manifest], kind: str, end: str) -> Manifest:
    """The only manifest of `kind` whose name ends in `end`."""
    (found,) = (m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(end))
    return found


def pod_specs(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """Name → pod template of everything that runs pods, retraining jobs included."""
    pods = {
        f"{m['kind']}/{m['metadata']['name']}": m["spec"]["template"]
        for m in manifests
        if m["kind"] in {"Deployment", "StatefulSet", "Job"}
    }
    config = next(m for m in manifests if m["kind"] == "ConfigMap" and "job.yaml" in m["data"])
    pods["retraining job"] = yaml.safe_load(config["data"]["job.yaml"])["spec"]["template"]
    return pods
