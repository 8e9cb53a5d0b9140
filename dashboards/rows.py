"""What the dashboard shows, subject by subject: each panel tells what to look at and where to go next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.panels import BLUE, GREEN, GREY, RED, YELLOW, Query, Steps, chart, number, timeline
from dashboards.promql import ALIAS, CYCLE_STATES, VERDICTS, code, increase, led, or_zero, quantile, rate

_QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
_UP_IS_GOOD = Steps(RED, ((1, GREEN),))
_ANY_IS_BAD = Steps(GREEN, ((1, RED),))
_VERDICT_NAMES = {
    0: ("no verdict yet", GREY),
    **{n: (name.lower(), color) for n, (name, color) in enumerate(zip(VERDICTS, (GREEN, YELLOW, RED), strict=True), 1)},
}
_CYCLE_COLORS = (BLUE, "purple", "purple", "orange", "orange", YELLOW, "light-blue")
_CYCLE_NAMES = {
    0: ("no open cycle", GREY),
    **{n: (state, color) for n, (state, color) in enumerate(zip(CYCLE_STATES, _CYCLE_COLORS, strict=True), 1)},
}


def rows() -> Mapping[str, Sequence[Any]]:
    """Every row's title and panels, top to bottom."""
    return {
        "At a glance": _glance(),
        "Traffic": _traffic(),
        "Latency": _latency(),
        "Errors": _errors(),
        "Quality and confidence": _quality(),
        "Drift": _drift(),
        "Cycle: training, shadow, promotion": _cycle(),
        "Capture and mirror": _capture(),
        "Engines and controller": _engines(),
    }


def _error_ratio(by: str) -> str:
    bad = rate("trimtab_requests_total", by, where=f'{ALIAS}, code=~"5.."')
    every = rate("trimtab_requests_total", by)
    return f"({bad} or 0 * {every}) / ({every} > 0) or 0 * {every}"


def _quantiles(histogram: str) -> list[Query]:
    return [Query(quantile(q, histogram), f"{{{{alias}}}} {name}") for q, name in _QUANTILES]


def _glance() -> Sequence[Any]:
    requests = f"sum(rate(trimtab_requests_total{{{ALIAS}}}[$__rate_interval]))"
    return [
        number(
            "Requests per second", "All client requests of the chosen aliases.",
            "reqps", Query(requests, ""), Steps(BLUE),
        ),
        number(
            "Errors", "Share of requests that ended in a 5xx. Above 0.5% the error budget burns: see the row Errors.",
            "percentunit", Query(f"max({_error_ratio('alias')})", ""), Steps(GREEN, ((0.005, YELLOW), (0.05, RED))),
        ),
        number(
            "First token, p95", "The slowest alias's time to first token. High with a full queue: add engines.",
            "s", Query(f"max({quantile(0.95, 'trimtab_time_to_first_token_seconds')} >= 0) or vector(0)", ""),
            Steps(GREEN, ((1, YELLOW), (2.5, RED))),
        ),
        number(
            "Quality",
            "Mean score of the newest labelled replies, the worst alias. A fall with drift is what retraining answers.",
            "percentunit", Query(f"min({led('trimtab_served_quality_ratio', 'alias')})", ""),
            Steps(RED, ((0.6, YELLOW), (0.8, GREEN))),
        ),
        number(
            "Drift", "The highest detector's score over its threshold. Above 1 it alarms.",
            "none", Query(f"max({led('trimtab_drift_score_ratio', 'alias', 'detector')})", ""),
            Steps(GREEN, ((0.8, YELLOW), (1, RED))), decimals=2,
        ),
        number(
            "Ready engines", "Zero: no request can be served. See the runbook, TrimtabNoReadyEngine.",
            "none", Query("sum(max by (engine) (trimtab_engine_up))", ""), _UP_IS_GOOD,
        ),
        number(
            "Latched aliases",
            "Aliases whose loop stopped after too many failures: a person must look at their last cycles.",
            "none", Query(f"sum({led('trimtab_alias_latched', 'alias')})", ""), _ANY_IS_BAD,
        ),
        number(
            "Champion", "The adapter that each alias serves now.",
            "none",
            Query(led("trimtab_champion_info", "alias", "adapter") + " == 1", "{{alias}} → {{adapter}}"), Steps(BLUE),
            by_name=True,
        ),
    ]  # fmt: skip


def _traffic() -> Sequence[Any]:
    return [
        chart(
            "Requests by alias and outcome",
            "Client requests by HTTP status. 429 is shed load, 4xx the apps' own, 5xx ours.",
            "reqps", [Query(rate("trimtab_requests_total", "alias", "code"), "{{alias}} {{code}}")], stacked=True,
        ),
        chart(
            "Requests by adapter", "Who answered. After a promotion the new adapter takes over within a second.",
            "reqps",
            [Query(rate("trimtab_requests_total", "alias", "adapter"), "{{alias}}: {{adapter}}")], stacked=True,
        ),
        chart(
            "Tokens", "Prompt tokens read and tokens generated, per second. The engines' real work.",
            "short",
            [
                Query(rate("trimtab_prompt_tokens_total", "alias"), "{{alias}} prompt"),
                Query(rate("trimtab_completion_tokens_total", "alias"), "{{alias}} generated"),
            ],
        ),
        chart(
            "In flight and queued",
            "Requests at the engines and waiting for a place. A queue that stays: the engines are the limit.",
            "none",
            [
                Query(f"sum by (alias) (trimtab_requests_in_flight{{{ALIAS}}})", "{{alias}} in flight"),
                Query(f"sum by (alias) (trimtab_requests_queued{{{ALIAS}}})", "{{alias}} queued"),
            ],
        ),
        chart(
            "Shed requests",
            "Refused at once, by reason. Anything but zero: clients are being told to come back later.",
            "reqps",
            [Query(or_zero(rate("trimtab_requests_shed_total", "alias", "reason"), "alias"), "{{alias}} {{reason}}")],
        ),
        chart(
            "Feedback",
            "Ratings and targets from users. Without them quality cannot be judged and nothing is promoted.",
            "reqps", [Query(or_zero(rate("trimtab_feedback_total", "kind", where="")), "{{kind}}")],
        ),
    ]  # fmt: skip


def _latency() -> Sequence[Any]:
    return [
        chart(
            "Time to first token",
            "What a person waits before anything appears. The objective: 99% within 2.5 s (dashed).",
            "s", _quantiles("trimtab_time_to_first_token_seconds"), limit=2.5,
        ),
        chart(
            "Inter-token latency",
            "The mean gap between a reply's tokens. It grows with the batch: compare with In flight.",
            "s", _quantiles("trimtab_inter_token_latency_seconds"),
        ),
        chart(
            "End to end",
            "From the request's first byte to the reply's last. Long replies are long: compare with Tokens.",
            "s", _quantiles("trimtab_request_duration_seconds"),
        ),
    ]  # fmt: skip


def _errors() -> Sequence[Any]:
    client = rate("trimtab_requests_total", "alias", "code", where=f'{ALIAS}, code=~"4.."')
    server = rate("trimtab_requests_total", "alias", "code", where=f'{ALIAS}, code=~"5.."')
    return [
        chart(
            "Error ratio", "Share of requests that ended in a 5xx. The objective allows 0.5% (dashed).",
            "percentunit", [Query(_error_ratio("alias"), "{{alias}}")], limit=0.005,
        ),
        chart(
            "Server errors",
            "502: an engine answered wrongly; 503: no ready engine or a full queue; 504: the deadline passed.",
            "reqps", [Query(or_zero(server, "alias"), "{{alias}} {{code}}")],
        ),
        chart(
            "Client errors",
            "400: a request out of bounds; 401, 403: keys; 404: an alias that does not exist; 429: too much at once.",
            "reqps", [Query(or_zero(client, "alias"), "{{alias}} {{code}}")],
        ),
    ]  # fmt: skip


def _quality() -> Sequence[Any]:
    total, count = "trimtab_reply_confidence_ratio_sum", "trimtab_reply_confidence_ratio_count"
    mean = f"{rate(total, 'alias', 'adapter')} / {rate(count, 'alias', 'adapter')}"
    return [
        chart(
            "Served quality",
            "Mean score of the newest labelled replies, and what the model's confidence lets expect without labels.",
            "percentunit",
            [
                Query(led("trimtab_served_quality_ratio", "alias"), "{{alias}}"),
                Query(led("trimtab_estimated_quality_ratio", "alias"), "{{alias}} estimated"),
            ],
            ceiling=1,
        ),
        chart(
            "Labelled replies behind it",
            "Too few, and quality says little; feedback may have stopped: see Traffic, Feedback.",
            "none", [Query(led("trimtab_served_quality_samples", "alias"), "{{alias}}")],
        ),
        chart(
            "Confidence of replies",
            "Geometric mean probability of a reply's tokens, no labels needed: it falls first when traffic is new.",
            "percentunit",
            [
                Query(mean, "{{alias}}: {{adapter}} mean"),
                Query(quantile(0.1, "trimtab_reply_confidence_ratio"), "{{alias}} p10"),
            ],
            ceiling=1,
        ),
    ]  # fmt: skip


def _drift() -> Sequence[Any]:
    return [
        chart(
            "Drift scores over threshold",
            "Each detector's score divided by its threshold: above 1 (dashed) it alarms.",
            "none", [Query(led("trimtab_drift_score_ratio", "alias", "detector"), "{{alias}} {{detector}}")], limit=1,
        ),
        timeline(
            "Verdict",
            "What the windows mean together. Drifted for long without a cycle: see TrimtabDriftWithoutCycle.",
            Query(code("trimtab_drift_verdict", "verdict", VERDICTS), "{{alias}}"), _VERDICT_NAMES, width=8,
        ),
        chart(
            "Verdicts given", "None for long: the monitor has stopped, or traffic has.",
            "none", [Query(increase("trimtab_drift_checks_total", "alias", "verdict", window="$__rate_interval"),
                           "{{alias}} {{verdict}}")],
            stacked=True,
        ),
    ]  # fmt: skip


def _cycle() -> Sequence[Any]:
    return [
        timeline(
            "Open cycle", "Where the running improvement attempt stands. One colour for hours: see TrimtabCycleStuck.",
            Query(code("trimtab_cycle_state", "state", CYCLE_STATES), "{{alias}}"), _CYCLE_NAMES,
        ),
        timeline(
            "Champion over time", "Which adapter served when. A band that ends is a promotion or a rollback.",
            Query(led("trimtab_champion_info", "alias", "adapter"), "{{alias}} → {{adapter}}"), {1: ("serves", GREEN)},
        ),
        chart(
            "Job progress", "Of the running retraining job. Flat for minutes: its process is gone or starved.",
            "percentunit", [Query(led("trimtab_job_progress_ratio", "alias"), "{{alias}}")], ceiling=1,
        ),
        chart(
            "Training loss",
            "Of the running job; empty between jobs. Held out should fall, too; else early stopping ends it.",
            "none",
            [
                Query(led("trimtab_job_loss", "alias"), "{{alias}}"),
                Query(led("trimtab_job_heldout_loss", "alias"), "{{alias}} held out"),
            ],
        ),
        chart(
            "Training speed", "Tokens a second that the running job learns from. It falls when others take its cores.",
            "short", [Query(led("trimtab_job_tokens_per_second", "alias"), "{{alias}}")],
        ),
        chart(
            "Training left", "Until the running job's training is expected to end; its evaluation follows.",
            "s", [Query(led("trimtab_job_remaining_seconds", "alias"), "{{alias}}")],
        ),
        chart(
            "Shadow evidence over what promotion needs", "Reaches 1 (dashed) when the candidate is proven better.",
            "none", [Query(led("trimtab_shadow_evidence_ratio", "alias"), "{{alias}}")], limit=1,
        ),
        chart(
            "Labelled shadow pairs",
            "Requests that champion and candidate both answered and a user judged. Flat: no feedback.",
            "none", [Query(led("trimtab_shadow_pairs", "alias"), "{{alias}}")],
        ),
        chart(
            "Promotions and rollbacks", "Counted over the chosen range.",
            "none",
            [
                Query(increase("trimtab_promotions_total", "alias"), "{{alias}} promotions"),
                Query(increase("trimtab_rollbacks_total", "alias"), "{{alias}} rollbacks"),
            ],
        ),
        chart(
            "Cycles ended", "By outcome, over the chosen range. Failed ones in a row latch the alias.",
            "none", [Query(increase("trimtab_cycles_total", "alias", "outcome"), "{{alias}} {{outcome}}")],
        ),
    ]  # fmt: skip


def _capture() -> Sequence[Any]:
    ran = f'{ALIAS}, outcome=~"sent|failed|yielded"'
    return [
        chart(
            "Records shipped and lost",
            "Lost records are lost to drift and training, never to clients. Lost: see TrimtabCaptureDropped.",
            "cps",
            [
                Query("sum(rate(trimtab_captures_shipped_total[$__rate_interval]))", "shipped"),
                Query(or_zero(rate("trimtab_captures_dropped_total", "reason", where="")), "lost: {{reason}}"),
                Query("sum(rate(trimtab_traffic_expired_total[$__rate_interval]))", "expired by retention"),
            ],
            width=6,
        ),
        chart(
            "Capture spool", "Bytes waiting for the store. It grows while the store is away.",
            "bytes", [Query("sum by (instance) (trimtab_capture_spool_bytes)", "{{instance}}")], width=6,
        ),
        chart(
            "Shadow requests",
            "What became of the requests offered to the candidate. Yielded to clients (and tried again) and shed are "
            "healthy under load, failed is not.",
            "reqps",
            [Query(or_zero(rate("trimtab_mirror_requests_total", "alias", "outcome", where=ran), "alias"),
                   "{{alias}} {{outcome}}"),
             Query(or_zero(rate("trimtab_mirror_shed_total", "alias", "reason", where=ALIAS), "alias"),
                   "{{alias}} shed: {{reason}}")],
            width=6, stacked=True,
        ),
        chart(
            "Age of the routing table",
            "Since each gateway last confirmed it. It grows when the store is away; serving goes on.",
            "s", [Query("max by (instance) (trimtab_routing_table_age_seconds)", "{{instance}}")], width=6, limit=30,
        ),
    ]  # fmt: skip


def _engines() -> Sequence[Any]:
    return [
        timeline(
            "Engines", "Ready or not, as the gateways see them.",
            Query("max by (engine) (trimtab_engine_up)", "{{engine}}"), {0: ("down", RED), 1: ("ready", GREEN)},
            width=8,
        ),
        chart(
            "Resident adapters",
            "Verified on each engine. Engines that differ for long: see TrimtabEngineLacksAdapters.",
            "none", [Query("max by (engine) (trimtab_engine_adapters and on (instance) trimtab_controller_leader == 1)",
                           "{{engine}}")],
        ),
        timeline(
            "Controller leader", "Exactly one controller leads. None: the loop stands still, serving goes on.",
            Query("max by (instance) (trimtab_controller_leader)", "{{instance}}"),
            {0: ("follows", GREY), 1: ("leads", GREEN)}, width=8,
        ),
        chart(
            "Reconciliations", "By outcome. Failures in a row: read the controller's log.",
            "ops", [Query("sum by (outcome) (rate(trimtab_controller_ticks_total[$__rate_interval]))", "{{outcome}}")],
            width=12, stacked=True,
        ),
        chart(
            "Duration of a reconciliation", "Long ones delay promotions and rollbacks; the store or an engine is slow.",
            "s",
            [
                Query(
                    f"histogram_quantile({q:g}, "
                    "sum by (le) (rate(trimtab_controller_tick_seconds_bucket[$__rate_interval])))", name,
                )
                for q, name in _QUANTILES
            ],
            width=12,
        ),
    ]  # fmt: skip
