"""Settings: file < environment < flags; mistakes are one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.core.errors import BadRequest, ConfigError
from service.settings import Settings, load_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trimtab.yaml"
    path.write_text(text, "utf-8")
    return path


def test_defaults_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.server.port == 8080
    assert settings.engine_urls == ("http://127.0.0.1:8001",)
    assert settings.store_url.startswith("sqlite+aiosqlite:///")
    assert not settings.server.keys_required


def test_the_environment_outranks_the_file_and_flags_outrank_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "server: {port: 1111, drain_s: 5}\nmodel: file")
    assert load_settings(path).server.port == 1111
    monkeypatch.setenv("TRIMTAB_SERVER__PORT", "2222")
    monkeypatch.setenv("TRIMTAB_LOG_LEVEL", "debug")
    settings = load_settings(path)
    assert (settings.server.port, settings.server.drain_s, settings.model) == (2222, 5.0, "file")
    assert settings.log_level == "debug"
    assert load_settings(path, {"server": {"port": 3333}}).server.port == 3333
    assert load_settings(path, {"server": {"port": 3333}}).server.drain_s == 5.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gateway: {max_bodies: 1}", r"Unknown setting 'gateway\.max_bodies'"),
        ("colour: red", "Unknown setting 'colour'"),
        ("server: {port: 99999}", r"'server\.port'"),
        ("server: [1]", "'server'"),
        ("- a list", "mapping"),
        ("a: [", "not valid YAML"),
        ("promotion: {mode: maybe}", r"'promotion\.mode'"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_settings(write(tmp_path, text))
    assert "\n" not in caught.value.message


def test_an_alias_that_cannot_be_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot name an alias"):
        load_settings(write(tmp_path, "aliases: {'Bad Name': {}}"))


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load_settings(tmp_path / "absent.yaml")


def test_other_addresses_require_keys() -> None:
    assert load_settings(overrides={"server": {"host": "0.0.0.0"}}).server.keys_required
    assert not load_settings(overrides={"server": {"host": "0.0.0.0", "require_keys": False}}).server.keys_required


def trimtab(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *args], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("colour: red", "Unknown setting 'colour'"),
        ("model: ./absent", "There is no base model at ./absent"),
        ("model: ''", "No base model is set"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, config: str, words: str) -> None:
    write(tmp_path, config)
    done = trimtab("engine", cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_command_without_a_service_says_how_to_start_it(tmp_path: Path) -> None:
    write(tmp_path, "server: {port: 9}")
    done = trimtab("rollback", "support", cwd=tmp_path)
    assert done.returncode == 1
    assert "trimtab up" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_show_hides_secrets(tmp_path: Path) -> None:
    write(tmp_path, "store: {url: 'postgresql+psycopg://bob:hunter2@db/x'}\nengine_key: sesame")
    shown = trimtab("config", "show", cwd=tmp_path)
    assert shown.returncode == 0
    assert "hunter2" not in shown.stdout
    assert "sesame" not in shown.stdout
    assert "bob:***@db/x" in shown.stdout


def test_an_engine_key_out_of_a_file_loses_its_newline() -> None:
    assert Settings(engine_key="secret\n").engine_key == "secret"


@pytest.mark.parametrize(
    "url", ["http://e", "https://e.example:8000/base", "http://[::1]:8000", "http://127.0.0.1:8001/"]
)
def test_addresses_of_engines(url: str) -> None:
    assert Settings(engines=(url,)).engines == (url,)


@pytest.mark.parametrize("url", ["", "e:8000", "ftp://e", "http://", "http://e:0", "http://e f", "http://e/\r\nx: y"])
def test_what_is_no_address_of_an_engine(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Settings(engines=(url,))
