import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from siren.errors import UsageError
from siren.simulator import core
from siren.simulator.bound import bound_of, lower_bound, relax
from siren.simulator.core import Col, End
from siren.simulator.quadratic import MODES
from siren.simulator.search import Arena, best_fixed
from siren.simulator.tables import Cell, Fact, pool_of


@pytest.fixture(scope="module")
def bounds(jobs):
    return [lower_bound(job) for job in jobs[:3]]


def expectation(function, nodes=1501, span=8.0):
    """E f(x) of a standard normal x."""
    x = np.linspace(-span, span, nodes)
    weights = np.exp(-x * x / 2)
    return (function(x) * weights).sum() / weights.sum()


def test_the_potential_is_not_positive_at_the_target(jobs, bounds, rng):
    for job, bound in zip(jobs, bounds, strict=False):
        target = relax(pool_of([job])).target
        shares = rng.dirichlet(np.full(MODES, 0.3), 500) * target * rng.uniform(0, 1, (500, 1)) ** 0.1
        assert (bound.potential(shares) <= 1e-6 * bound.seconds).all()
        assert bound.potential(np.full(MODES, target / MODES)) <= 1e-6 * bound.seconds


@pytest.mark.parametrize("index", range(3))
def test_no_epoch_lowers_the_potential_by_more_than_it_costs(jobs, bounds, index, rng):
    """With exact quadrature, at random energies and at those that a local search makes the worst."""
    relaxed, bound = relax(pool_of([jobs[index]])), bounds[index]
    weights, knots = bound.potential.weights, bound.potential.knots
    cost = relaxed.duration_s[0] + bound.dollar_s * relaxed.usd[0]

    def one(i, energy):
        logs = np.log1p(energy[:, None] / knots[i])
        return ((logs[:, :-1] - logs[:, 1:]) * weights[i]).sum(axis=1)

    def fall(i, row, energy):
        mean = relaxed.gain[row, i] * math.sqrt(2 * energy)

        def after(x):
            u = np.clip(mean + relaxed.spread[row, i] * x, -relaxed.limit, relaxed.limit)
            return one(i, u * u / 2)

        return one(i, np.array([energy]))[0] - expectation(after)

    for row in rng.choice(len(relaxed.gain), 4, replace=False):
        total = 0.0
        for i in range(MODES):
            energies = np.exp(rng.uniform(np.log(relaxed.target / 30), np.log(30), 25))
            falls = [fall(i, row, e) for e in energies]
            best = energies[int(np.argmax(falls))]
            total += max(*falls, *(fall(i, row, best * f) for f in (0.85, 0.93, 1.07, 1.15)), 0.0)
        assert total <= cost[relaxed.row == row].min()


def restricted(job, places, noise):
    """The tables of a job that has these actions alone, and noise only where it is wanted."""
    pool = pool_of([job])
    keep = np.zeros(pool.cells.shape[1:3], bool)
    for place in places:
        keep[place] = True
    pool.cells[0, ~keep, Cell.RESERVE_USD] = np.inf
    pool.cells[..., Cell.SPREAD_S] = pool.cells[..., Cell.SPREAD_USD] = 0.0
    if not noise:
        pool.noise[:] = 0.0
    return pool


def shortest(pool, places, epochs):
    """The least time of all sequences of so many epochs, played by the simulator itself."""
    best, rng = np.inf, np.random.default_rng(0)
    state = core.new_state(1)
    for sequence in itertools.product(places, repeat=epochs):
        core.begin(pool, state, 0, 0)
        for place in sequence:
            ran = core.take(pool, state, 0, *place)
            if ran:
                core.simulate(pool, state, 0, rng)
            core.settle(pool, state, 0, ran, False)
            if state.values[0, Col.END] > 0:
                break
        if state.values[0, Col.END] == End.TARGET:
            best = min(best, state.values[0, Col.ELAPSED_S])
    return best


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    index=st.integers(0, 11),
    draws=st.lists(st.floats(0, 0.999), min_size=6, max_size=6),
    epochs=st.integers(2, 6),
    budget=st.floats(1.05, 3.0),
)
def test_exhaustive_search_never_beats_the_bound(jobs, index, draws, epochs, budget):
    job = jobs[index]
    allowed = np.argwhere(Arena(job).grid.allowed)
    picks = {tuple(map(int, allowed[int(x * len(allowed))])) for x in draws[:3]}
    pool = restricted(job, picks, noise=False)
    # A target that so many epochs of one of them reach, and a budget of so many times that run's bill.
    place = sorted(picks)[0]
    energy = (pool.gain[0, place[0]] ** epochs * pool.start[0]) ** 2 / 2
    hypothesis.assume(energy.sum() < 0.9)
    pool.facts[0, Fact.TARGET] = pool.facts[0, Fact.LOWEST] + 1.0001 * energy.sum()
    cell = pool.cells[0][place]
    cost = epochs * float(cell[Cell.MARGINAL_USD + 2]) + float(cell[Cell.RESERVE_USD])
    standing = pool.facts[0, Fact.SETUP_USD] + 2 * pool.facts[0, Fact.CACHE_USD_PER_H]
    pool.facts[0, Fact.BUDGET] = budget * cost + standing
    exact = shortest(pool, sorted(picks), 6)
    bound = bound_of(pool, epochs * float(cell[Cell.DURATION_S]))
    assert 0 <= bound.seconds <= exact * (1 + 1e-9)  # equal where one epoch is enough


def test_the_bound_of_a_noiseless_fixed_action_is_close(jobs):
    """One action, no noise: what is lost is the last epoch's share beyond the target, and the bands."""
    place = best_fixed(jobs[0], range(4)).schedule.first
    pool = restricted(jobs[0], [place], noise=False)
    state = core.new_state(1)
    core.begin(pool, state, 0, 0)
    while state.values[0, Col.END] == 0:
        core.take(pool, state, 0, *place)
        core.simulate(pool, state, 0, np.random.default_rng(0))
        core.settle(pool, state, 0, True, False)
    elapsed_s, epochs = state.values[0, Col.ELAPSED_S], state.values[0, Col.EPOCH]
    bound = bound_of(pool, elapsed_s)
    assert 0.95 * (epochs - 1) / epochs * elapsed_s * 0.95 <= bound.seconds <= elapsed_s


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_the_best_feedback_policy_of_one_noisy_mode_does_not_beat_the_bound(jobs, noise):
    """Value iteration over the single mode that has energy: the optimum over all closed-loop policies."""
    pool = restricted(jobs[0], [(2, 3), (8, 3), (14, 3)], noise=False)
    pool.start[0, 1:] = 0.0
    pool.start[0, 0] = math.sqrt(2.0)
    gains, spreads = np.array([0.85, 0.7, 0.5]), noise * np.array([0.2, 0.5, 1.0])
    for level, gain, spread in zip((2, 8, 14), gains, spreads, strict=True):
        pool.gain[0, level, 0], pool.noise[0, level, 0] = gain, spread
    target = 0.01
    pool.facts[0, Fact.TARGET] = pool.facts[0, Fact.LOWEST] + target
    pool.facts[0, Fact.BUDGET] = 1e6
    relaxed = relax(pool)
    u = np.linspace(0, 2.0, 1201)
    outside = u > math.sqrt(2 * target)
    value, x = np.zeros(len(u)), np.linspace(-5, 5, 81)
    weights = np.exp(-x * x / 2)
    weights /= weights.sum()
    after = [np.abs(g * u[:, None] + s * x) for g, s in zip(gains, spreads, strict=True)]
    for _ in range(200):
        options = [
            t + np.interp(a, u, value) @ weights for t, a in zip(relaxed.duration_s[0], after, strict=True)
        ]
        updated = np.where(outside, np.min(options, axis=0), 0.0)
        if np.abs(updated - value).max() < 1e-9 * updated.max():
            break
        value = updated
    optimum = float(np.interp(math.sqrt(2.0), u, value))
    extra = (relaxed.duration_s[1] - relaxed.duration_s[0]).max()
    bound = bound_of(pool, optimum)
    assert 0.5 * optimum < bound.seconds <= optimum + extra


def test_no_fixed_action_beats_it_in_the_mean(jobs, bounds):
    for job, bound in zip(jobs, bounds, strict=False):
        arena = Arena(job)
        outcome = arena.play([best_fixed(job, range(12)).schedule], range(100, 140))[0]
        times = outcome.elapsed_s + np.where(outcome.success, 0.0, bound.failure_s)
        assert bound.seconds <= times.mean() + 4 * times.std() / math.sqrt(len(times))
        assert bound.seconds > 0


def test_a_cheaper_failure_lowers_the_bound(jobs, bounds):
    bound = bounds[0]
    cheap = lower_bound(jobs[0], failure_s=0.5 * bound.failure_s)
    assert cheap.failure_s <= 0.5 * bound.failure_s * (1 + 1e-6)
    assert 0 < cheap.seconds <= bound.seconds * 1.02
    relaxed = relax(pool_of([jobs[0]]))
    highest = cheap.potential(np.full(MODES, relaxed.limit**2 / 2))
    assert highest <= cheap.failure_s * (1 + 1e-9)


def test_more_money_lowers_the_bound(jobs):
    pool = pool_of([jobs[1]])
    times = []
    for share in (0.5, 1.0, 10.0):
        pool.facts[0, Fact.BUDGET] = share * jobs[1].spec.budget_usd
        times.append(bound_of(pool, jobs[1].spec.reference_s).seconds)
    assert times[0] > times[1] * 0.98
    assert times[1] > times[2] * 0.98
    assert times[0] > times[2]


def test_other_dynamics_are_refused(fitted_jobs):
    with pytest.raises(UsageError, match="no bound is known for SpotDnn"):
        lower_bound(fitted_jobs[0])
