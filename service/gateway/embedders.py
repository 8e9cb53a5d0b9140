"""The engines that embed (`embedding_engines`) and the models that they list; routed by name, apart from adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.core.errors import NotFound
from service.core.names import BASE
from service.core.routing import Target


class Embedders:
    """What is known of them by the newest probes."""

    def __init__(self, engines: Sequence[str]) -> None:
        self.engines = tuple(url.rstrip("/") for url in engines)
        self._models: dict[str, frozenset[str]] = {}

    def listed(self, engine: str, models: frozenset[str]) -> None:
        """What the engine says it serves; one that is silent for a while keeps its models."""
        self._models[engine] = models

    @property
    def models(self) -> Mapping[str, tuple[str, ...]]:
        """The engines of each model."""
        names = sorted(frozenset().union(*self._models.values()))
        return {name: tuple(url for url in self.engines if name in self._models.get(url, ())) for name in names}

    def resolve(self, model: str) -> Target:
        """Raises NotFound, with the remedy, for a model that no embedding engine serves."""
        engines = tuple(url for url in self.engines if model in self._models.get(url, ()))
        if engines:
            return Target(model, BASE, model, engines)
        remedy = (
            "GET /v1/models lists those that do" if self._models
            else "name an engine that does (vLLM with --runner pooling) in the setting embedding_engines"
        )  # fmt: skip
        raise NotFound(f"The model {model!r} does not embed; {remedy}.", param="model", code="model_not_found")
