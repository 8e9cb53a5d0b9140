"""Files of examples: JSON lines of chats, CSV and Parquet. A bad row is told by its line and column, others are read.

A row has `messages` (whose last one may be the assistant's: the target) or `prompt`, and `expected`; perhaps `system`,
`at` and `request_id`. Other names for a column are given as `names`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrain_jobs.labels import studio
from retrain_jobs.labels.rows import BadRow, Read, Row, messages_of, text_of, time_of
from service.core.errors import BadRequest

Columns = Mapping[str, str]
"""Our name of a column → the file's; a name that is missing is ours."""

PROMPTS = ("messages", "prompt")
Entry = tuple[str, Mapping[str, Any] | BadRow]


def read_file(path: Path, names: Columns) -> Read:
    """All rows of the file, by its suffix.

    Raises:
        BadRequest: the file cannot be read at all, or lacks a column.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".json":
            return studio.read(path.read_text("utf-8-sig"), path.name)
        if kind not in _READERS:
            raise BadRequest(
                f"{path.name} ends in none of {', '.join(sorted([*_READERS, '.json']))}; the suffix says what it holds."
            )
        found = Read()
        for where, entry in _READERS[kind](path, names):
            try:
                if isinstance(entry, BadRow):
                    raise entry
                found.rows.append(_row(entry, names))
            except BadRow as fault:
                found.faults.append(f"{where}: {fault}")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read: {error}.") from error
    return found


def _row(entry: Mapping[str, Any], names: Columns) -> Row:
    name = {ours: names.get(ours, ours) for ours in (*PROMPTS, "expected", "system", "at", "request_id")}
    target = entry.get(name["expected"])
    if entry.get(name["messages"]) is not None:
        prompt = messages_of(entry[name["messages"]], name["messages"])
        if target is None and prompt[-1]["role"] == "assistant":
            target = prompt.pop()["content"]
        if not prompt:
            raise BadRow(f"column '{name['messages']}' has no message before the assistant's")
    else:
        prompt = [{"role": "user", "content": text_of(entry.get(name["prompt"]), name["prompt"])}]
        if entry.get(name["system"]):
            prompt.insert(0, {"role": "system", "content": text_of(entry[name["system"]], name["system"])})
    request = entry.get(name["request_id"])
    return Row(
        text_of(target, name["expected"]), prompt,
        text_of(request, name["request_id"]) if request else None, time_of(entry.get(name["at"]), name["at"]),
    )  # fmt: skip


def _json_lines(path: Path, _: Columns) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                yield f"line {number}", BadRow(f"no JSON ({error})")
                continue
            found = entry if isinstance(entry, Mapping) else BadRow("no object of columns")
            yield f"line {number}", found


def _csv(path: Path, names: Columns) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(reader, [])
            _check_columns(path, header, names, ("prompt",))
            began = reader.line_num + 1
            for cells in reader:
                where, began = f"line {began}", reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield where, BadRow(f"{len(cells)} cells where the header has {len(header)}")
                    continue
                yield where, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            yield f"line {reader.line_num}", BadRow(f"no CSV from here on ({error})")


def _parquet(path: Path, names: Columns) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, names, PROMPTS)
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for entry in batch.to_pylist():
                    number += 1
                    yield f"row {number}", entry
    except pa.ArrowException as error:
        raise BadRequest(f"{path.name} is no Parquet file that can be read ({str(error).splitlines()[0]}).") from error


def _check_columns(path: Path, there: Sequence[str], names: Columns, prompts: Sequence[str]) -> None:
    wanted = [names.get(name, name) for name in prompts]
    chats = names.get("messages", "messages") in there and "messages" in prompts
    missing = [] if any(name in there for name in wanted) else [" or ".join(wanted)]
    if (target := names.get("expected", "expected")) not in there and not chats:
        missing.append(target)
    if missing:
        raise BadRequest(
            f"{path.name} has no column {' and none '.join(missing)}, it has {', '.join(there) or 'none'}; "
            "name them by --prompt-column and --target-column."
        )


_READERS: dict[str, Callable[[Path, Columns], Iterator[Entry]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
