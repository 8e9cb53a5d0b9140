"""Label Studio: tasks with the model's own reply as pre-annotation, and exports (JSON and JSON-MIN) read back.

Formats as of Label Studio 1.x: https://labelstud.io/guide/tasks and https://labelstud.io/guide/export.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from retrain_jobs.labels.choose import Chosen
from retrain_jobs.labels.rows import BadRow, Read, Row, messages_of, text_of, time_of
from service.core.errors import BadRequest

SOURCE = "label-studio"
REPLY, PROMPT = "reply", "prompt"
"""The names that the labelling interface gives to what is filled in, and to what is looked at."""


def task(chosen: Chosen, classes: Sequence[str]) -> dict[str, Any]:
    """One request to be labelled; with `classes` the reply is one of them, without it is a text."""
    capture = chosen.capture
    data: dict[str, Any] = {
        "request_id": capture.request_id,
        "prompt": chosen.text,
        "messages": [dict(message) for message in capture.prompt],
        "topic": chosen.topic,
        "drifted": chosen.drifted,
        "confidence": capture.confidence,
    }
    if classes and capture.reply.strip() not in classes:
        return {"data": data}
    if classes:
        value, kind = {"choices": [capture.reply.strip()]}, "choices"
    else:
        value, kind = {"text": [capture.reply]}, "textarea"
    result = {"id": capture.request_id, "from_name": REPLY, "to_name": PROMPT, "type": kind, "value": value}
    prediction: dict[str, Any] = {"model_version": capture.adapter, "result": [result]}
    if capture.confidence is not None:
        prediction["score"] = min(1.0, math.exp(capture.confidence))
    return {"data": data, "predictions": [prediction]}


def interface(classes: Sequence[str]) -> str:
    """The labelling interface that these tasks need, as Label Studio's XML."""
    if classes:
        choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
        asked = (
            f'  <Choices name="{REPLY}" toName="{PROMPT}" choice="single" showInLine="true">\n{choices}\n  </Choices>'
        )
    else:
        asked = f'  <TextArea name="{REPLY}" toName="{PROMPT}" editable="true" maxSubmissions="1" rows="4"/>'
    return f'<View>\n  <Text name="{PROMPT}" value="${PROMPT}"/>\n{asked}\n</View>\n'


def read(text: str, name: str) -> Read:
    """The labels of an export.

    Raises:
        BadRequest: it is none.
    """
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{name} is not JSON ({error}).") from error
    if not isinstance(tasks, list):
        raise BadRequest(f"{name} is no export of Label Studio: it holds no list of tasks; examples go into .jsonl.")
    found = Read()
    for number, one in enumerate(tasks, 1):
        try:
            if not isinstance(one, Mapping):
                raise BadRow("no object")
            labels = list(_labels(one))
            found.rows += labels
            found.unlabelled += not labels
        except BadRow as fault:
            found.faults.append(f"task {number}: {fault}")
    return found


def _labels(task: Mapping[str, Any]) -> Iterator[Row]:
    if "annotations" not in task and "data" not in task:  # JSON-MIN: data and results side by side
        if (target := _plain(task.get(REPLY))) is not None:
            yield _row(task, target, task.get("updated_at"))
        return
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, Mapping) or not isinstance(annotations, list):
        raise BadRow("'data' or 'annotations' is missing")
    for annotation in annotations:
        if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or ():
            if result.get("from_name") == REPLY and (target := _plain(result.get("value"))) is not None:
                yield _row(data, target, annotation.get("updated_at"))


def _row(data: Mapping[str, Any], target: str, at: Any) -> Row:
    request = data.get("request_id")
    prompt: Sequence[Mapping[str, str]] = ()
    if data.get("messages"):
        prompt = messages_of(data["messages"], "messages")
    elif data.get(PROMPT) or not request:
        prompt = [{"role": "user", "content": text_of(data.get(PROMPT), PROMPT)}]
    return Row(
        text_of(target, REPLY), prompt, text_of(request, "request_id") if request else None,
        time_of(at, "updated_at"),
    )  # fmt: skip


def _plain(value: Any) -> str | None:
    """The one reply in a result; None where there is none. Several are refused: one request has one right reply."""
    if isinstance(value, Mapping):
        value = value.get("choices", value.get("text"))
    if isinstance(value, list):
        if len(value) > 1:
            raise BadRow(f"'{REPLY}' has {len(value)} values where one is right")
        value = value[0] if value else None
    if value is not None and not isinstance(value, str):
        raise BadRow(f"'{REPLY}' holds a {type(value).__name__}, not text")
    return value if value and value.strip() else None
