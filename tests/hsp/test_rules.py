"""Update rules as plain numerics."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from siren.hsp import rules

FLOATS = st.floats(-1e6, 1e6, width=32)
VECTORS = hnp.arrays(np.float32, 7, elements=FLOATS)


@given(st.floats(1e-6, 10), st.floats(1e-3, 1e3))
def test_an_update_that_is_not_stale_keeps_its_rate(rate, scale):
    assert rules.damped_rate(rate, 0, scale) == rate


@given(st.floats(1e-6, 10), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_the_rate_falls_with_staleness_and_is_half_at_the_scale(rate, staleness, scale):
    assert rules.damped_rate(rate, staleness + 1, scale) < rules.damped_rate(rate, staleness, scale)
    assert np.isclose(rules.damped_rate(rate, scale, scale), rate / 2)


def test_the_rate_is_damped_alike_for_numbers_and_arrays():
    staleness = np.arange(50)
    rates = rules.damped_rate(0.1, staleness, 20.0)
    assert rates.tolist() == [rules.damped_rate(0.1, s, 20.0) for s in staleness.tolist()]


@given(VECTORS, VECTORS, st.floats(0, 10))
def test_a_step_is_taken_in_float32(base, gradient, rate):
    wanted = base - np.float32(rate) * gradient
    out = np.empty_like(base)
    rules.step(base, gradient.copy(), rate, out)
    np.testing.assert_array_equal(out, wanted)
    inside = base.copy()
    rules.step(inside, gradient.copy(), rate, inside)
    np.testing.assert_array_equal(inside, wanted)


@given(VECTORS, st.integers(1, 10**6))
def test_the_mean_of_one_vector_is_that_vector_bit_for_bit(vector, weight):
    np.testing.assert_array_equal(rules.weighted_mean([vector], [weight]), vector)


@given(st.lists(st.tuples(VECTORS, st.integers(1, 1000)), min_size=1, max_size=6))
def test_the_mean_is_weighted_and_lies_between_its_vectors(pairs):
    vectors, weights = [v for v, _ in pairs], [float(w) for _, w in pairs]
    mean = rules.weighted_mean(vectors, weights)
    wanted = np.average(np.array(vectors, np.float64), axis=0, weights=weights)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, wanted, rtol=1e-6, atol=1e-30)
    stacked = np.array(vectors)
    assert (mean >= stacked.min(axis=0) - 1e-6 * np.abs(stacked).max()).all()
    assert (mean <= stacked.max(axis=0) + 1e-6 * np.abs(stacked).max()).all()
