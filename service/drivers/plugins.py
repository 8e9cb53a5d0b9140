"""Functions of the owner's by import path, `package.module:function`: scorers, descriptors, personal data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from service.core.errors import ConfigError
from service.settings import Settings


@lru_cache
def load_function(path: str, what: str, param: str | None = None) -> Callable[..., Any]:
    """Import the function, told as `what` of the setting `param`. Raises ConfigError when it is not there."""
    module_name, _, name = path.partition(":")
    try:
        found = getattr(import_module(module_name), name, None)
    except Exception as error:  # a module of the owner's may fail in any way
        raise ConfigError(
            f"The {what} {path} cannot be imported ({type(error).__name__}: {error}); install its package, or name its "
            "folder in PYTHONPATH.",
            param=param,
        ) from error
    if not callable(found):
        raise ConfigError(f"The {what} {path} is not there: {module_name} has no function {name!r}.", param=param)
    return found  # type: ignore[no-any-return]


def load_finder(path: str) -> Callable[..., Any]:
    """One of `retrain.personal`. Raises ConfigError when it is not there."""
    return load_function(path, "finder of personal data")


def check_finders(settings: Settings) -> None:
    """Raise ConfigError where one is not there: a job would find out only then."""
    for path in settings.retrain.personal:
        load_finder(path)
