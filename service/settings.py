"""Settings, read once: trimtab.yaml < TRIMTAB_SECTION__KEY < flags. An unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from service.core.errors import ConfigError
from service.core.freeze import parse_freeze
from service.core.guards import Guard
from service.core.names import check_alias
from service.core.season import Season

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]

CONFIG_FILE = Path("trimtab.yaml")
_ADDRESS = re.compile(r"https?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[1-9]\d{0,4})?(/[\x21-\x7e]*)?")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]+")
_FLAGS = "\0flags"
"""Under this key, which no YAML can hold, flags travel to the sources."""


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScorerKind(StrEnum):
    EXACT = "exact"
    CLASSIFICATION = "classification"
    JSON = "json"
    REGEX = "regex"
    ROUGE_L = "rouge_l"
    CHRF = "chrf"
    BLEU = "bleu"


_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Recipe(StrEnum):
    SFT_LORA = "sft_lora"
    DPO_LORA = "dpo_lora"
    KTO_LORA = "kto_lora"


class WarmStart(StrEnum):
    """Whose weights a training begins with."""

    FRESH = "fresh"
    CHAMPION = "champion"
    BOTH = "both"


class Quantize(StrEnum):
    """How the base model's weights are held while an adapter is trained over it."""

    NONE = "none"
    EIGHT = "8bit"
    FOUR = "4bit"


class Augment(StrEnum):
    TYPOS = "typos"
    CASING = "casing"
    TEMPLATES = "templates"


class PromotionMode(StrEnum):
    AUTO = "auto"
    APPROVE = "approve"
    MANUAL = "manual"


class ServerSettings(Group):
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=1, le=65535)
    controller_metrics_port: int = Field(9101, ge=0, le=65535, description="0: no metrics server")
    require_keys: bool | None = Field(None, description="None: only on a non-loopback host")
    drain_s: Seconds = 30.0

    @property
    def is_loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @property
    def keys_required(self) -> bool:
        return not self.is_loopback if self.require_keys is None else self.require_keys


class EngineSettings(Group):
    """How `trimtab engine` starts vLLM; unused where `engines` names running ones."""

    port: int = Field(8001, ge=1, le=65535)
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$")
    dtype: str = Field(
        "auto", description="of a CPU engine: bfloat16, or float32 where the processor has no AVX-512 to do it fast"
    )
    max_model_len: int | None = Field(None, ge=16)
    max_num_seqs: int = Field(64, ge=1, description="requests in a batch; of running engines: as they were started")
    max_loras: int = Field(4, ge=1, description="adapters in a batch; of running engines: as they were started")
    max_lora_rank: int = 16
    kv_cache_gib: float = Field(1.0, gt=0, description="CPU engine only")
    gpu_memory_utilization: Ratio = 0.9
    enforce_eager: bool = True
    start_timeout_s: Seconds = 300.0
    stop_timeout_s: Seconds = 15.0
    extra_args: tuple[str, ...] = ()


class StoreSettings(Group):
    url: str | None = Field(None, description="None: SQLite in the state folder; or postgresql+psycopg://…")


class BlobSettings(Group):
    url: str | None = Field(None, description="None: a folder in the state folder; or s3://, gs://, az:// …")


class GatewaySettings(Group):
    max_body_bytes: int = Field(2 * 2**20, ge=1024)
    max_in_flight: int = Field(256, ge=1, description="requests at the engines at once, per alias")
    max_queue: int = Field(512, ge=0, description="requests waiting, per alias")
    max_tokens: int = Field(8192, ge=1)
    deadline_s: Seconds = 300.0
    head_timeout_s: Seconds = Field(10.0, description="for a request's head to arrive")
    body_timeout_s: Seconds = Field(15.0, description="for a body to arrive, and 1 s more for each 8 KiB of it")
    stall_timeout_s: Seconds = Field(30.0, description="a client that takes nothing of its reply is cut off")
    connect_timeout_s: Seconds = 2.0
    routing_poll_s: Seconds = 0.2
    settle_s: float = Field(
        0.0, ge=0, le=10, description="with several gateways: they all follow a flip so long after it, at one moment"
    )
    keys_poll_s: Seconds = 2.0
    probe_s: Seconds = Field(1.0, description="between two looks at an engine's /health")


class CaptureSettings(Group):
    enabled: bool = True
    content: bool = Field(True, description="False: keep metadata only; drift and retraining then see no text")
    fsync_interval_s: Seconds = 0.05
    ship_interval_s: Seconds = 0.5
    segment_bytes: int = Field(8 * 2**20, ge=4096)
    spool_bytes: int = Field(512 * 2**20, ge=4096)
    confidence_per_s: float = Field(
        10.0, ge=0, le=1e6,
        description="requests a second, of one gateway, whose log-probabilities are asked of the engine; 0: none",
    )  # fmt: skip


class MirrorSettings(Group):
    ratio: Ratio = Field(0.5, description="share of an alias's requests that its candidate answers in shadow")
    alarm_ratio: Ratio = Field(1.0, description="the share instead, in cycles that drift or an alert has opened")
    max_in_flight: int = Field(4, ge=1, description="shadows at an engine at once")
    max_queue: int = Field(64, ge=0, description="shadows waiting for a lull; more are shed")
    max_live_ratio: Ratio = Field(
        0.125,
        description="of engine.max_num_seqs: with more client requests no shadow begins, with twice as many all yield",
    )
    token_ratio: float = Field(1.0, ge=0, description="tokens that shadows may use for each token of clients'")
    deadline_s: Seconds = Field(30.0, description="that a shadow may wait, and then that it may run")


class ReferenceMode(StrEnum):
    PROMOTION = "promotion"
    PINNED = "pinned"
    ROLLING = "rolling"


Slices = tuple[Annotated[str, Field(pattern=r"^[^=\s][^=]*(=.*)?$")], ...]
"""Each a key of the requests' metadata, for every value of it, or `key=value` for that one."""


class PresetSettings(Group):
    """An Evidently preset; a name alone stands for one without options."""

    name: str = Field(min_length=1)
    options: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class DescriptorSettings(PresetSettings):
    """An Evidently descriptor of prompts or of replies; a name alone stands for one of prompts without options."""

    of: str = Field("prompt", pattern="^(prompt|reply)$")


class DriftSettings(Group):
    """Windows are counted in requests; see docs/drift.md."""

    enabled: bool = True
    interval_s: Seconds = 5.0
    reference_size: int = Field(500, ge=20)
    current_size: int = Field(200, ge=10)
    min_labelled: int = Field(20, ge=1, description="labelled requests a window needs before quality is judged")
    false_alarm_every: int = Field(10_000, ge=100, description="requests between false alarms, all detectors together")
    false_alarm_days: float | None = Field(
        None, gt=0, description="days between false alarms, in place of false_alarm_every: by the last day's traffic"
    )
    season: Season = Field(Season.NONE, description="compare by time of `day` or of the `week` only")
    quality_drop: Ratio = Field(0.05, description="a loss of quality smaller than this never triggers retraining")
    require_quality_loss: bool = True
    embedder: str | None = Field(
        None, description="None: the base model's own; or an ONNX folder, or an OpenAI-style URL"
    )
    embedder_model: str | None = Field(None, description="of an embeddings URL: the model's name there")
    threads: int = Field(1, ge=1)
    keep_reports: int = Field(50, ge=1)
    reference: ReferenceMode = Field(
        ReferenceMode.PROMOTION, description="where the reference begins: at the last promotion, where it was pinned, "
        "or at newer traffic whenever enough of it was free of drift"
    )  # fmt: skip
    slices: Slices = Field((), description="keys of requests' metadata, or key=value, that are judged alone too")
    descriptors: tuple[DescriptorSettings, ...] = Field(
        (), description="Evidently descriptors by name, or module:name, that are watched as features too"
    )
    presets: tuple[PresetSettings, ...] = Field(
        (), description="Evidently presets by name, or module:name, that reports hold too"
    )


class RetrainSettings(Group):
    launcher: str = Field("subprocess", pattern="^(subprocess|kubernetes)$")
    namespace: str | None = None
    job_template: Path | None = Field(None, description="Kubernetes Job manifest (YAML) that jobs are made from")
    recipe: Recipe = Field(
        Recipe.SFT_LORA, description="what is learned: targets, preferences (corrected replies), or thumbs"
    )
    warm_start: WarmStart = Field(
        WarmStart.FRESH, description="both: from the champion's adapter, then fresh if time is left; the better is kept"
    )
    quantize: Quantize = Field(
        Quantize.NONE, description="4bit (NF4) or 8bit: the base model in training; needs a GPU and bitsandbytes"
    )
    every_s: Seconds | None = Field(None, description="a cycle so long after the last one, whatever drift says")
    every_labels: int | None = Field(None, ge=1, description="a cycle after so many newly labelled requests")
    max_cycles_per_day: int = Field(24, ge=1, description="of an alias; people may open more")
    max_jobs: int = Field(1, ge=1, description="at a time, of all aliases; further cycles wait for their turn")
    min_examples: int = Field(40, ge=4)
    min_new_examples: int = Field(200, ge=1, description="labelled requests since the drift that training waits for")
    max_wait_s: Seconds = Field(3600.0, description="after this long, training starts with what there is")
    max_examples: int = Field(2000, ge=4)
    replay_ratio: Ratio = Field(0.5, description="share of the training set that comes from the reference")
    max_source_ratio: Ratio = Field(0.5, description="share of the training set that one user or key may make up")
    max_key_ratio: Ratio = Field(1.0, description="share of the training set that requests with one key may make up")
    check_labels: bool = Field(True, description="leave out what looks planted; probe for triggers")
    task_temperature: float = Field(
        1.0, ge=1.0, le=100.0, description="tasks (system prompts) are drawn by size ** (1 / this); 1: as they come"
    )
    augment: tuple[Augment, ...] = Field((), description="training rows in other wordings too, one each")
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: Ratio = Field(0.0, description="of the LoRA's inputs; costs a quarter of a CPU's step")
    learning_rate: float | None = Field(None, gt=0, description="None: 1 / the base model's hidden size")
    epochs: float = Field(8.0, gt=0)
    batch_size: int = Field(16, ge=1)
    max_seconds: Seconds = 90.0
    search_s: float = Field(0.0, ge=0, description="for trials of learning rate, rank and dropout before; 0: none")
    patience: int = Field(3, ge=1, description="evaluations without a better held-out result before training stops")
    holdout_ratio: Ratio = 0.2
    served_rows: int = Field(48, ge=0, description="rows that the candidate answers through the engines too; 0: none")
    served_tolerance: Ratio = Field(
        0.1, description="how far its scores there may differ from those in PyTorch, on average over the rows"
    )
    served_wait_s: Seconds = Field(120.0, description="for all engines to load the candidate")
    checkpoint_s: Seconds = Field(15.0, description="at most so much of a training is lost to a kill")
    seed: int = 0
    threads: int | None = Field(
        None, ge=1, description="None: half of the cores, or all of them where the job is Kubernetes' own"
    )
    nice: int = Field(19, ge=0, le=19, description="19: runs only when nothing else on the machine wants to")
    processes: int = Field(
        1, ge=1, description="on this machine, that share each step's rows; a launcher's WORLD_SIZE comes first"
    )
    spin: int = Field(
        0,
        ge=0,
        description="turns that a thread waits busily: 20000 is up to 2x as fast on cores that are training's own",
    )
    heartbeat_s: Seconds = 1.0
    stale_after_s: Seconds = 30.0
    start_timeout_s: Seconds = Field(900.0, description="a job that nobody began by then has failed")
    max_attempts: int = Field(2, ge=1)
    mlflow_url: str | None = Field(None, description="an MLflow server that finished jobs are recorded in too")

    @field_validator("mlflow_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not _ADDRESS.fullmatch(url):
            raise ValueError(f"{url!r} is no address; write one such as http://mlflow:5000")
        return url

    @model_validator(mode="after")
    def _recipe_knows_its_options(self) -> Self:
        of_targets = {"search_s": self.search_s > 0, "augment": bool(self.augment),
                      "task_temperature": self.task_temperature != 1.0}  # fmt: skip
        given = " and ".join(name for name, asked in of_targets.items() if asked)
        if given and self.recipe is not Recipe.SFT_LORA:
            raise ValueError(
                f"{given} is for recipe sft_lora, not for {self.recipe}; leave it out, or choose that recipe"
            )
        if self.search_s and self.warm_start is not WarmStart.FRESH:
            raise ValueError(
                f"search_s looks for a rank, and warm_start {self.warm_start} keeps the champion's; set only one"
            )
        return self


class RetentionSettings(Group):
    """How long traffic stays in the store: requests with their replies, feedback and shadow replies."""

    max_age_days: float | None = Field(None, gt=0, description="None: whatever its age")
    max_requests: int | None = Field(10_000_000, ge=1_000, description="of an alias; the oldest go; None: no limit")
    every_s: Seconds = Field(60.0, description="between two looks")


class PromotionSettings(Group):
    """The evidence a candidate needs; see docs/promotion.md."""

    mode: PromotionMode = PromotionMode.AUTO
    alpha: float = Field(0.05, gt=0, lt=1, description="chance of promoting a candidate that is not better")
    min_pairs: int = Field(30, ge=1)
    max_pairs: int = Field(2000, ge=1)
    max_shadow_s: Seconds = 3600.0
    golden_margin: Ratio = Field(0.03, description="how much worse than the champion the golden set may become")
    indifference: float = Field(
        0.02, ge=0, lt=1, description="a gain that is not worth a promotion; what is proven to bring less is rejected"
    )
    webhook: str | None = Field(
        None,
        pattern="^https?://",
        description="is told by POST when a candidate waits for a person (mode approve, manual)",
    )
    canary: tuple[float, ...] = Field(
        (), description="shares of the clients that the candidate answers, one after another, before all of them do"
    )
    canary_step_s: Seconds = 300.0
    canary_min_labelled: int = Field(30, ge=1, description="labelled replies of the candidate that a step needs")
    watch_s: Seconds = 300.0
    watch_min_labelled: int = Field(30, ge=1)
    watch_mirror_ratio: Ratio = Field(
        0.1, description="share of requests that the previous champion answers in shadow while the new one is watched"
    )
    watch_margin: Ratio = Field(0.1, description="how far the new champion may stay behind its own score in shadow")
    cooldown_s: Seconds = Field(300.0, description="after a cycle ends, before drift may open the next")
    max_failures: int = Field(3, ge=1)
    freezes: tuple[str, ...] = Field(
        (), description="times (UTC) without promotions: 'Fri 16:00-Mon 08:00', or '22:00-06:00' for each day"
    )
    warm: bool = True

    @field_validator("canary")
    @classmethod
    def _grow(cls, canary: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0.0 < share < 1.0 for share in canary) or list(canary) != sorted(set(canary)):
            raise ValueError(f"{list(canary)} are no growing shares between 0 and 1; write [0.05, 0.25, 0.5], or []")
        return canary

    @field_validator("freezes")
    @classmethod
    def _are_times(cls, freezes: tuple[str, ...]) -> tuple[str, ...]:
        for freeze in freezes:
            parse_freeze(freeze)
        return freezes


class ControllerSettings(Group):
    interval_s: Seconds = 0.5
    lease_s: Seconds = 5.0
    quality_window: int = Field(100, ge=1, description="labelled requests behind the served-quality metric")


class JudgeSettings(Group):
    """A model that compares the replies of champion and candidate; its traffic goes to `url` alone."""

    url: str = Field(description="base of an OpenAI-style API, such as https://api.example.com/v1")
    model: str = Field(min_length=1)
    instructions: str = Field("Which reply answers the request better?", min_length=1, max_length=4000)
    max_rows: int = Field(60, ge=1, description="held-out rows that are compared, each in both orders")
    timeout_s: Seconds = 30.0
    concurrency: int = Field(4, ge=1, le=64)
    margin: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="how much more often than not it may prefer the champion; None: it decides nothing",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not _ADDRESS.fullmatch(url):
            raise ValueError(f"{url!r} is no address; write one such as https://api.example.com/v1")
        return url.rstrip("/")


class AliasSettings(Group):
    scorer: str = Field(ScorerKind.EXACT.value, description="a kind, or package.module:function")
    pattern: str | None = Field(None, description="regex scorer: the pattern that a right reply matches in full")
    golden_set: Path | None = Field(None, description="JSONL of {messages, expected}")
    champion: str | None = Field(None, description="an adapter's name to start from; None: the base model")
    slices: Slices | None = Field(None, description="instead of drift.slices")
    guards: Mapping[Guard, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="what no candidate may make worse by more than this margin"
    )

    judge: JudgeSettings | None = Field(None, description="a model that compares replies where no scorer can")

    @field_validator("scorer")
    @classmethod
    def _is_known(cls, scorer: str) -> str:
        if scorer not in set(ScorerKind) and not _IMPORT_PATH.fullmatch(scorer):
            kinds = ", ".join(f"'{kind}'" for kind in ScorerKind)
            raise ValueError(f"{scorer!r} is no scorer; use one of {kinds}, or your own as package.module:function")
        return scorer

    @model_validator(mode="after")
    def _pattern_is_usable(self) -> Self:
        if self.scorer == ScorerKind.REGEX and self.pattern is None:
            raise ValueError("the regex scorer needs a pattern that right replies match")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"the pattern is not a regular expression ({error})") from error
        return self


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
        flags = InitSettingsSource(settings_cls, file.pop(_FLAGS, {}))
        return (flags, env_settings, init_settings)

    @field_validator("engines", "embedding_engines")
    @classmethod
    def _are_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _ADDRESS.fullmatch(url):
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


def load_settings(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the file (default `trimtab.yaml` where there is one), then the environment, then `overrides` (flags).

    Raises:
        ConfigError: one line that names the file, the key and the remedy.
    """
    source = path or CONFIG_FILE
    data = _read(source, must_exist=path is not None)
    try:
        settings = Settings(**{**data, _FLAGS: dict(overrides or {})})
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
