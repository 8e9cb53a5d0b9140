"""Settings, read once: trimtab.yaml < TRIMTAB_SECTION__KEY < flags. An unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from service.core.errors import ConfigError
from service.core.names import check_alias
from service.settings.whole import FLAGS, Settings

CONFIG_FILE = Path("trimtab.yaml")


def load_settings(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the file (default `trimtab.yaml` where there is one), then the environment, then `overrides` (flags).

    Raises:
        ConfigError: one line that names the file, the key and the remedy.
    """
    source = path or CONFIG_FILE
    data = _read(source, must_exist=path is not None)
    try:
        settings = Settings(**{**data, FLAGS: dict(overrides or {})})
    except ValidationError as error:
        raise ConfigError(_explain(source, error)) from error
    for name in settings.aliases:
        check_alias(name)
    return settings


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not path.exists():
        if must_exist:
            raise ConfigError(f"There is no configuration file at {path}; give --config the path of a trimtab.yaml.")
        return {}
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, such as 'model: ./my-model'.")
    return data


def _explain(source: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Unknown setting {where!r} in {source} or the environment; `trimtab config show` lists all settings."
    if first["type"] == "value_error":
        about = f" of {where!r}" if where else ""
        return f"The settings{about} ({source} or the environment) contradict each other: {first['ctx']['error']}."
    return f"Setting {where!r} ({source} or the environment): {first['msg']}; `trimtab config show` lists all settings."
