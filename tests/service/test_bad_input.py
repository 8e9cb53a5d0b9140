"""A mistake at the command line: an exit code other than 0 and one line that names the cause and the remedy."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a base model up to its weights, which none of these commands gets to read."""
    folder = tmp_path_factory.mktemp("model")
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def trimtab(folder: Path, *args: str) -> tuple[int, list[str]]:
    """The exit code and the lines that a person reads."""
    done = subprocess.run(
        [sys.executable, "-m", "service", *args], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


@contextlib.contextmanager
def listening():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def free_port() -> int:
    with listening() as port:
        return port


def refused_by_up(tmp_path: Path, model: Path, text: str, *, own_engine: bool) -> str:
    """What `trimtab up` says when it refuses `text` over settings that work; TAKEN in it is a port in use."""
    with listening() as taken:
        free = {"model": str(model), "server": {"port": free_port(), "controller_metrics_port": 0}}
        free |= {"engine": {"port": free_port()}} if own_engine else {"engines": ["http://127.0.0.1:9"]}
        config = tmp_path / "trimtab.yaml"
        config.write_text(merged(free, text.replace("TAKEN", str(taken))), "utf-8")
        code, lines = trimtab(tmp_path, "up", "--config", str(config))
    assert code == 2
    assert not [line for line in lines if "Traceback" in line]
    assert lines[-1].startswith("trimtab: ")
    return lines[-1].removeprefix("trimtab: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour: red", ["Unknown setting 'colour'", "trimtab config show"]),
        ("gateway: {max_bodies: 1}", ["Unknown setting 'gateway.max_bodies'"]),
        ("aliases: [", ["not valid YAML"]),
        ("engine: {port: fast}", ["'engine.port'", "integer"]),
        ("aliases: {support: {scorer: vibes}}", ["'aliases.support.scorer'", "'exact'"]),
        ("aliases: {support: {scorer: regex}}", ["aliases.support", "pattern"]),
        ("aliases: {support: {scorer: regex, pattern: '('}}", ["aliases.support", "not a regular expression"]),
        ("aliases: {support: {scorer: 'no_such_module:judge'}}", ["no_such_module:judge", "PYTHONPATH"]),
        ("aliases: {support: {scorer: 'json:absent'}}", ["json:absent", "no function"]),
        (
            "{server: {port: 8123}, aliases: {support: {judge: {url: 'http://localhost:8123/v1', model: m}}}}",
            ["judge.url", "this service"],
        ),
        ("retrain: {recipe: magic}", ["'retrain.recipe'", "'sft_lora'"]),
        ("retrain: {rank: 64}", ["retrain.rank", "engine.max_lora_rank"]),
        ("aliases: {support: {golden_set: absent.jsonl}}", ["absent.jsonl", "aliases.support.golden_set"]),
        ("drift: {embedder: absent}", ["absent", "drift.embedder"]),
        ("store: {url: 'mysql://localhost/x'}", ["store.url", "postgresql"]),
        ("blobs: {url: 'ftp://localhost/x'}", ["blobs.url", "s3://"]),
        ("server: {port: TAKEN}", ["Port", "server.port"]),
        ("engines: ['gpu-1:8000']", ["gpu-1:8000", "'engines'", "http://gpu-1:8000"]),
        ('engine_key: "a\\u00e9"', ["'engine_key'", "ASCII"]),
        ("gateway: {settle_s: 0.1}", ["gateway.settle_s", "routing_poll_s"]),
        ("promotion: {freezes: [Friday]}", ["'promotion.freezes'", "Fri 16:00-Mon 08:00"]),
    ],
)
def test_up_refuses_settings_that_cannot_work(tmp_path: Path, model: Path, text: str, words: list[str]) -> None:
    said = refused_by_up(tmp_path, model, text, own_engine=False)
    assert all(word in said for word in words), said
    assert "trimtab: " not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("engine: {kv_cache_gib: 100000}", ["GiB", "engine.kv_cache_gib"]),
        ("engine: {port: TAKEN}", ["Port", "engine.port"]),
        ("model: ./nowhere", ["./nowhere", "'model'"]),
        ("model: ''", ["No base model", "trimtab.yaml"]),
    ],
)
def test_up_refuses_an_engine_that_cannot_start(tmp_path: Path, model: Path, text: str, words: list[str]) -> None:
    said = refused_by_up(tmp_path, model, text, own_engine=True)
    assert all(word in said for word in words), said
    assert "trimtab: " not in said


def merged(free: dict, text: str) -> str:
    """`text` over settings that work, as YAML (which JSON is); text that is no YAML stays as it is."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    for key, value in given.items():
        free[key] = {**free[key], **value} if isinstance(value, dict) and key in free else value
    return json.dumps(free)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("up", "--config", "absent.yaml"), ["absent.yaml", "--config"]),
        (("aliases", "show", "support", "--url", "http://127.0.0.1:9"), ["does not answer", "trimtab up"]),
        (("adapters", "add", "support", "absent"), ["no folder absent", "adapter_config.json"]),
        (("rollback", "support", "--url", "no-url"), ["no-url", "--url"]),
        (("keys", "revoke", "k404"), ["k404", "trimtab keys list"]),
    ],
)
def test_commands_say_what_to_do(tmp_path: Path, args: tuple[str, ...], words: list[str]) -> None:
    code, lines = trimtab(tmp_path, *args)
    assert code != 0
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines


def test_a_folder_without_an_adapter_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    code, lines = trimtab(tmp_path, "adapters", "add", "support", ".", "--url", "http://127.0.0.1:9")
    assert code != 0
    assert len(lines) == 1
    assert "adapter_config.json" in lines[0]
