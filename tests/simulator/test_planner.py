import numpy as np
import pytest

from siren.simulator import core
from siren.simulator.core import Col, End
from siren.simulator.job import ActionGrid
from siren.simulator.planner import Place, Planner
from siren.simulator.schedules import SWITCHES, UNLIKELY, epochs_to_target
from siren.simulator.search import Arena, best_fixed


@pytest.fixture(scope="module")
def planners(jobs):
    return [Planner.of(job) for job in jobs]


def play(arena, planner, seed):
    """An episode under the planner, which sees the true state; (success, seconds)."""
    state, rng, last = core.new_state(1), np.random.default_rng(seed), None
    core.begin(arena.pool, state, 0, 0)
    v = state.values[0]
    while v[Col.END] == 0:
        energy = state.amplitude[0] ** 2 / 2
        level, size, *_ = planner.decide(energy, v[Col.LEFT], elapsed_s=v[Col.ELAPSED_S], last=last)
        ran = core.take(arena.pool, state, 0, level, size)
        if ran:
            core.simulate(arena.pool, state, 0, rng)
            last = Place(int(v[Col.LEVEL]), int(v[Col.SIZE]))
        core.settle(arena.pool, state, 0, ran, False)
    return v[Col.END] == End.TARGET, v[Col.ELAPSED_S]


def test_epochs_without_noise_are_those_of_the_mean_recursion(planners, rng):
    for planner in planners[:4]:
        gain, quiet = planner.gain, np.zeros_like(planner.power)
        start, times = planner.initial_energy, np.ones(len(planner.gain))
        later = epochs_to_target(start, (gain, quiet), planner.target, 1.0, times, np.inf)
        followed = 0
        for _ in range(200):
            a, at, b = rng.integers(len(gain)), rng.integers(1, len(SWITCHES)), rng.integers(len(gain))
            energy, j = start, int(later[a, at, b])
            if j < 0:
                continue
            for _ in range(SWITCHES[at]):
                energy = gain[a] * energy
                assert planner.target < energy.sum() <= 1.0
            for _ in range(j):
                assert energy.sum() > planner.target
                energy = gain[b] * energy
            assert energy.sum() <= planner.target
            followed += 1
        assert followed > 5


def test_epochs_with_noise_are_a_high_quantile_of_what_is_drawn(planners, rng):
    planner = planners[0]
    alone = epochs_to_target(
        planner.initial_energy,
        (planner.gain, planner.power),
        planner.target,
        1.0,
        np.ones(len(planner.gain)),
        0.0,
    )[0, 0]
    shares = []
    for level in np.flatnonzero(alone > 0)[::4].tolist():
        u = np.tile(planner.dynamics.amplitudes, (400, 1))
        reached = np.zeros(400, bool)
        for _ in range(int(alone[level])):
            spread = np.sqrt(2 * planner.power[level])
            u = np.sqrt(planner.gain[level]) * u + spread * rng.standard_normal(u.shape)
            reached |= (u**2 / 2).sum(axis=1) <= planner.target
        shares.append(reached.mean())
    assert np.median(shares) > 1 - 2 * UNLIKELY
    assert min(shares) > 0.5


def test_a_single_phase_is_expected_to_take_what_a_fixed_run_takes(jobs):
    job = jobs[3]
    full = ActionGrid.of(job.spec.costing)
    level = int(np.abs(full.functions - best_fixed(job, range(4)).actions[0].functions).argmin())
    grid = ActionGrid(full.costing, full.functions[[level]], full.memory_mb)
    target = job.spec.target_loss - job.spec.initial_loss + job.dynamics.excess
    planner = Planner(job.dynamics, grid, 1.5 * target, float(job.spec.memory_ref_mb))
    plan = planner.plan(planner.initial_energy, 2 * job.spec.budget_usd)
    at = plan.second
    warm = 0 if job.spec.job.samples % job.spec.job.dataset_samples == 0 else 1
    assert plan.first == plan.second
    assert plan.epochs == 0
    expected_s = grid.duration_s[2][at] + (plan.later - 1) * grid.duration_s[warm][at]
    assert plan.expected_s == pytest.approx(expected_s)


def test_plans_can_run_and_fit_the_budget_where_the_reference_does(jobs, planners):
    for job, planner in zip(jobs, planners, strict=True):
        plan = planner.plan(planner.initial_energy, 1.3 * job.spec.budget_usd)
        assert planner.grid.allowed[plan.first]
        assert planner.grid.allowed[plan.second]
        assert plan.short_usd == 0
        assert plan.expected_usd <= 1.3 * job.spec.budget_usd


def test_less_money_never_makes_a_plan_faster(jobs, planners):
    for job, planner in zip(jobs[:5], planners, strict=False):
        plans = [planner.plan(planner.initial_energy, share * job.spec.budget_usd) for share in (0.2, 0.7, 3)]
        assert plans[1].short_usd <= plans[0].short_usd
        assert plans[2].short_usd == 0
        if plans[1].short_usd == 0:
            assert plans[2].expected_s <= 1.02 * plans[1].expected_s


def test_a_plan_is_made_even_where_no_mean_reaches_the_target(jobs, planners):
    planner = planners[0]
    hopeless = Planner(
        planner.dynamics, planner.grid, 0.05 * planner.target, float(jobs[0].spec.memory_ref_mb)
    )
    plan = hopeless.plan(planner.initial_energy, jobs[0].spec.budget_usd)
    assert planner.grid.allowed[plan.first]


def test_tracked_energies_sum_to_what_was_observed(planners):
    planner = planners[2]
    expected = planner.advance(planner.initial_energy, 5)
    tracked = planner.track(planner.initial_energy, 5, 0.4)
    assert tracked.sum() == pytest.approx(0.4)
    np.testing.assert_allclose(tracked / tracked.sum(), expected / expected.sum())
    np.testing.assert_allclose(planner.track(planner.initial_energy, 5, expected.sum()), expected)
    assert planner.track(planner.initial_energy, 5, -1.0).sum() == pytest.approx(1e-3 * planner.target)


def test_with_the_true_model_it_keeps_up_with_the_best_fixed_action(jobs, planners):
    ratios = []
    for job, planner in zip(jobs[1:3], planners[1:3], strict=True):
        arena, choice = Arena(job), best_fixed(job, range(12))
        fixed = arena.play_fixed(choice.schedule.first, range(100, 103))
        runs = [play(arena, planner, seed) for seed in range(100, 103)]
        planned_s = np.mean([s if reached else arena.failure_s for reached, s in runs])
        ratios.append(planned_s / fixed.failure_counted_s)
    assert np.exp(np.log(ratios).mean()) < 1.1


def test_other_dynamics_are_refused(fitted_jobs):
    with pytest.raises(TypeError, match="SpotDnn"):
        Planner.of(fitted_jobs[0])
