"""All settings together, and what must hold between groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from service.settings.alias import AliasSettings
from service.settings.drift import DriftSettings
from service.settings.group import ADDRESS, Slices
from service.settings.promotion import ControllerSettings, PromotionSettings
from service.settings.retraining import RetrainSettings
from service.settings.serving import (
    BlobSettings,
    CaptureSettings,
    EngineSettings,
    GatewaySettings,
    MirrorSettings,
    RetentionSettings,
    ServerSettings,
    StoreSettings,
)  # fmt: skip

FLAGS = "\0flags"
"""Under this key, which no YAML can hold, flags travel to the sources."""

_HEADER_VALUE = re.compile(r"[\x20-\x7e]+")


class Settings(BaseSettings):
    """Everything that is in force; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_", env_nested_delimiter="__", extra="forbid", frozen=True, populate_by_name=True
    )

    model: str = Field("", description="the base model: a Hugging Face folder or id")
    engines: tuple[str, ...] = Field((), description="URLs of running engines; empty: start one here")
    embedding_engines: tuple[str, ...] = Field(
        (), description="URLs of running engines for /v1/embeddings (vLLM with --runner pooling)"
    )
    engine_key: str | None = Field(None, description="the engines' own API key, if they want one")
    state_dir: Path = Path(".trimtab")
    aliases: Mapping[str, AliasSettings] = Field(default_factory=dict)
    log_level: str = "info"

    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    store: StoreSettings = StoreSettings()
    blobs: BlobSettings = BlobSettings()
    gateway: GatewaySettings = GatewaySettings()
    capture: CaptureSettings = CaptureSettings()
    mirror: MirrorSettings = MirrorSettings()
    drift: DriftSettings = DriftSettings()
    retrain: RetrainSettings = RetrainSettings()
    promotion: PromotionSettings = PromotionSettings()
    retention: RetentionSettings = RetentionSettings()
    controller: ControllerSettings = ControllerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = getattr(init_settings, "init_kwargs", {})
        flags = InitSettingsSource(settings_cls, file.pop(FLAGS, {}))
        return (flags, env_settings, init_settings)

    @field_validator("engines", "embedding_engines")
    @classmethod
    def _are_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not ADDRESS.fullmatch(url):
                raise ValueError(f"{url!r} is no engine's address; write one such as http://gpu-1:8000")
        return urls

    @field_validator("engine_key")
    @classmethod
    def _fits_a_header(cls, key: str | None) -> str | None:
        """Keys that come out of files often end with a newline, which would end the header too."""
        key = key.strip() if key else None
        if key and not _HEADER_VALUE.fullmatch(key):
            raise ValueError("the key must be of printable ASCII characters, as an HTTP header is")
        return key

    @model_validator(mode="after")
    def _all_gateways_know_before_they_settle(self) -> Self:
        gateway = self.gateway
        if 0 < gateway.settle_s < 2 * gateway.routing_poll_s:
            raise ValueError(
                f"gateway.settle_s is {gateway.settle_s:g} and must be 0 or at least twice gateway.routing_poll_s, "
                f"{gateway.routing_poll_s:g}, so that every gateway has read of a flip by then"
            )
        return self

    @model_validator(mode="after")
    def _engines_hold_what_is_trained(self) -> Self:
        if self.retrain.rank > self.engine.max_lora_rank:
            raise ValueError(
                f"retrain.rank is {self.retrain.rank} and engines serve at most engine.max_lora_rank, "
                f"{self.engine.max_lora_rank}; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _judges_are_not_this_service(self) -> Self:
        """What a judge is asked must not be captured, let alone trained on."""
        own = {f"{host}:{self.server.port}" for host in (self.server.host, "127.0.0.1", "localhost", "[::1]")}
        for name, alias in self.aliases.items():
            if alias.judge is not None and alias.judge.url.split("//")[1].split("/")[0] in own:
                raise ValueError(
                    f"aliases.{name}.judge.url is this service, which would capture what the judge is asked; "
                    "name another one, or an engine itself"
                )
        return self

    @property
    def store_url(self) -> str:
        return self.store.url or f"sqlite+aiosqlite:///{self.state_dir / 'trimtab.db'}"

    @property
    def blobs_url(self) -> str:
        return self.blobs.url or (self.state_dir / "adapters").absolute().as_uri()

    @property
    def engine_urls(self) -> tuple[str, ...]:
        return tuple(url.rstrip("/") for url in self.engines) or (f"http://127.0.0.1:{self.engine.port}",)

    @property
    def scratch_dir(self) -> Path:
        return self.state_dir / "scratch"

    def alias(self, name: str) -> AliasSettings:
        return self.aliases.get(name, AliasSettings())

    def slices(self, alias: str) -> Slices:
        found = self.aliases.get(alias)
        return self.drift.slices if found is None or found.slices is None else found.slices

    def slice_keys(self, alias: str) -> frozenset[str]:
        """The keys of requests' metadata that are kept."""
        return frozenset(one.partition("=")[0] for one in self.slices(alias))
