"""Dockerfile and compose.yaml: linted, and true to the code they package. No Docker is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from service.cli import app
from service.settings import load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TARGETS = ("gateway", "jobs", "engine-cpu")


def _stages() -> dict[str, str]:
    """Stage → its own lines with those of the stages it is built from."""
    stages: dict[str, str] = {}
    for text in re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]:
        parent, name = re.match(r"FROM (\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
        stages[name] = stages.get(parent, "") + text
    return stages


def test_hadolint_has_no_complaint() -> None:
    result = _hadolint(ROOT / "Dockerfile")
    assert (result.returncode, result.stdout) == (0, "")


def test_hadolint_would_complain(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM python\nRUN pip install requests\n", "utf-8")
    assert "DL3006" in _hadolint(file).stdout


def _hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    hadolint = Path(sys.executable).parent / "hadolint"
    return subprocess.run([str(hadolint), "--no-color", str(file)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_trimtab_as_nobody(target: str) -> None:
    stage = _stages()[target]
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == "10001:10001"
    assert 'ENTRYPOINT ["trimtab"]' in stage
    assert "HEALTHCHECK" in stage
    assert "org.opencontainers.image.title" in stage
    (command,) = re.findall(r'^CMD \["(\w+)"\]$', stage, re.MULTILINE)
    assert command in _commands()


def test_gateway_is_the_last_stage_and_holds_no_model_code() -> None:
    assert list(_stages())[-1] == "gateway"
    assert "torch" not in _stages()["gateway"].split("FROM runtime")[-1] + _stages()["build-gateway"]


def test_torch_is_the_version_that_the_extras_name() -> None:
    (version,) = re.findall(r"torch==([\d.]+)", DOCKERFILE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert f"torch=={version}" in extras["cpu"]


def test_everything_copied_is_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_compose_builds_stages_that_exist() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["target"] in TARGETS
            assert service["image"] == f"trimtab-{service['build']['target']}"
        else:
            assert re.search(r":v?\d", service["image"]), f"{name}: pin {service['image']}"


def test_compose_declares_what_services_use() -> None:
    for name, service in SERVICES.items():
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith("./") or source in COMPOSE["volumes"], f"{name}: {source}"
        assert set(service.get("depends_on", {})) <= SERVICES.keys(), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is published without keys on {port}"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_compose_processes_find_their_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    file = tmp_path / "trimtab.yaml"
    file.write_text(COMPOSE["configs"]["trimtab"]["content"], "utf-8")
    settings = load_settings(file)
    assert settings.model == "Qwen/Qwen3-0.6B"
    assert settings.store_url.startswith("postgresql+psycopg://")
    assert settings.engines == (() if name == "engine" else ("http://engine:8001",))
    assert SERVICES[name]["command"][0] in _commands()


def test_compose_prometheus_scrapes_what_runs(tmp_path: Path) -> None:
    content = COMPOSE["configs"]["prometheus"]["content"].replace("/etc/prometheus/", f"{ROOT / 'dashboards'}/")
    file = tmp_path / "prometheus.yml"
    file.write_text(content, "utf-8")
    result = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    targets = [
        t for job in yaml.safe_load(content)["scrape_configs"] for s in job["static_configs"] for t in s["targets"]
    ]
    assert targets == ["gateway:8080", "controller:9101", "engine:8001"]
    assert {target.split(":")[0] for target in targets} <= SERVICES.keys()


def _commands() -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
