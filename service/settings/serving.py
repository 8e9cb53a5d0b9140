"""How requests are taken, answered, captured and mirrored, and where all state is kept."""

from __future__ import annotations

from pydantic import Field

from service.settings.group import Group, Ratio, Seconds


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
        description="requests a second, of one gateway, whose log-probabilities are asked of the engine (an "
        "eighth of many at a time); 0: none",
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


class RetentionSettings(Group):
    """How long traffic stays in the store: requests with their replies, feedback and shadow replies."""

    max_age_days: float | None = Field(None, gt=0, description="None: whatever its age")
    max_requests: int | None = Field(10_000_000, ge=1_000, description="of an alias; the oldest go; None: no limit")
    every_s: Seconds = Field(60.0, description="between two looks")
