"""For every alert, input series on which it fires and series on which it stays silent. One sample a minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]
"""Series → promtool's notation of its samples, such as `0+60x120` (from 0, 60 more each minute, 120 times)."""

LEADER = {'trimtab_controller_leader{instance="c"}': "1x1560"}
_ALL = 'trimtab_requests_total{alias="a",adapter="base",code="200",instance="g"}'
_BAD = 'trimtab_requests_total{alias="a",adapter="base",code="502",instance="g"}'
_FAST = 'trimtab_time_to_first_token_seconds_bucket{alias="a",adapter="base",le="2.5",instance="g"}'
_COUNT = 'trimtab_time_to_first_token_seconds_count{alias="a",adapter="base",instance="g"}'
_QUALITY = 'trimtab_served_quality_ratio{alias="a",instance="c"}'
_SAMPLES = 'trimtab_served_quality_samples{alias="a",instance="c"}'
_DRIFTED = 'trimtab_drift_verdict{alias="a",verdict="DRIFTED",instance="c"}'
_TRAINING = 'trimtab_cycle_state{alias="a",state="training",instance="c"}'
_PROGRESS = 'trimtab_job_progress_ratio{alias="a",instance="c"}'
_TICKS_OK = 'trimtab_controller_ticks_total{outcome="ok",instance="c"}'
_TICKS_BAD = 'trimtab_controller_ticks_total{outcome="failed",instance="c"}'


@dataclass(frozen=True, slots=True)
class Case:
    """`labels` are those that the alert carries beside `severity`; `summary` is how it reads when it fires."""

    alert: str
    fires: Series
    silent: Series
    at_min: int
    summary: str
    severity: str = "ticket"
    labels: Mapping[str, str] = field(default_factory=dict)


def _engine(name: str) -> str:
    return f'trimtab_engine_up{{engine="{name}",instance="g"}}'


def _held(name: str) -> str:
    return f'trimtab_engine_adapters{{engine="{name}",instance="c"}}'


_A = {"alias": "a"}
_G = {"instance": "g"}

CASES = (
    Case(
        "TrimtabErrorBudgetBurnFast", {_ALL: "0+90x90", _BAD: "0+10x90"}, {_ALL: "0+97x90", _BAD: "0+3x90"}, 80,
        "a: 10% of requests fail", "page", _A,
    ),
    Case(
        "TrimtabErrorBudgetBurnSlow", {_ALL: "0+95x420", _BAD: "0+5x420"}, {_ALL: "0+98x420", _BAD: "0+2x420"}, 400,
        "a: 5% of requests have failed for hours", labels=_A,
    ),
    Case(
        "TrimtabLatencyBudgetBurnFast", {_FAST: "0+75x90", _COUNT: "0+100x90"},
        {_FAST: "0+95x90", _COUNT: "0+100x90"}, 80,
        "a: 25% of first tokens take longer than 2.5 s", "page", _A,
    ),
    Case(
        "TrimtabLatencyBudgetBurnSlow", {_FAST: "0+90x420", _COUNT: "0+100x420"},
        {_FAST: "0+96x420", _COUNT: "0+100x420"}, 400,
        "a: 10% of first tokens have been slow for hours", labels=_A,
    ),
    Case(
        "TrimtabGatewayMissing", {'up{instance="g"}': "0x10"},
        {'trimtab_routing_table_age_seconds{instance="g"}': "0x10"}, 5,
        "No gateway reports metrics", "page",
    ),
    Case(
        "TrimtabNoReadyEngine", {_engine("e0"): "0x10", _engine("e1"): "0x10"},
        {_engine("e0"): "0x10", _engine("e1"): "1x10"}, 5, "No engine is ready", "page",
    ),
    Case(
        "TrimtabEngineDown", {_engine("e0"): "0x20", _engine("e1"): "1x20"}, {_engine("e0"): "0x3 1x17"}, 10,
        "The engine e0 is down", labels={"engine": "e0"},
    ),
    Case(
        "TrimtabRoutingStale", {'trimtab_routing_table_age_seconds{instance="g"}': "0+60x20"},
        {'trimtab_routing_table_age_seconds{instance="g"}': "0.2x20"}, 10,
        "g serves by a routing table 10m 0s old", "page", _G,
    ),
    Case(
        "TrimtabRequestsShed", {_ALL: "0+100x30", 'trimtab_requests_shed_total{alias="a",reason="queue"}': "0+10x30"},
        {_ALL: "0+100x30", 'trimtab_requests_shed_total{alias="a",reason="queue"}': "0+1x30"}, 20,
        "a: 10% of requests are shed", labels=_A,
    ),
    Case(
        "TrimtabCaptureDropped", {'trimtab_captures_dropped_total{reason="spool_full",instance="g"}': "0x5 7x10"},
        {'trimtab_captures_dropped_total{reason="spool_full",instance="g"}': "7x20"}, 10,
        "g loses capture records: spool_full", labels={"instance": "g", "reason": "spool_full"},
    ),
    Case(
        "TrimtabCaptureSpoolGrowing", {'trimtab_capture_spool_bytes{instance="g"}': "0+10485760x30"},
        {'trimtab_capture_spool_bytes{instance="g"}': "300000000-10000000x30"}, 20,
        "g holds 200MiB of records that it cannot ship", labels=_G,
    ),
    Case(
        "TrimtabMirrorFailing",
        {
            'trimtab_mirror_requests_total{alias="a",outcome="sent"}': "0+60x40",
            'trimtab_mirror_requests_total{alias="a",outcome="failed"}': "0+40x40",
        },
        {
            'trimtab_mirror_requests_total{alias="a",outcome="sent"}': "0+60x40",
            'trimtab_mirror_requests_total{alias="a",outcome="shed"}': "0+40x40",
        },
        30, "a: 40% of shadow requests fail", labels=_A,
    ),
    Case(
        "TrimtabQualityLow", {**LEADER, _QUALITY: "0.9x1440 0.6x120", _SAMPLES: "100x1560"},
        {**LEADER, _QUALITY: "0.9x1440 0.6x120", _SAMPLES: "5x1560"}, 1490,
        "a: quality is down to 60%", labels=_A,
    ),
    Case(
        "TrimtabDriftWithoutCycle", {**LEADER, _DRIFTED: "1x60", _TRAINING: "0x60"},
        {**LEADER, _DRIFTED: "1x60", _TRAINING: "1x60"}, 45, "a drifts and nothing answers", labels=_A,
    ),
    Case(
        "TrimtabAliasLatched", {**LEADER, 'trimtab_alias_latched{alias="a",instance="c"}': "1x10"},
        {**LEADER, 'trimtab_alias_latched{alias="a",instance="follower"}': "1x10"}, 5, "a is latched", labels=_A,
    ),
    Case(
        "TrimtabCycleStuck", {**LEADER, _TRAINING: "1x150"}, {**LEADER, _TRAINING: "1x60 0x1 1x89"}, 140,
        "a: the cycle has been training for two hours", labels={"alias": "a", "state": "training"},
    ),
    Case(
        "TrimtabJobStalled", {**LEADER, _TRAINING: "1x60", _PROGRESS: "0.4x60"},
        {**LEADER, _TRAINING: "1x60", _PROGRESS: "0+0.01x60"}, 40,
        "a: the retraining job has made no progress for 15 minutes", labels=_A,
    ),
    Case(
        "TrimtabCyclesFailing",
        {'trimtab_cycles_total{alias="a",outcome="failed",instance="c"}': "0x30 1x30 3x300"},
        {'trimtab_cycles_total{alias="a",outcome="rejected",instance="c"}': "0x30 1x30 3x300"}, 300,
        "a: 3 cycles failed within six hours", labels=_A,
    ),
    Case(
        "TrimtabRolledBack", {'trimtab_rollbacks_total{alias="a",instance="c"}': "0x10 1x20"},
        {'trimtab_rollbacks_total{alias="a",instance="c"}': "1x30"}, 15, "a was rolled back", labels=_A,
    ),
    Case(
        "TrimtabNoControllerLeader", {'trimtab_controller_leader{instance="c"}': "0x10"},
        {'trimtab_controller_leader{instance="c"}': "0x10", 'trimtab_controller_leader{instance="d"}': "1x10"}, 5,
        "No controller leads",
    ),
    Case(
        "TrimtabTwoControllerLeaders",
        {'trimtab_controller_leader{instance="c"}': "1x10", 'trimtab_controller_leader{instance="d"}': "1x10"},
        {'trimtab_controller_leader{instance="c"}': "1x10", 'trimtab_controller_leader{instance="d"}': "0x10"}, 5,
        "2 controllers say that they lead",
    ),
    Case(
        "TrimtabControllerFailing", {_TICKS_OK: "0+20x30", _TICKS_BAD: "0+80x30"},
        {_TICKS_OK: "0+80x30", _TICKS_BAD: "0+20x30"}, 20, "c: 80% of reconciliations fail", labels={"instance": "c"},
    ),
    Case(
        "TrimtabEngineLacksAdapters", {**LEADER, _held("e0"): "1x30", _held("e1"): "3x30"},
        {**LEADER, _held("e0"): "3x30", _held("e1"): "3x30"}, 20,
        "e0 holds 1 adapters, fewer than another engine", labels={"engine": "e0"},
    ),
)  # fmt: skip
