"""Starts retraining jobs: a niced subprocess here, or a Kubernetes Job from a template."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml

from service.core.errors import ConfigError, EngineFailed
from service.core.records import Job
from service.processes import GETTING_READY, Child, ChildSpec
from service.settings import Settings

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Launcher(Protocol):
    async def launch(self, job: Job) -> None:
        """Start the job's process; the same job may be launched again after its process died."""

    async def expect(self, job_id: str, cycle_id: str) -> None:
        """Hear that an open cycle will probably want this job soon. Nothing may depend on it."""

    async def stop(self) -> None:
        """End the processes that this launcher started and that live on this machine."""


class SubprocessLauncher:
    """`python -m retrain_jobs` beside the controller, its log in the state folder; it gives way once it trains."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._settings = settings
        self._config = config
        self._children: dict[str, tuple[Child, int]] = {}

    async def launch(self, job: Job) -> None:
        """Nothing is started while the process from before is still on its way to the job."""
        before = self._children.get(job.id)
        if before is None or before[0].returncode is not None or before[1] != job.attempts:
            await self._start(job.id, job.attempts)

    async def expect(self, job_id: str, cycle_id: str) -> None:
        """Start a process that gets ready and waits for the job; of several that train together none starts early."""
        if self._settings.retrain.processes == 1:
            await self._start(job_id, 0, "--cycle", cycle_id)

    async def _start(self, job_id: str, attempts: int, *more: str) -> None:
        argv = [sys.executable, "-m", "retrain_jobs", "--job", job_id, *more]
        if self._config is not None:
            argv += ["--config", str(self._config)]
        log = self._settings.state_dir / "logs" / f"job-{job_id}.log"
        env = {"DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
        nice = min(GETTING_READY, self._settings.retrain.nice)
        child = await Child.start(ChildSpec(f"job {job_id}", argv, log, env, nice))
        self._children = {of: one for of, one in self._children.items() if one[0].returncode is None}
        self._children[job_id] = (child, attempts)

    async def stop(self) -> None:
        for child, _ in self._children.values():
            await child.stop()


class KubernetesLauncher:
    """Creates a batch/v1 Job from `retrain.job_template`, with JOB_ID in the container's environment."""

    def __init__(self, settings: Settings) -> None:
        template = settings.retrain.job_template
        if template is None or not template.is_file():
            raise ConfigError("retrain.launcher is kubernetes: set retrain.job_template to a Job manifest (YAML).")
        self._template: dict[str, Any] = yaml.safe_load(template.read_text("utf-8"))
        self._namespace = settings.retrain.namespace or (_ACCOUNT / "namespace").read_text("utf-8").strip()
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        self._url = f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"

    async def launch(self, job: Job) -> None:
        manifest = job_manifest(self._template, job)
        token = (_ACCOUNT / "token").read_text("utf-8").strip()
        context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        async with httpx.AsyncClient(verify=context, headers={"authorization": f"Bearer {token}"}) as http:
            reply = await http.post(f"{self._url}/apis/batch/v1/namespaces/{self._namespace}/jobs", json=manifest)
        if reply.status_code not in {200, 201, 202, 409}:
            raise EngineFailed(f"Kubernetes refused the job ({reply.status_code}): {reply.text[:300]}")

    async def expect(self, job_id: str, cycle_id: str) -> None:
        """A pod that waits would hold its node's memory and processors."""

    async def stop(self) -> None:
        """Kubernetes keeps its Jobs; a later controller finds them by the store."""


def job_manifest(template: dict[str, Any], job: Job) -> dict[str, Any]:
    """The template with the job's name and id filled in; one Job an attempt, so that a relaunch is a new object."""
    pod = template["spec"]["template"]["spec"]
    containers = [{**c, "env": [*c.get("env", []), {"name": "JOB_ID", "value": job.id}]} for c in pod["containers"]]
    return {
        **template,
        "metadata": {**template.get("metadata", {}), "name": f"trimtab-{job.id}-{job.attempts}".lower()},
        "spec": {
            **template["spec"],
            "template": {**template["spec"]["template"], "spec": {**pod, "containers": containers}},
        },
    }
