"""A finished job's settings, curves and figures in an MLflow server, by its REST API.

A server that is away costs a line in the log and a few seconds, never a job.

Numbers, settings and digests go there, no text of a request and no name of a class.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from service.core.records import Job

log = logging.getLogger(__name__)

LIMIT_S = 5.0
API = "/api/2.0/mlflow"
TOKEN, USER, PASSWORD = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Environment variables, as MLflow's own clients read them."""

_AT_ONCE = 900  # of the 1,000 metrics and parameters that MLflow takes in a request
_MOST_PARAMS = 100
_CURVES = ("train_loss", "heldout_loss", "heldout_exact")
_NO_NAME = re.compile(r"[^\w.: /-]")

Point = tuple[str, float, int]
"""A metric's name, value and step."""


async def track(url: str, job: Job, result: Mapping[str, Any], *, began: float, now: float) -> bool:
    """Record a finished job as a run of the experiment `trimtab/ALIAS`; times are Unix seconds. Tells whether it is."""
    try:
        async with asyncio.timeout(LIMIT_S), _client(url) as http:
            await _record(http, job, result, began, now)
    except TimeoutError:
        log.warning("MLflow at %s did not answer within %.0f s; the run is not recorded there", url, LIMIT_S)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        told = (str(error).splitlines() or [""])[0]
        log.warning("MLflow at %s: %s %s; the run is not recorded there", url, type(error).__name__, told)
    else:
        log.info("recorded in MLflow at %s", url)
        return True
    return False


def params_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The settings and digests of a job's result."""
    manifest = result["manifest"]
    found = {
        **{name: str(value) for part in ("settings", "recipe") for name, value in manifest[part].items()},
        "champion": str(manifest["job"].get("champion")),
        "dataset_digest": str(manifest["dataset"]["digest"]),
        "base_digest": str(manifest["base_digest"]),
        "code": str(manifest["code"]),
    }
    return dict(list(found.items())[:_MOST_PARAMS])


def metrics_of(result: Mapping[str, Any]) -> list[Point]:
    """The curves by step, and every number of the training, the dataset and the evaluation at the last step."""
    training = result["training"]
    last = int(training.get("steps", 0))
    curves = [(name, float(value), int(step)) for name in _CURVES for step, value in training.get(name, ())]
    told = {**result["dataset"], "imported": None}  # its keys are names of files
    parts = {"training": training, "dataset": told, "evaluation": result["evaluation"]}
    return [*curves, *((name, value, last) for name, value in _numbers("", parts))]


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number with the way to it; an interval as its two ends, other lists not at all."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(f"{name}/{key}" if name else str(key), part)
    elif isinstance(value, list | tuple) and len(value) == 2 and name.endswith("ci"):
        yield from _numbers(name, dict(zip(("low", "high"), value, strict=True)))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield _NO_NAME.sub("_", name)[:250], float(value)


def _client(url: str) -> httpx.AsyncClient:
    token, user = os.environ.get(TOKEN), os.environ.get(USER)
    return httpx.AsyncClient(
        base_url=url.rstrip("/") + API,
        headers={"authorization": f"Bearer {token}"} if token else {},
        auth=(user, os.environ.get(PASSWORD, "")) if user and not token else None,
        timeout=LIMIT_S,
        trust_env=False,
    )


async def _record(http: httpx.AsyncClient, job: Job, result: Mapping[str, Any], began: float, now: float) -> None:
    tags = {
        "trimtab.alias": job.alias, "trimtab.job": job.id, "trimtab.cycle": job.cycle_id,
        "trimtab.adapter": result["adapter"], "trimtab.adapter_digest": result["digest"],
    }  # fmt: skip
    made = await _post(http, "/runs/create", {
        "experiment_id": await _experiment(http, f"trimtab/{job.alias}"), "run_name": result["adapter"],
        "start_time": _milliseconds(began), "tags": _pairs(tags),
    })  # fmt: skip
    run = made["run"]["info"]["run_id"]
    await _post(http, "/runs/log-batch", {"run_id": run, "params": _pairs(params_of(result))})
    points = metrics_of(result)
    for start in range(0, len(points), _AT_ONCE):
        metrics = [
            {"key": key, "value": value, "step": step, "timestamp": _milliseconds(now)}
            for key, value, step in points[start : start + _AT_ONCE]
        ]
        await _post(http, "/runs/log-batch", {"run_id": run, "metrics": metrics})
    await _post(http, "/runs/update", {"run_id": run, "status": "FINISHED", "end_time": _milliseconds(now)})


async def _experiment(http: httpx.AsyncClient, name: str) -> str:
    reply = await http.get("/experiments/get-by-name", params={"experiment_name": name})
    if reply.status_code == httpx.codes.NOT_FOUND:
        return str((await _post(http, "/experiments/create", {"name": name}))["experiment_id"])
    return str(reply.raise_for_status().json()["experiment"]["experiment_id"])


async def _post(http: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> Any:
    return (await http.post(path, json=body)).raise_for_status().json()


def _pairs(values: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _milliseconds(at: float) -> int:
    return round(1000 * at)
