"""Evidently's descriptors and presets by name, and those of the operator's own by import path; tried at the start."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import evidently.descriptors
import evidently.presets
import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.container import MetricContainer
from evidently.core.datasets import Descriptor

from service.core.drift import Kind
from service.core.errors import ConfigError
from service.drivers.plugins import load_function
from service.monitor.features import COLUMNS, Column, Features
from service.settings import DescriptorSettings, PresetSettings

PROMPT, REPLY = "prompt", "reply"
_TRIED = ("Where is my order?", "I want my money back. Please!")


def kind_of(column: str) -> Kind:
    """What a column's movement means; a descriptor's column says of what it is before its dot."""
    return COLUMNS.get(column) or (Kind.OUTPUT if column.startswith(f"{REPLY}.") else Kind.INPUT)


@dataclass(frozen=True, slots=True)
class Described:
    """One descriptor: it gives a number for each text of one side."""

    column: str
    of: str
    values: Callable[[Sequence[str]], Column]


class Descriptors:
    """The descriptors that the operator lists. Each adds a column to the features, watched as those of our own."""

    def __init__(self, listed: Sequence[DescriptorSettings]) -> None:
        """Raises ConfigError for one that is not there, or does not give a number for a text."""
        self._described = tuple(_described(one) for one in listed)
        names = [one.column for one in self._described]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"drift.descriptors lists {name!r} twice; remove one.", param="drift.descriptors")

    def add_to(self, features: Features) -> Features:
        """The features with a column more for each descriptor."""
        if not self._described:
            return features
        texts = {PROMPT: features.prompts, REPLY: features.replies}
        found = {one.column: one.values(texts[one.of]) for one in self._described}
        return replace(features, columns={**features.columns, **found})


def presets(listed: Sequence[PresetSettings]) -> list[MetricContainer]:
    """The presets that the operator lists.

    Raises:
        ConfigError: one is not there, or cannot report on the detectors' columns.
    """
    found = [_preset(one) for one in listed]
    columns = pd.DataFrame({"prompt_words": np.arange(30.0), REPLY: ["yes", "no"] * 15})
    tried = Dataset.from_pandas(
        columns, DataDefinition(numerical_columns=["prompt_words"], categorical_columns=[REPLY])
    )
    for one, preset in zip(listed, found, strict=True):
        try:
            Report([preset]).run(tried, tried).json()
        except Exception as error:  # a preset may raise anything
            raise _unusable("presets", one.name, error) from error
    return found


def _preset(one: PresetSettings) -> MetricContainer:
    made = _made("presets", one, _find("presets", one.name, evidently.presets), one.options)
    if not isinstance(made, MetricContainer):
        raise ConfigError(f"drift.presets: {one.name!r} is no Evidently preset.", param="drift.presets")
    return made


def _described(one: DescriptorSettings) -> Described:
    column = f"{one.of}.{one.name.rpartition(':')[2]}"
    maker = _find("descriptors", one.name, evidently.descriptors)
    if _takes_a_column(maker):
        made = _made("descriptors", one, maker, {"column_name": one.of, "alias": column, **one.options})
        if not isinstance(made, Descriptor):
            raise ConfigError(f"drift.descriptors: {one.name!r} is no Evidently descriptor.", param="drift.descriptors")
        described = Described(column, one.of, lambda texts: _by_evidently(made, one.of, column, texts))
    else:
        described = Described(column, one.of, lambda texts: _numbers([maker(text, **one.options) for text in texts]))
    try:
        if described.values(_TRIED).shape != (len(_TRIED),):
            raise ValueError("it does not give one value for each text")
    except Exception as error:  # a descriptor may raise anything
        raise _unusable("descriptors", one.name, error) from error
    return described


def _by_evidently(descriptor: Descriptor, of: str, column: str, texts: Sequence[str]) -> Column:
    frame = pd.DataFrame({of: list(texts)})
    dataset = Dataset.from_pandas(frame, DataDefinition(text_columns=[of]), descriptors=[descriptor])
    return _numbers(dataset.as_dataframe()[column].tolist())


def _numbers(values: Sequence[Any]) -> Column:
    """Numbers, truth as 0 and 1; a value that is missing is NaN."""
    return np.asarray([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _takes_a_column(maker: Any) -> bool:
    """Whether it makes an Evidently descriptor of a column; else it is a function of a text."""
    if inspect.isclass(maker):
        return issubclass(maker, Descriptor)
    return "column_name" in inspect.signature(maker).parameters


def _find(setting: str, name: str, room: ModuleType) -> Any:
    """`module:name` from there, else the name from Evidently's `room`."""
    if ":" in name:
        return load_function(name, f"entry of drift.{setting}", f"drift.{setting}")
    found = getattr(room, name, None) if name[:1].isupper() else None
    if not callable(found):
        known = ", ".join(sorted(one for one in vars(room) if one[0].isupper()))
        raise ConfigError(
            f"drift.{setting}: Evidently has no {name!r}, but {known}; or write module:name for one of your own.",
            param=f"drift.{setting}",
        )
    return found


def _made(setting: str, one: PresetSettings, maker: Any, options: Mapping[str, Any]) -> Any:
    try:
        return maker(**options)
    except Exception as error:  # of wrong options, in whatever way Evidently finds out
        raise _unusable(setting, one.name, error) from error


def _unusable(setting: str, name: str, error: Exception) -> ConfigError:
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return ConfigError(f"drift.{setting}: {name!r} cannot be used ({told}); see its options.", param=f"drift.{setting}")
