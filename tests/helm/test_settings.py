"""The rendered trimtab.yaml is one that Trimtab accepts, for every process, as the pods set its environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import ConfigError
from service.engine.command import engine_command
from service.settings import Settings, load_settings
from tests.helm.chart import VALUES, Manifest, one, pod_specs, render

every_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


def _load(manifests: list[Manifest], folder: Path) -> Settings:
    config = next(m for m in manifests if m["kind"] == "ConfigMap" and "trimtab.yaml" in m["data"])
    file = folder / "trimtab.yaml"
    file.write_text(config["data"]["trimtab.yaml"], "utf-8")
    return load_settings(file)


def _environment(pod: Manifest) -> Mapping[str, str]:
    return {e["name"]: e.get("value", "secret") for e in pod["spec"]["containers"][0]["env"]}


@every_values
def test_settings_load(helm: Path, values: Path | None, tmp_path: Path) -> None:
    settings = _load(render(helm, values), tmp_path)
    assert settings.state_dir == Path("/var/lib/trimtab")
    assert settings.server.keys_required
    assert settings.retrain.launcher == "kubernetes"
    assert settings.retrain.job_template == Path("/etc/trimtab/job.yaml")


@every_values
def test_every_pod_finds_its_settings(
    helm: Path, values: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(helm, values)
    for name, pod in pod_specs(manifests).items():
        with monkeypatch.context() as patch:
            for key, value in _environment(pod).items():
                patch.setenv(key, value)
            settings = _load(manifests, tmp_path)
            (container,) = pod["spec"]["containers"]
            assert container["workingDir"] == "/etc/trimtab"
            if name.endswith("-engine"):
                assert settings.engines == ()
            else:
                assert settings.engines
                assert settings.store_url == "secret"


def test_engines_are_told_one_by_one(helm: Path, tmp_path: Path) -> None:
    settings = _load(render(helm, VALUES["everything"]), tmp_path)
    assert settings.engines == tuple(f"http://tt-engine-{n}.tt-engine:8001" for n in range(3))
    engine = one(render(helm, VALUES["everything"]), "StatefulSet", "-engine")
    assert (engine["spec"]["replicas"], engine["spec"]["serviceName"]) == (3, "tt-engine")


@pytest.mark.parametrize(
    ("values", "restarts"),
    [
        ({"engine": {"replicas": 2}}, False),
        ({"settings": {"gateway": {"max_in_flight": 9}}}, False),
        ({"settings": {"engine": {"max_loras": 8}}}, True),
        ({"model": "other/model"}, True),
        ({"engine": {"extraArgs": ["--seed", "1"]}}, True),
    ],
    ids=["more engines", "gateways' settings", "engines' settings", "model", "flags"],
)
def test_engines_start_anew_only_for_their_own_settings(helm: Path, values: dict[str, Any], restarts: bool) -> None:
    before, after = render(helm), render(helm, values)
    engines = [one(manifests, "StatefulSet", "-engine")["spec"]["template"] for manifests in (before, after)]
    gateways = [one(manifests, "Deployment", "-gateway")["spec"]["template"] for manifests in (before, after)]
    assert (engines[0] != engines[1]) is restarts
    assert gateways[0] != gateways[1]


def test_external_engines_are_used_as_given(helm: Path, tmp_path: Path) -> None:
    manifests = render(helm, VALUES["external"])
    assert _load(manifests, tmp_path).engines == ("http://gpu-1.example.com:8000", "http://gpu-2.example.com:8000")
    assert not [m for m in manifests if m["kind"] == "StatefulSet"]


def test_values_reach_the_settings(helm: Path, tmp_path: Path) -> None:
    settings = _load(render(helm, VALUES["everything"]), tmp_path)
    assert settings.capture.spool_bytes == 2**30
    assert settings.engine.kv_cache_gib == 4.5
    assert settings.retrain.learning_rate == 0.0005
    assert settings.server.drain_s == 20
    assert settings.alias("codes").pattern == "[A-Z]{3}"
    assert settings.blobs_url == "gs://bucket/adapters"


def test_the_engine_listens_for_other_pods(helm: Path, tmp_path: Path) -> None:
    settings = _load(render(helm, VALUES["gpu"]), tmp_path)
    argv = engine_command(settings, "cuda").argv
    last = {flag: argv[at + 1] for at, flag in enumerate(argv) if flag in {"--host", "--port"}}
    assert last == {"--host": "0.0.0.0", "--port": "8001"}
    assert argv[-1] == "--enable-prefix-caching"


@pytest.mark.parametrize(
    "values",
    [{"settings": {"drift": {"windoww": 5}}}, {"settings": {"gateway": {"max_queue": -1}}}],
    ids=["key", "value"],
)
def test_a_wrong_setting_is_told_by_trimtab_itself(helm: Path, values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"windoww|max_queue"):
        _load(render(helm, values), tmp_path)


def test_golden_sets_are_mounted_where_aliases_look(helm: Path, tmp_path: Path) -> None:
    manifests = render(helm, VALUES["everything"])
    golden = _load(manifests, tmp_path).alias("support").golden_set
    assert golden is not None
    assert golden.name in one(manifests, "ConfigMap", "-golden")["data"]
    for name, pod in pod_specs(manifests).items():
        if not name.endswith("-db-upgrade"):
            mounts = {m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
            assert str(golden.parent) in mounts, name
