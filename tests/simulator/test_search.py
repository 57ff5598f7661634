import dataclasses

import numpy as np
import pytest

from siren.simulator import core
from siren.simulator.core import Col, End
from siren.simulator.planner import Place
from siren.simulator.search import (
    Arena,
    Schedule,
    best_fixed,
    best_two_phase,
    fixed_candidates,
    play_schedule,
)
from siren.simulator.tables import Fact

SEEDS = range(24)


def rich(job):
    """The job with money to burn."""
    return dataclasses.replace(job, spec=dataclasses.replace(job.spec, budget_usd=1e6))


@pytest.mark.parametrize("index", [1, 3])
def test_the_best_fixed_action_is_that_of_an_exhaustive_search(jobs, index):
    seeds = range(8)
    arena = Arena(jobs[index])
    every = [Schedule.fixed(Place(*map(int, at))) for at in np.argwhere(arena.grid.allowed)]
    best = min(outcome.failure_counted_s for outcome in arena.play(every, seeds))
    choice = best_fixed(jobs[index], seeds)
    assert choice.tried < len(every)
    assert choice.outcomes.failure_counted_s <= 1.01 * best


def test_candidates_can_run_and_come_once(jobs):
    for job in jobs[:4]:
        arena = Arena(job)
        candidates = fixed_candidates(arena, range(4))
        assert len(set(candidates)) == len(candidates)
        assert all(arena.grid.allowed[schedule.first] for schedule in candidates)


def test_losses_of_a_fixed_action_depend_on_its_count_alone(jobs):
    arena = Arena(jobs[1])
    epochs = arena.epochs_alone(range(3))
    level = int(np.flatnonzero(epochs.all(axis=1))[0])
    sizes = np.flatnonzero(arena.grid.allowed[level])
    budget_usd = arena.job.spec.budget_usd
    for size in (sizes[0], sizes[-1]):
        outcome = Arena(rich(arena.job)).play_fixed(Place(level, int(size)), range(3))
        np.testing.assert_array_equal(outcome.epochs, epochs[level])
    assert arena.pool.facts[0, Fact.BUDGET] == budget_usd


def test_equal_seeds_mean_equal_noise_whatever_else_is_played(jobs):
    arena = Arena(jobs[1])
    one, other = Schedule.fixed(Place(4, 3)), Schedule.fixed(Place(9, 5))
    together = arena.play([one, other], [3, 4])
    alone = arena.play([other], [4])[0]
    assert together[1].elapsed_s[1] == alone.elapsed_s[0]
    assert together[1].cost_usd[1] == alone.cost_usd[0]
    assert arena.play([other], [5])[0].elapsed_s[0] != alone.elapsed_s[0]


def test_budgets_are_enforced_and_failures_counted(jobs):
    job = jobs[0]
    poor = dataclasses.replace(job, spec=dataclasses.replace(job.spec, budget_usd=job.spec.budget_usd / 3))
    arena = Arena(poor, failure_s=1234.0)
    place = best_fixed(job, SEEDS).schedule.first
    outcome = arena.play_fixed(place, range(6))
    assert outcome.success_rate == 0
    assert (outcome.cost_usd <= poor.spec.budget_usd * (1 + 1e-12)).all()
    assert outcome.failure_counted_s == 1234.0
    assert outcome.time_s == np.inf


def test_a_schedule_switches_once_the_gap_has_shrunk(jobs):
    job = jobs[0]
    arena = Arena(job)
    first, second = Place(12, 5), Place(3, 5)
    always, never = Schedule(first, second, 1.0), Schedule(first, second, -np.inf)
    outcomes = arena.play([always, Schedule.fixed(second), never, Schedule.fixed(first)], range(3))
    assert (outcomes[0].elapsed_s == outcomes[1].elapsed_s).all()
    assert (outcomes[2].elapsed_s == outcomes[3].elapsed_s).all()
    assert (outcomes[0].elapsed_s != outcomes[2].elapsed_s).all()


def test_an_episode_by_places_is_one_by_actions(jobs):
    job = rich(jobs[2])
    arena, action = Arena(job), np.array([0.3, -0.2], np.float32)
    level, size = core.decode(arena.pool, 0, action[0], action[1], False)
    state, other = core.new_state(1), core.new_state(1)
    rng = np.random.default_rng(5)
    core.begin(arena.pool, state, 0, 0)
    while state.values[0, Col.END] == 0:
        assert core.choose(arena.pool, state, 0, action, False)
        core.simulate(arena.pool, state, 0, rng)
        core.settle(arena.pool, state, 0, True, False)
    play_schedule(arena.pool, other, (level, size, level, size), 0.0, np.random.default_rng(5))
    np.testing.assert_array_equal(other.values, state.values)


def test_a_run_ends_where_the_budget_can_no_longer_reserve_its_action(jobs):
    job = jobs[1]
    arena, state = Arena(job), core.new_state(1)
    ends = []
    for place in np.argwhere(arena.grid.allowed)[::40].tolist():
        play_schedule(arena.pool, state, (*place, *place), 0.0, np.random.default_rng(1))
        v = state.values[0]
        ends.append(v[Col.END])
        if v[Col.END] == End.TARGET:
            assert (v[Col.LEVEL], v[Col.SIZE]) == tuple(place)
    assert {End.TARGET, End.BUDGET} <= set(ends)


def test_two_phases_are_no_slower_than_one_on_the_seeds_of_the_choice(jobs):
    for job in jobs[1:2]:
        one, two = best_fixed(job, SEEDS), best_two_phase(job, SEEDS)
        assert two.outcomes.failure_counted_s <= 1.01 * one.outcomes.failure_counted_s
        assert len(two.actions) in (1, 2)
        assert two.tried > 90


def test_fixed_actions_of_the_fitted_law_are_searched_too(fitted_jobs):
    choice = best_fixed(fitted_jobs[0], range(8))
    assert choice.outcomes.success_rate > 0.5
    arena = Arena(fitted_jobs[0])
    again = arena.play_fixed(choice.schedule.first, range(8))
    assert again.failure_counted_s == choice.outcomes.failure_counted_s
    with pytest.raises(TypeError, match="SpotDnn"):
        best_two_phase(fitted_jobs[0], range(8))


def test_success_means_that_the_target_was_reached(jobs):
    arena = Arena(jobs[3])
    place = best_fixed(jobs[3], SEEDS).schedule.first
    state = core.new_state(1)
    outcome = arena.play_fixed(place, [0])
    play_schedule(arena.pool, state, (*place, *place), 0.0, np.random.default_rng(0))
    assert (state.values[0, Col.END] == End.TARGET) == outcome.success[0]
    assert state.values[0, Col.ELAPSED_S] == outcome.elapsed_s[0]
