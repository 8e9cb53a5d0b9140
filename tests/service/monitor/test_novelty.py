"""Several signs of a new topic in one number: what counts, what is unknown, and how far one sign can carry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from service.monitor.novelty import CONFIDENCE, DOUBT, EMBEDDING, FRAGMENTS, WORDING, WORDS, Novelty

Signs = dict[str, NDArray[np.float64]]


def signs(n: int, seed: int = 0) -> Signs:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=n) for name in (CONFIDENCE, EMBEDDING, FRAGMENTS, WORDS)}


def one(**values: float) -> Signs:
    usual = {CONFIDENCE: 0.0, EMBEDDING: 0.0, FRAGMENTS: 0.0, WORDS: 0.0}
    return {name: np.asarray([value]) for name, value in {**usual, **values}.items()}


def test_every_sign_that_has_a_weight_makes_a_request_look_newer_and_no_other() -> None:
    novelty = Novelty(signs(500))
    usual = novelty.of(one(), DOUBT, inside=False)
    for name in DOUBT:
        assert novelty.of(one(**{name: 3.0}), DOUBT, inside=False) > usual
    assert novelty.of(one(**{EMBEDDING: 3.0}), WORDING, inside=False) == novelty.of(one(), WORDING, inside=False)


def test_the_evidence_of_words_counts_as_it_is_up_to_three_more_than_usual() -> None:
    novelty = Novelty(signs(500))

    def said(words: float) -> float:
        return float(novelty.of(one(**{WORDS: words}), {WORDS: 0.5}, inside=False)[0])

    assert said(2.0) - said(1.0) == pytest.approx(0.5)
    usual = float(np.quantile(signs(500)[WORDS], 0.9))
    assert said(1000.0) == said(50.0) == pytest.approx(0.5 * (usual + 3 * math.log(16)))


def test_a_request_stranger_than_all_has_the_logarithm_of_one_in_so_many() -> None:
    novelty = Novelty(signs(499))
    assert novelty.of(one(**{CONFIDENCE: 99.0}), {CONFIDENCE: 1.0}, inside=False) == pytest.approx(math.log(500))


def test_the_reference_is_measured_as_others_are() -> None:
    told = signs(500)
    novelty = Novelty(told)
    own, other = novelty.of(told, DOUBT, inside=True), novelty.of(signs(20_000, seed=1), DOUBT, inside=False)
    assert np.quantile(own, 0.9) == pytest.approx(np.quantile(other, 0.9), abs=0.15)
    assert own.mean() == pytest.approx(other.mean(), abs=0.1)


def test_what_is_unknown_is_unknown_and_a_sign_that_the_reference_lacks_is_left_out() -> None:
    assert np.isnan(Novelty(signs(500)).of(one(**{CONFIDENCE: math.nan}), DOUBT, inside=False)).all()
    without = Novelty({name: column for name, column in signs(500).items() if name != CONFIDENCE})
    assert np.isfinite(without.of(one(**{CONFIDENCE: math.nan}), DOUBT, inside=False)).all()
    assert np.isnan(Novelty({}).of(one(), DOUBT, inside=False)).all()
