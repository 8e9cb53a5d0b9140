"""From samples of interleaved rounds to rows of the table."""

from __future__ import annotations

import pytest

from benchmarks.gateway import streaming, unary
from benchmarks.gateway.capture import share
from benchmarks.gateway.peers.tensorzero import EMBEDDED
from benchmarks.gateway.plan import turns
from benchmarks.gateway.table import OURS


def test_every_arm_takes_part_once_a_round_and_the_first_one_changes() -> None:
    assert list(turns(["a", "b", "c"], 3)) == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_added_latency_is_against_the_direct_one_of_the_same_round() -> None:
    samples = {
        "direct": [unary.Sample(p50, 2 * p50, 9000, 0, 0) for p50 in (0.1, 0.5, 0.2)],
        OURS: [unary.Sample(p50, 2 * p50, 3000, 300, 0) for p50 in (0.4, 0.8, 0.6)],
        EMBEDDED: [unary.Sample(p50, 2 * p50, rate, 200, 0) for p50, rate in ((0.3, 2000), (0.7, 2500), (0.4, 9000))],
    }
    rows = {row.what: row for row in unary.rows(samples, "direct")}
    added = rows["unary, 1 connection: added latency p50"]
    assert added.ours == pytest.approx(0.3)
    assert added.others == {EMBEDDED: pytest.approx(0.2)}
    assert rows[f"unary, 32 connections: of {EMBEDDED}"].ours == pytest.approx(3000 / 2500)
    assert rows["unary, 32 connections: requests"].others == {"direct": 9000, EMBEDDED: 2500}


def test_without_tensorzero_there_is_no_row_against_it() -> None:
    samples = {name: [unary.Sample(1, 1, 1, 1, 0)] for name in ("direct", OURS)}
    assert not [row for row in unary.rows(samples, "direct") if EMBEDDED in row.what]


def test_an_arm_that_cannot_carry_the_streams_is_named_and_its_gap_is_not_compared() -> None:
    paced = {
        "direct": [streaming.Paced(gap, 0, 1.0, streaming.STREAMS) for gap in (20.5, 21.0, 20.6)],
        OURS: [streaming.Paced(gap, 10, 0.995, streaming.STREAMS) for gap in (21.0, 21.4, 21.2)],
        "LiteLLM": [streaming.Paced(5.0, 900, 0.1, 200)],
    }
    gap, cpu = streaming.paced_rows(paced, "direct")
    assert gap.ours == pytest.approx(0.5)
    assert gap.others == {"LiteLLM": "10% of the chunks came"}
    assert cpu.others == {"LiteLLM": 900}
    told = streaming.notes(paced, {})
    assert [note for note in told if note.startswith("LiteLLM: 200 of 256 streams began in time, 10%")]
    assert not [note for note in told if note.startswith(OURS)]


def test_saturated_streams_are_compared_with_all_but_the_engine_has_no_cpu_time_of_its_own() -> None:
    saturated = {name: [streaming.Saturated(rate, 9, 0)] for name, rate in (("direct", 90), (OURS, 30), ("nginx", 60))}
    chunks, cpu = streaming.saturated_rows(saturated, "direct")
    assert (chunks.ours, chunks.others) == (30, {"direct": 90, "nginx": 60})
    assert cpu.others == {"nginx": 9}


def test_a_share_is_the_median_of_the_rounds_own_ratios() -> None:
    assert share([90, 100, 10], [100, 100, 100]) == pytest.approx(0.9)
