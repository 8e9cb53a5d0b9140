"""Real Helm accepts the chart, Kubernetes' schemas accept what it renders, and the values' schema refuses mistakes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from retrain_jobs.processes import Place
from service.control.launcher import job_manifest
from service.core.records import Job, JobStatus
from tests.helm.chart import CHART, VALUES, Refused, lint, one, pod_specs, render

KUBERNETES = ("1.29", kubernetes_validate.latest_version())
OPERATOR = "monitoring.coreos.com/v1"
every_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())


@every_values
def test_helm_lint_is_content(helm: Path, values: Path | None) -> None:
    result = lint(helm, values)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stdout


@every_values
def test_manifests_are_valid(helm: Path, values: Path | None) -> None:
    for manifest in render(helm, values):
        if manifest["apiVersion"] == OPERATOR:
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_an_invalid_manifest_would_be_noticed(helm: Path) -> None:
    manifest = one(render(helm), "Deployment", "-gateway")
    manifest["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)


@every_values
def test_retraining_job_is_valid_as_the_controller_makes_it(helm: Path, values: Path | None) -> None:
    config = next(m for m in render(helm, values) if m["kind"] == "ConfigMap" and "job.yaml" in m["data"])
    job = Job("c0ffee-job", "c0ffee", "support", JobStatus.QUEUED, 0.0, 0.0)
    manifest = job_manifest(yaml.safe_load(config["data"]["job.yaml"]), job)
    kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["command"][:5] == ["python", "-m", "retrain_jobs", "--job", "$(JOB_ID)"]
    assert {"name": "JOB_ID", "value": "c0ffee-job"} in container["env"]


def test_several_pods_of_a_job_find_the_first_by_its_name(helm: Path) -> None:
    """Kubernetes names the pods of an Indexed Job by the Job and their index, within the subdomain's service."""
    manifests = render(helm, VALUES["everything"])
    config = next(m for m in manifests if m["kind"] == "ConfigMap" and "job.yaml" in m["data"])
    job = Job("c0ffee-job", "c0ffee", "support", JobStatus.QUEUED, 0.0, 0.0)
    spec = job_manifest(yaml.safe_load(config["data"]["job.yaml"]), job)["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert Place.of({name: entry["value"] for name, entry in env.items() if "value" in entry}).size == 2
    assert env["MASTER_ADDR"]["value"] == f"$(JOB_NAME)-0.{pod['subdomain']}"
    assert "job-completion-index" in env["RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    names = one(manifests, "Service", pod["subdomain"])["spec"]
    assert names["clusterIP"] == "None"
    policy = one(manifests, "NetworkPolicy", "-job")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for selector in (names["selector"], policy["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    closed = one(manifests, "NetworkPolicy", "-closed")["spec"]["podSelector"]["matchExpressions"]
    assert "job" not in closed[0]["values"]


@every_values
def test_pods_are_locked_down(helm: Path, values: Path | None) -> None:
    for name, pod in pod_specs(render(helm, values)).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["enableServiceLinks"] is False, name
        assert ("serviceAccountName" in spec) == name.endswith("-controller"), name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/var/lib/trimtab", "/tmp"} <= mounts, name
            assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}, name


@every_values
def test_selectors_find_their_pods(helm: Path, values: Path | None) -> None:
    manifests = render(helm, values)
    pods = [pod["metadata"]["labels"] for pod in pod_specs(manifests).values()]
    services = [m["metadata"]["labels"] for m in manifests if m["kind"] == "Service"]
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector", {})
        wanted = selector.get("matchLabels", selector)
        if manifest["kind"] in {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"}:
            assert any(wanted.items() <= labels.items() for labels in pods), manifest["metadata"]["name"]
        if manifest["kind"] == "ServiceMonitor":
            assert sum(wanted.items() <= labels.items() for labels in services) == 1, manifest["metadata"]["name"]


@every_values
def test_every_volume_is_there(helm: Path, values: Path | None) -> None:
    """Whatever the release itself makes is made under the name by which pods ask for it."""
    manifests = render(helm, values)
    made = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    for pod in pod_specs(manifests).values():
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
            if volume["name"] == "shared" and values is None:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made


def test_engines_and_controller_share_the_adapters_path(helm: Path) -> None:
    pods = pod_specs(render(helm))
    seen = [
        {m["mountPath"]: m["subPath"] for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "shared"}
        for name, pod in pods.items()
        if name.endswith(("-engine", "-controller", "retraining job"))
    ]
    assert seen == [{"/var/lib/trimtab/adapters": "adapters", "/var/lib/trimtab/cache": "cache"}] * 3


def test_the_controller_may_make_jobs_and_no_more(helm: Path) -> None:
    role = one(render(helm), "Role", "-controller")
    assert role["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "delete"]}
    ]


def test_minimal_renders_nothing_optional(helm: Path) -> None:
    kinds = sorted(m["kind"] for m in render(helm, VALUES["minimal"]))
    assert kinds == ["ConfigMap", "Deployment", "Deployment", "Service", "Service", "Service", "Service", "StatefulSet"]


def test_everything_renders_every_kind(helm: Path) -> None:
    kinds = {m["kind"] for m in render(helm, VALUES["everything"])}
    assert kinds >= {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy",
        "PersistentVolumeClaim", "PodDisruptionBudget", "PrometheusRule", "Role",
        "RoleBinding", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
    }  # fmt: skip


def test_prometheus_rule_is_what_promtool_accepts(helm: Path, tmp_path: Path) -> None:
    rule = one(render(helm, VALUES["everything"]), "PrometheusRule", "tt")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]), "utf-8")
    result = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    links = re.findall(r"runbook_url: (\S+)#", file.read_text("utf-8"))
    assert set(links) == {"https://docs.example.com/trimtab/runbook.md"}


def test_dashboard_is_the_committed_one(helm: Path) -> None:
    config = one(render(helm, VALUES["everything"]), "ConfigMap", "-dashboard")
    committed = CHART.parent / "dashboards" / "grafana" / "trimtab.json"
    assert json.loads(config["data"]["trimtab.json"]) == json.loads(committed.read_text("utf-8"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": 0}}, "replicas"),
        ({"gateway": {"image": {"repository": ""}}}, "repository"),
        ({"engine": {"device": "tpu"}}, "device"),
        ({"engine": {"stateSize": "many"}}, "stateSize"),
        ({"runAsUser": 0}, "runAsUser"),
        ({"model": ""}, "model"),
        ({"store": {"existingSecret": ""}}, "existingSecret"),
        ({"blobs": {"url": "file:///somewhere/else"}}, "url"),
        ({"aliases": {"Support": {}}}, "Support"),
        ({"aliases": {"support": {"scorer": "vibes"}}}, "scorer"),
        ({"settings": {"promotions": {}}}, "promotions"),
        ({"sharedVolume": {"accessMode": "ReadOnlyMany"}}, "accessMode"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_values_are_refused(helm: Path, values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=told):
        render(helm, values)


def test_schema_describes_every_value_and_refuses_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    for path, node in _nodes(schema, ""):
        assert node.get("description"), f"{path} has no description"
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{path} takes unknown keys"
    assert schema["additionalProperties"] is False
    assert _uncovered(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")), schema, "") == []


def test_readme_table_is_the_values_and_their_descriptions() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    rows = [line for line in (CHART / "README.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{path}` | `{json.dumps(value, ensure_ascii=False)}` | {node['description']} |"
        for path, value, node in _leaves(values, schema, "")
    ]


def _nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in schema.get("properties", {}).items():
        if path != ".imagePullSecrets":
            yield f"{path}.{name}", node
            yield from _nodes(node, f"{path}.{name}")


def _leaves(value: Any, node: dict[str, Any], path: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    whole = path == "settings" or path.endswith(".resources")
    if isinstance(value, dict) and "properties" in node and not whole:
        for name, inner in value.items():
            yield from _leaves(inner, node["properties"][name], f"{path}.{name}" if path else name)
    else:
        yield path, value, node


def _uncovered(values: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Paths of the schema that values.yaml gives no default, where it must."""
    if path in {".settings", ".global"} or path.endswith(".resources") or "properties" not in schema:
        return []
    missing = [f"{path}.{name}" for name in schema["properties"] if name not in values and name != "global"]
    inner = [
        lack
        for name, node in schema["properties"].items()
        if name in values
        for lack in _uncovered(values[name], node, f"{path}.{name}")
    ]
    return missing + inner
