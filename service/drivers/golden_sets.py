"""The files of an alias's golden set, as far as a service must know of them."""

from __future__ import annotations

from service.core.errors import ConfigError
from service.settings import Settings


def check_golden_sets(settings: Settings) -> None:
    """Raise ConfigError when one is not there: retraining would find out only once it is needed."""
    for name, alias in settings.aliases.items():
        if alias.golden_set is not None and not alias.golden_set.is_file():
            raise ConfigError(
                f"There is no golden set at {alias.golden_set}; set aliases.{name}.golden_set to a JSONL file of "
                '{"messages": …, "expected": …}.'
            )
