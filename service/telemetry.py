"""Every Prometheus metric of Trimtab, declared once. Label values come from the registry, never from clients."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class GatewayMetrics:
    """The data plane's: traffic, errors, latency, capture, mirror."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_adapter = ("alias", "adapter")
        self.requests = Counter(
            "trimtab_requests", "Client requests by outcome.", ("alias", "adapter", "code"), registry=registry
        )
        self.duration = Histogram(
            "trimtab_request_duration_seconds",
            "From the request's first byte to the reply's last.",
            by_adapter,
            buckets=LATENCY_S,
            registry=registry,
        )
        self.ttft = Histogram(
            "trimtab_time_to_first_token_seconds",
            "From the request's first byte to the reply's first token.",
            by_adapter,
            buckets=LATENCY_S,
            registry=registry,
        )
        self.inter_token = Histogram(
            "trimtab_inter_token_latency_seconds",
            "Mean gap between the tokens of a reply.",
            by_adapter,
            buckets=GAP_S,
            registry=registry,
        )
        self.prompt_tokens = Counter("trimtab_prompt_tokens", "Prompt tokens.", by_adapter, registry=registry)
        self.completion_tokens = Counter(
            "trimtab_completion_tokens", "Generated tokens.", by_adapter, registry=registry
        )
        self.confidence = Histogram(
            "trimtab_reply_confidence_ratio",
            "Geometric mean probability of a reply's tokens.",
            by_adapter,
            buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
            registry=registry,
        )
        self.in_flight = Gauge("trimtab_requests_in_flight", "Requests at the engines.", ("alias",), registry=registry)
        self.queued = Gauge("trimtab_requests_queued", "Requests waiting for a place.", ("alias",), registry=registry)
        self.shed = Counter(
            "trimtab_requests_shed", "Requests refused at once.", ("alias", "reason"), registry=registry
        )
        self.feedback = Counter("trimtab_feedback", "Feedback received.", ("kind",), registry=registry)
        self.captures = Counter("trimtab_captures_shipped", "Records shipped to the store.", registry=registry)
        self.captures_dropped = Counter(
            "trimtab_captures_dropped", "Records lost, by reason.", ("reason",), registry=registry
        )
        self.spool_bytes = Gauge("trimtab_capture_spool_bytes", "Bytes waiting to be shipped.", registry=registry)
        self.mirror_requests = Counter(
            "trimtab_mirror_requests", "Shadow requests by outcome.", ("alias", "outcome"), registry=registry
        )
        self.mirror_shed = Counter(
            "trimtab_mirror_shed", "Shadow requests that never ran.", ("alias", "reason"), registry=registry
        )
        self.engine_up = Gauge("trimtab_engine_up", "1 while the engine is ready.", ("engine",), registry=registry)
        self.routing_age = Gauge(
            "trimtab_routing_table_age_seconds", "Since the routing table was last confirmed.", registry=registry
        )


class ControllerMetrics:
    """The control plane's: quality, drift, cycles, promotions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.quality = Gauge(
            "trimtab_served_quality_ratio", "Mean score of the newest labelled replies.", ("alias",), registry=registry
        )
        self.quality_labelled = Gauge(
            "trimtab_served_quality_samples",
            "Labelled replies behind the served quality.",
            ("alias",),
            registry=registry,
        )
        self.drift_score = Gauge(
            "trimtab_drift_score_ratio",
            "A detector's score over its threshold; above 1 it alarms.",
            ("alias", "detector"),
            registry=registry,
        )
        self.estimated_quality = Gauge(
            "trimtab_estimated_quality_ratio",
            "Mean score of the newest replies as the model's confidence lets expect; NaN where it says too little.",
            ("alias",),
            registry=registry,
        )
        self.drift_verdict = Gauge(
            "trimtab_drift_verdict", "1 for the verdict in force.", ("alias", "verdict"), registry=registry
        )
        self.drift_checks = Counter("trimtab_drift_checks", "Verdicts given.", ("alias", "verdict"), registry=registry)
        self.cycle_state = Gauge(
            "trimtab_cycle_state", "1 for the state of the alias's open cycle.", ("alias", "state"), registry=registry
        )
        self.cycles = Counter("trimtab_cycles", "Cycles ended, by outcome.", ("alias", "outcome"), registry=registry)
        self.promotions = Counter("trimtab_promotions", "Promotions.", ("alias",), registry=registry)
        self.rollbacks = Counter("trimtab_rollbacks", "Rollbacks.", ("alias",), registry=registry)
        self.champion = Gauge(
            "trimtab_champion_info", "1 for the adapter that serves.", ("alias", "adapter"), registry=registry
        )
        self.latched = Gauge(
            "trimtab_alias_latched", "1 after too many failures: a person must look.", ("alias",), registry=registry
        )
        self.shadow_pairs = Gauge(
            "trimtab_shadow_pairs", "Labelled pairs of the running comparison.", ("alias",), registry=registry
        )
        self.shadow_evidence = Gauge(
            "trimtab_shadow_evidence_ratio",
            "Evidence that the candidate is better over what promotion needs.",
            ("alias",),
            registry=registry,
        )
        self.job_progress = Gauge(
            "trimtab_job_progress_ratio", "Progress of the running job.", ("alias",), registry=registry
        )
        self.job_loss = Gauge("trimtab_job_loss", "Training loss of the running job.", ("alias",), registry=registry)
        self.job_heldout_loss = Gauge(
            "trimtab_job_heldout_loss", "Held-out loss of the running job.", ("alias",), registry=registry
        )
        self.job_speed = Gauge(
            "trimtab_job_tokens_per_second", "Tokens that the running job learns from.", ("alias",), registry=registry
        )
        self.job_left = Gauge(
            "trimtab_job_remaining_seconds", "Until the running job's training ends.", ("alias",), registry=registry
        )
        self.resident = Gauge(
            "trimtab_engine_adapters", "Adapters verified as resident.", ("engine",), registry=registry
        )
        self.expired = Counter(
            "trimtab_traffic_expired", "Requests that retention deleted from the store.", registry=registry
        )
        self.is_leader = Gauge("trimtab_controller_leader", "1 while this controller leads.", registry=registry)
        self.ticks = Counter("trimtab_controller_ticks", "Reconciliations.", ("outcome",), registry=registry)
        self.tick_seconds = Histogram(
            "trimtab_controller_tick_seconds", "Duration of a reconciliation.", buckets=LATENCY_S, registry=registry
        )
