"""Bands that hold 80% of new outcomes, however few were seen."""

from __future__ import annotations

import numpy as np
import pytest

from siren.planning.bands import ORDERED, band_of, chance_of


@pytest.mark.parametrize("count", [3, 5, 8, ORDERED, 12, 40])
def test_a_band_holds_80_per_cent_of_new_outcomes(count):
    rng = np.random.default_rng(count)
    samples = np.exp(0.3 * rng.standard_normal((3000, count + 1)))
    held = [band_of(row[:-1]).holds(row[-1]) for row in samples]
    assert np.mean(held) == pytest.approx(0.8, abs=0.025)


def test_percentiles_of_few_outcomes_hold_too_little_which_is_why_they_are_not_used():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((3000, 11))
    low, high = np.quantile(samples[:, :-1], (0.1, 0.9), axis=1)
    held = np.mean((low <= samples[:, -1]) & (samples[:, -1] <= high))
    assert held == pytest.approx(0.65, abs=0.03)


def test_nothing_is_claimed_of_one_outcome_or_none():
    assert band_of([]) is None
    band = band_of([2.0])
    assert (band.mean, band.low, band.high) == (2.0, None, None)
    assert not band.holds(2.0)


def test_equal_outcomes_make_a_band_of_no_width():
    assert band_of([2.0] * 4).holds(2.0)
    assert not band_of([2.0] * 12).holds(2.1)


def test_runs_that_cost_nothing_have_a_band_as_well():
    band = band_of([0.0, 0.0, 0.3])
    assert band.low == 0.0
    assert band.high > 0.3


def test_a_chance_is_never_quite_certain():
    assert chance_of(0, 5).mean == pytest.approx(0.5 / 6)
    sure = chance_of(40, 40)
    assert sure.low < sure.mean < 1
    assert chance_of(5, 10).mean == 0.5
