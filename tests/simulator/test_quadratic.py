import math

import numpy as np
import pytest

from siren.simulator import quadratic
from siren.simulator.quadratic import MODES, Quadratic, delayed, responses, shuffled, stability_limit
from siren.types import UpdateRule

MODEL = Quadratic(rate=0.05, spectrum=1.0, energy=1.0, noise=0.3, excess=0.5, reference_batch=10.0)


def maps(model, rule, functions, pushes=120, batch=10.0, delay=None):
    n = np.atleast_1d(np.asarray(functions, float))
    delay = n - 1 if delay is None else np.broadcast_to(float(delay), n.shape)
    return responses(model, rule, n, np.full(len(n), pushes), np.full(len(n), batch), delay)


def simulate(rates, pushes, delay, scale, noise):
    """Delayed SGD written out; `noise` is (pushes, modes)."""
    history = [np.ones(len(rates))]
    for t in range(pushes):
        stale = min(t, delay)
        read = history[t - stale]
        history.append(history[-1] - rates / (1 + stale / scale) * (read + noise[t]))
    return history[-1]


@pytest.mark.parametrize("delay", [0, 1, 5, 30])
@pytest.mark.parametrize("scale", [math.inf, 4.0])
def test_response_and_impulse_power_are_those_of_explicit_delayed_sgd(delay, scale):
    rates, pushes = np.array([0.3, 0.05, 0.01]), 40
    gain, power = delayed(rates, pushes, delay, scale)
    silence = np.zeros((pushes, 3))
    np.testing.assert_allclose(gain, simulate(rates, pushes, delay, scale, silence), rtol=1e-10)
    squares = np.zeros(3)
    for t in range(pushes):
        noise = silence.copy()
        noise[t] = 1.0
        squares += (simulate(rates, pushes, delay, scale, noise) - gain) ** 2
    np.testing.assert_allclose(power, squares, rtol=1e-9)


@pytest.mark.parametrize("rule", list(UpdateRule))
def test_one_function_is_plain_sgd_on_a_quadratic_to_rounding(rule):
    one = maps(MODEL, rule, 1)
    h, pushes = MODEL.rates, 120
    np.testing.assert_allclose(one.gain[0], (1 - h) ** pushes, rtol=1e-12, atol=1e-15)
    power = h**2 * (1 - (1 - h) ** (2 * pushes)) / (1 - (1 - h) ** 2)
    np.testing.assert_allclose(one.spread[0], np.sqrt(power * MODEL.noise / 10.0), rtol=1e-12)


def test_additive_below_the_cliff_does_not_depend_on_n():
    slow = Quadratic(rate=1e-4, spectrum=0.5, energy=1.0, noise=0.3, excess=0.5, reference_batch=10.0)
    table = maps(slow, UpdateRule.ADDITIVE, [1, 4, 16, 64], pushes=2000)
    np.testing.assert_allclose(table.gain, np.tile(table.gain[0], (4, 1)), rtol=0.01)
    np.testing.assert_allclose(table.spread, np.tile(table.spread[0], (4, 1)), rtol=0.01)


@pytest.mark.parametrize("delay", [0, 1, 3, 10, 50])
def test_the_cliff_lies_at_the_stability_bound_of_delayed_gradient_descent(delay):
    limit = stability_limit(delay)
    pushes = 400 * (delay + 1)
    below, above = (abs(delayed(np.array([limit * f]), pushes, delay, math.inf)[0][0]) for f in (0.95, 1.05))
    assert below < 0.1
    assert above > 10
    if delay >= 10:
        assert limit == pytest.approx(math.pi / 2 / (delay + 0.5), rel=0.01)


def test_random_delays_have_the_response_that_their_mean_demands():
    rates, pushes, delay = np.array([0.02]), 30, 3.0
    gain, power = shuffled(rates, pushes, delay)
    probability = (1 / (1 + delay)) * (delay / (1 + delay)) ** np.arange(pushes + 1)
    values = [1.0]
    for t in range(pushes):
        seen = sum(probability[k] * values[t - k] for k in range(t + 1))
        seen += (1 - probability[: t + 1].sum()) * values[0]
        values.append(values[-1] - rates[0] * seen)
    assert gain[0] == pytest.approx(values[-1], rel=1e-12)
    assert 0 < power[0] <= pushes * rates[0] ** 2


def test_random_delays_bear_larger_rates_than_fixed_ones():
    rates = np.array([1.5 * stability_limit(20)])
    assert abs(delayed(rates, 2000, 20, math.inf)[0][0]) > 1e3
    assert abs(shuffled(rates, 2000, 20.0)[0][0]) < 1e-3


def test_overwrite_keeps_one_chain_of_the_pushes():
    chain = maps(MODEL, UpdateRule.OVERWRITE, 10)
    alone = maps(MODEL, UpdateRule.ADDITIVE, 1, pushes=12)
    np.testing.assert_array_equal(chain.gain, alone.gain)
    np.testing.assert_array_equal(chain.spread, alone.spread)


def test_averaging_divides_the_noise_of_one_chain_by_the_functions():
    mean = maps(MODEL, UpdateRule.AVERAGE, 10)
    chain = maps(MODEL, UpdateRule.ADDITIVE, 1, pushes=12)
    np.testing.assert_allclose(mean.gain, chain.gain)
    np.testing.assert_allclose(mean.spread, chain.spread / math.sqrt(10))


def steps_and_samples(batch, rate, target):
    """Optimal-rate SGD on an isotropic quadratic in the regime where noise and signal both count."""
    model = Quadratic(rate=rate, spectrum=0.0, energy=0.0, noise=1.0, excess=1.0, reference_batch=1.0)
    table = maps(model, UpdateRule.SYNC, batch, pushes=int(batch), batch=1.0)
    excess = quadratic.mean_excess(model, table, 1)[0]
    return excess[0] - excess[1] if target is None else excess


@pytest.mark.parametrize("functions", [1, 2, 8, 32, 128])
def test_synchronous_steps_and_samples_trade_as_mccandlish_says(functions):
    # One step at the best rate lowers the loss by dL_max / (1 + B_noise / B) (McCandlish et al. 2018,
    # equation 2.6), hence S = S_min (1 + B_noise / B) and E = E_min (1 + B / B_noise). On an isotropic
    # quadratic a step is exact: the best h is E / (E + s2 / (n b) modes / 2), B_noise = modes s2 / (2 E).
    noise_batch = MODES / 2.0

    def best_drop(n):
        return steps_and_samples(n, 1 / (1 + noise_batch / n), None)

    drop, largest = best_drop(functions), best_drop(10**9)
    steps = 1 / drop
    least_steps = 1 / largest
    samples = functions / drop
    least_samples = noise_batch / largest
    product = (steps / least_steps - 1) * (samples / least_samples - 1)
    assert product == pytest.approx(1.0, rel=1e-6)


def test_synchronous_steps_average_the_gradients_of_all_functions():
    table = maps(MODEL, UpdateRule.SYNC, 10)
    larger = maps(MODEL, UpdateRule.ADDITIVE, 1, pushes=12, batch=100.0)
    np.testing.assert_allclose(table.gain, larger.gain)
    np.testing.assert_allclose(table.spread, larger.spread)


def test_mean_excess_is_the_mean_of_sampled_epochs():
    table = maps(MODEL, UpdateRule.ADDITIVE, 8)
    expected = quadratic.mean_excess(MODEL, table, 3)[0]
    rng, runs = np.random.default_rng(0), 4000
    sampled = np.zeros(4)
    for _ in range(runs):
        u = MODEL.amplitudes.copy()
        sampled[0] += 0.5 * (u @ u)
        for t in range(1, 4):
            sampled[t] += quadratic.advance(u, table.gain[0], table.spread[0], 100.0, rng)
    np.testing.assert_allclose(sampled / runs, expected, rtol=0.05)


def test_the_predicted_floor_is_the_stationary_excess_at_small_rates():
    slow = Quadratic(rate=0.01, spectrum=0.3, energy=1.0, noise=0.3, excess=0.5, reference_batch=10.0)
    table = maps(slow, UpdateRule.ADDITIVE, 1, pushes=2000)
    assert quadratic.mean_excess(slow, table, 40)[0, -1] == pytest.approx(table.floor[0], rel=0.02)


def test_all_functions_in_flight_delay_by_all_others():
    np.testing.assert_allclose(
        quadratic.mean_delay(np.array([1.0, 10.0, 500.0]), np.full(3, 1e6), 600.0),
        [0.0, 9.0, 499.0],
        rtol=1e-4,
    )


def test_functions_that_end_before_the_next_starts_do_not_delay_each_other():
    assert quadratic.mean_delay(np.array([100.0]), np.array([1e-4]), 600.0)[0] == 0.0


def test_mean_delay_is_the_pairwise_overlap():
    n, work, fan_out = 40, 0.05, 600.0
    starts = np.arange(n) / fan_out
    overlap = np.maximum(0.0, 1 - np.abs(starts[:, None] - starts) / work)
    expected = (overlap.sum() - n) / n
    assert quadratic.mean_delay(np.array([n]), np.array([work]), fan_out)[0] == pytest.approx(expected)
