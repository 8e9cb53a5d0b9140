"""The command line's side of the control API: what it sends, and what a person reads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.client import Api, follow, show
from service.core.errors import BadRequest, TrimtabError, Unavailable
from service.core.records import Adapter
from service.drivers.store import open_store
from service.settings import Settings


class Server(HTTPServer):
    """Answers every call with `status` and `body`, and keeps what it was asked."""

    status, body = 200, b"{}"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def test_the_key_and_the_query_are_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_KEY", "tt_secret")
    api = Api(Settings(), server.url + "/")
    assert api.get("/adapters", alias=None) == {}
    api.get("/adapters", alias="support")
    api.post("/aliases", {"name": "a"})
    assert [path for _, path, _, _ in server.asked] == [
        "/api/v1/adapters", "/api/v1/adapters?alias=support", "/api/v1/aliases",
    ]  # fmt: skip
    assert {headers["authorization"] for _, _, headers, _ in server.asked} == {"Bearer tt_secret"}
    assert json.loads(server.asked[2][3]) == {"name": "a"}


def test_the_servers_own_words_are_the_error(server: Server) -> None:
    server.status, server.body = 404, b'{"error": {"message": "There is no alias \'x\'."}}'
    with pytest.raises(TrimtabError, match=r"^There is no alias 'x'\.$"):
        Api(Settings(), server.url).get("/aliases/x")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error": "no"}'])
def test_an_answer_that_is_not_ours_is_named_by_its_status(server: Server, body: bytes) -> None:
    server.status, server.body = 502, body
    with pytest.raises(TrimtabError, match=r"/api/v1/aliases answered 502\."):
        Api(Settings(), server.url).get("/aliases")


def test_nobody_there(server: Server) -> None:
    server.server_close()
    with pytest.raises(Unavailable, match=r"does not answer at .*trimtab up"):
        Api(Settings(), server.url).get("/aliases")
    with pytest.raises(BadRequest, match="no address"):
        Api(Settings(), "127.0.0.1:8080").get("/aliases")


def test_only_an_adapters_own_files_are_sent(server: Server, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt"):
        (tmp_path / name).write_bytes(b"content of " + name.encode())
    Api(Settings(), server.url).upload_adapter("support", tmp_path)
    _, path, _, body = server.asked[0]
    assert path == "/api/v1/adapters"
    assert b"content of adapter_config.json" in body
    assert b"content of adapter_model.safetensors" in body
    assert b"optimizer.pt" not in body


def test_rows_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "created_at": 0.0, "share": 0.123456, "tags": [1]}, {"name": "b", "created_at": None}]
    show({"data": rows, "next": None}, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["name", "created_at", "share"], ["a", "0.1235"], ["b"]]
    show({"data": [], "next": None}, as_json=False)
    assert capsys.readouterr().out == "None.\n"


def test_times_are_dates_for_people_and_numbers_for_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"id": "c1", "at": 1_700_000_000.0, "evidence": {"n": 1}, "latched": False}
    show(answer, as_json=False)
    told = capsys.readouterr().out
    assert "at: 2023-11-1" in told
    assert 'evidence: {"n": 1}' in told
    assert "latched: False" in told
    show(answer, as_json=True)
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize(
    ("args", "path", "body"),
    [
        (("approve", "support"), "/aliases/support/approve", {}),
        (("retrain", "support", "--reason", "new"), "/aliases/support/retrain", {"reason": "new"}),
        (
            ("retrain", "support", "--merge", "a", "--merge", "b", "--weight", "1", "--weight", "0.5"),
            "/aliases/support/retrain",
            {
                "reason": "asked for",
                "merge": {"adapters": ["a", "b"], "weights": [1.0, 0.5], "method": "svd", "density": 0.5},
            },
        ),
        (("rollback", "support"), "/aliases/support/rollback", {"reason": "asked for"}),
        (
            ("promote", "support", "base"),
            "/aliases/support/promote",
            {"adapter": "base", "reason": "asked for", "force": False},
        ),
        (
            ("promote", "support", "base", "--force"),
            "/aliases/support/promote",
            {"adapter": "base", "reason": "asked for", "force": True},
        ),
        (("aliases", "unlatch", "support"), "/aliases/support/unlatch", {}),
    ],
)
def test_each_command_asks_for_what_it_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], path: str, body: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*args, "--url", server.url, "--json"])
    assert done.exit_code == 0, done.output
    ((method, asked, _, sent),) = server.asked
    assert (method, asked, json.loads(sent)) == ("POST", f"/api/v1{path}", body)


def test_a_retraining_is_followed_until_its_candidate_is_judged(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = {"status": "running", "phase": "training", "progress": 0.5, "detail": {"loss": 0.25, "eta_s": 40}}
    answers = iter([{"state": "open"}, {"state": "training", "job": job}, {"state": "shadowing"}])
    monkeypatch.setattr(Server, "body", property(lambda _: json.dumps({"id": "c1", **next(answers, {})}).encode()))
    said: list[str] = []
    found = follow(Api(Settings(), server.url), "c1", said.append, every_s=0.0)
    assert said == ["open", "training, 50% done: loss 0.25, about 40 s left"]
    assert found["state"] == "shadowing"
    assert {path for _, path, _, _ in server.asked} == {"/api/v1/cycles/c1"}


def test_the_command_that_follows_prints_the_cycle_as_it_is_then(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = iter([{"state": "open"}, {"state": "failed", "job": None, "evidence": {}}])
    monkeypatch.setattr(Server, "body", property(lambda _: json.dumps({"id": "c1", **next(answers)}).encode()))
    done = CliRunner().invoke(app, ["retrain", "support", "--follow", "--url", server.url, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"id": "c1", "state": "failed"}


async def test_adapters_that_learned_from_a_request_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite+aiosqlite:///{tmp_path / 'trimtab.db'}"
    store = await open_store(url, migrate=True)
    for name, rows in (("a", ["r1", "r2"]), ("b", ["r3"])):
        manifest = {"dataset": {"train": rows, "heldout": []}}
        await store.add_adapter(Adapter(f"support@{name}", "support", name * 64, "b" * 64, 16, 1, 1.0, None, manifest))
    await store.close()
    args = ["adapters", "trained-on", "r2", "r9", "--state-dir", str(tmp_path), "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, args)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "adapters": [{"adapter": "support@a", "alias": "support", "train": 1, "heldout": 0, "inherits": ""}]
    }
