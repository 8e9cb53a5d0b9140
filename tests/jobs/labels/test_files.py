"""Files of examples: what is taken, and by which line and column a bad one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrain_jobs.labels.files import read_file
from retrain_jobs.labels.rows import Row
from service.core.errors import BadRequest

ASKED = [{"role": "user", "content": "where is it"}]


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, "utf-8")
    return path


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def test_a_chat_ends_with_its_target_or_has_it_beside(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.jsonl",
        "\ufeff" + lines(
            {"messages": [*ASKED, {"role": "assistant", "content": "delivery"}]},
            "",
            {"messages": ASKED, "expected": "delivery", "at": "2026-01-02T03:04:05", "request_id": "req_1"},
            {"prompt": "where is it", "system": "Be brief.", "expected": "delivery", "at": 5},
        ),
    )  # fmt: skip
    read = read_file(path, {})
    assert read.faults == []
    assert read.rows == [
        Row("delivery", ASKED),
        Row("delivery", ASKED, "req_1", 1767323045.0),
        Row("delivery", [{"role": "system", "content": "Be brief."}, *ASKED], None, 5.0),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON (Expecting"),
        ("[1]", "line 2: no object of columns"),
        ({"prompt": "a"}, "line 2: column 'expected' holds nothing, not text"),
        ({"prompt": " ", "expected": "x"}, "line 2: column 'prompt' is empty"),
        ({"prompt": 3, "expected": "x"}, "line 2: column 'prompt' holds a int, not text"),
        ({"prompt": "a", "expected": "x\0"}, "line 2: column 'expected' holds the NUL character"),
        ({"prompt": "a", "expected": "x" * 100_001}, "line 2: column 'expected' has 100001 characters"),
        ({"prompt": "a", "expected": "x", "at": "soon"}, "line 2: column 'at' is no time"),
        ({"prompt": "a", "expected": "x", "at": -1}, "line 2: column 'at' is no time after 1970"),
        ({"messages": "hi", "expected": "x"}, "line 2: column 'messages' holds a str, not a list of messages"),
        ({"messages": ["hi"], "expected": "x"}, "line 2: column 'messages' holds something else than messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "expected": "x"}, "content is no text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no message before the assistant's"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_taken(tmp_path: Path, line: Any, told: str) -> None:
    good = {"prompt": "where is it", "expected": "delivery"}
    read = read_file(written(tmp_path, "a.jsonl", lines(good, line, good)), {})
    assert len(read.rows) == 2
    (fault,) = read.faults
    assert told in fault


def test_csv_by_line_also_where_cells_hold_several(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.csv",
        'question,answer,at\n"two\nlines",delivery,\nshort\nwhere,,7\n\nhow much,"invoice",1000000000\n',
    )
    read = read_file(path, {"prompt": "question", "expected": "answer"})
    assert [(row.prompt[0]["content"], row.target, row.at) for row in read.rows] == [
        ("two\nlines", "delivery", None),
        ("how much", "invoice", 1e9),
    ]
    assert read.faults == ["line 4: 1 cells where the header has 3", "line 5: column 'answer' is empty"]
    broken = read_file(written(tmp_path, "b.csv", 'prompt,expected\na,b\n"c" d,e\nf,g\n'), {})
    assert len(broken.rows) == 1
    assert "line 3: no CSV from here on" in broken.faults[0]


def test_parquet_with_chats_and_with_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    chats, table = tmp_path / "chats.parquet", tmp_path / "table.parquet"
    pq.write_table(pa.table({"messages": [[*ASKED, {"role": "assistant", "content": "delivery"}], None]}), chats)
    read = read_file(chats, {})
    assert read.rows == [Row("delivery", ASKED)]
    assert read.faults == ["row 2: column 'prompt' holds nothing, not text"]
    pq.write_table(pa.table({"prompt": ["a", "b"], "expected": ["x", None]}), table)
    assert [row.target for row in read_file(table, {}).rows] == ["x"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "", "ends in none of .csv, .json, .jsonl, .parquet, .tsv"),
        ("a.csv", "frage,antwort\na,b\n", "has no column prompt and none expected, it has frage, antwort"),
        ("a.csv", "", "it has none"),
        ("a.parquet", "PAR1", "is no Parquet file that can be read"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "{}", "holds no list of tasks"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str, content: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        read_file(written(tmp_path, name, content), {})


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        read_file(tmp_path / "none.csv", {})
    (tmp_path / "latin.csv").write_bytes(b"prompt,expected\n\xe9,x\n")
    with pytest.raises(BadRequest, match="cannot be read"):
        read_file(tmp_path / "latin.csv", {})
