import math
from decimal import Decimal

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import siren.loop
from siren.money.pricer import RunTotals
from siren.simulator import core, observation, tables
from siren.simulator.core import Col, End
from siren.simulator.job import ActionGrid
from siren.simulator.tables import Cell, Fact
from siren.types import Action
from siren.worlds.costing import Outlook

ZERO = np.zeros(2, np.float32)
part = st.floats(-1, 1, width=32)


def play(pool, job, rng, action=ZERO, *, siren=False):
    """An episode of one constant action; yields the state's values after every step."""
    state = core.new_state(1)
    core.begin(pool, state, 0, job)
    while state.values[0, Col.END] == 0:
        ran = core.choose(pool, state, 0, np.asarray(action, np.float32), siren)
        if ran:
            core.simulate(pool, state, 0, rng)
        reward = core.settle(pool, state, 0, ran, siren)
        yield state.values[0].copy(), reward, state


def last(steps):
    *_, end = steps
    return end


@hypothesis.given(job=st.integers(0, 11), first=part, second=part, absolute=st.booleans())
def test_every_action_decodes_to_one_that_the_job_can_run(jobs, pool, job, first, second, absolute):
    spec = jobs[job].spec
    state = core.new_state(1)
    core.begin(pool, state, 0, job)
    assert core.choose(pool, state, 0, np.array([first, second], np.float32), absolute)
    n, m = int(state.values[0, Col.FUNCTIONS]), int(state.values[0, Col.MEMORY])
    spec.world.check_action(Action(n, m))
    assert n <= spec.job.functions_max
    grid = ActionGrid.of(spec.costing)
    at = int(state.values[0, Col.LEVEL]), int(state.values[0, Col.SIZE])
    assert grid.allowed[at]
    assert (grid.functions[at[0]], grid.memory_mb[at[1]]) == (n, m)


@hypothesis.given(job=st.integers(0, 11), first=part, second=part)
def test_decoding_is_relative_to_the_reference_and_to_the_nearest(jobs, pool, job, first, second):
    spec = jobs[job].spec
    level, size = core.decode(pool, job, first, second, False)
    counts, sizes = np.log(ActionGrid.of(spec.costing).functions), np.log(spec.world.limits.memory_grid)
    n = math.log(spec.functions_ref) + 2 * first
    m = math.log(spec.memory_ref_mb) + math.log(4) * second
    assert abs(counts[level] - n) == pytest.approx(np.abs(counts - n).min(), abs=1e-6)
    assert abs(sizes[size] - m) == pytest.approx(np.abs(sizes - m).min(), abs=1e-6)


def test_the_papers_action_reaches_from_the_least_to_the_most(jobs, pool):
    for j, job in enumerate(jobs):
        grid = ActionGrid.of(job.spec.costing)
        assert core.decode(pool, j, -1.0, -1.0, True) == (0, 0)
        assert core.decode(pool, j, 1.0, 1.0, True) == (len(grid.functions) - 1, len(grid.memory_mb) - 1)


@hypothesis.given(job=st.integers(0, 11), share=st.floats(0.0, 1.0), first=part, second=part)
def test_what_runs_can_be_reserved(pool, job, share, first, second):
    state = core.new_state(1)
    core.begin(pool, state, 0, job)
    state.values[0, Col.LEFT] *= share
    state.values[0, Col.EPOCH] = 1
    state.values[0, Col.CACHE_HOURS] = 1
    left = state.values[0, Col.LEFT]
    if core.choose(pool, state, 0, np.array([first, second], np.float32), False):
        at = int(state.values[0, Col.LEVEL]), int(state.values[0, Col.SIZE])
        assert pool.cells[job][(*at, Cell.RESERVE_USD)] <= left
    else:
        assert left < pool.facts[job, Fact.LEAST_RESERVE]


@pytest.mark.parametrize("action", [(0, 0), (1, 1), (-1, -1), (1, -1)])
def test_the_budget_is_never_exceeded(jobs, pool, rng, action):
    for j, job in enumerate(jobs):
        spent = 0.0
        for values, _, _ in play(pool, j, rng, action):
            spent = job.spec.budget_usd - values[Col.LEFT]
            assert spent <= job.spec.budget_usd
        assert values[Col.LEFT] >= 0


def test_the_reference_action_mostly_finishes_in_the_reference_time(jobs, pool, rng):
    reached, ratios = 0, []
    for j, job in enumerate(jobs):
        for _ in range(4):
            values, _, _ = last(play(pool, j, rng))
            if values[Col.END] == End.TARGET:
                reached += 1
                ratios.append(values[Col.ELAPSED_S] / job.spec.reference_s)
    assert reached >= 0.7 * 4 * len(jobs)
    assert 0.8 < np.median(ratios) < 1.25


def test_time_and_bill_of_an_epoch_agree_with_the_laws_in_the_mean(jobs, pool, rng):
    for j in range(4):
        grid = ActionGrid.of(jobs[j].spec.costing)
        times, bills = [], []
        for _ in range(200):
            state = core.new_state(1)
            core.begin(pool, state, 0, j)
            core.choose(pool, state, 0, ZERO, False)
            core.simulate(pool, state, 0, rng)
            times.append(state.values[0, Col.DURATION_S])
            bills.append(state.values[0, Col.COST])
        at = int(state.values[0, Col.LEVEL]), int(state.values[0, Col.SIZE])
        assert np.mean(times) == pytest.approx(grid.duration_s[2][at], rel=0.03)
        standing = grid.standing_usd(np.array([1.0]))[0]
        assert np.mean(bills) == pytest.approx(grid.marginal_usd[2][at] + standing, rel=0.03)


def test_the_cache_is_billed_by_started_hour_as_the_costing_does(jobs, pool, rng):
    for j, job in enumerate(jobs):
        costing = job.spec.costing
        state = core.new_state(1)
        core.begin(pool, state, 0, j)
        for _ in range(3):
            before = state.values[0].copy()
            assert core.choose(pool, state, 0, ZERO, False)
            totals = RunTotals(cache_hours=int(before[Col.CACHE_HOURS]))
            outlook = Outlook(before[Col.ELAPSED_S], int(before[Col.EPOCH]) + 1, totals, Decimal(0))
            for duration in (1.0, 4000.0, 9000.0):
                expected = costing.standing_usd(np.array([duration]), outlook)[0]
                assert core._standing(pool, state, 0, duration) == pytest.approx(expected, abs=1e-15)
            core.simulate(pool, state, 0, rng)
            core.settle(pool, state, 0, True, False)
            if state.values[0, Col.END]:
                break


def test_a_repeated_action_starts_warm_and_keeps_its_shards(jobs, pool, rng):
    state = core.new_state(1)
    core.begin(pool, state, 0, 0)
    colds = []
    for _ in range(2):
        core.choose(pool, state, 0, ZERO, False)
        core.simulate(pool, state, 0, rng)
        colds.append(state.values[0, Col.COLD])
        core.settle(pool, state, 0, True, False)
    assert colds[0] == state.values[0, Col.FUNCTIONS]
    assert colds[1] == 0


def test_environments_are_gone_after_the_keep_alive(jobs, pool, rng):
    state = core.new_state(1)
    core.begin(pool, state, 0, 0)
    core.choose(pool, state, 0, ZERO, False)
    core.simulate(pool, state, 0, rng)
    core.settle(pool, state, 0, True, False)
    state.values[0, Col.ELAPSED_S] += 2 * pool.facts[0, Fact.KEEP_ALIVE_S] + 1
    core.choose(pool, state, 0, ZERO, False)
    core.simulate(pool, state, 0, rng)
    assert state.values[0, Col.COLD] == state.values[0, Col.FUNCTIONS]


def finished(pool, **changes):
    """(values, reward) of a settled epoch with the given outcome."""
    state = core.new_state(1)
    core.begin(pool, state, 0, 0)
    facts = pool.facts[0]
    outcome = {
        "DURATION_S": 0.5 * facts[Fact.REFERENCE_S],
        "COST": 0.0,
        "LOSS": facts[Fact.INITIAL],
        **changes,
    }
    for name, value in outcome.items():
        state.values[0, Col[name]] = value
    ran, siren = outcome.pop("ran", True), outcome.pop("siren", False)
    reward = core.settle(pool, state, 0, ran, siren)
    return state.values[0], reward


def test_reaching_the_target_ends_with_one_less_the_time(pool):
    values, reward = finished(pool, LOSS=pool.facts[0, Fact.TARGET])
    assert values[Col.END] == End.TARGET
    assert reward == pytest.approx(1 - 0.5)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
def test_divergence_costs_the_penalty_and_all_progress(pool, loss):
    values, reward = finished(pool, LOSS=loss)
    assert values[Col.END] == End.DIVERGED
    assert reward == pytest.approx(-0.5 - core.PENALTY - 1)


def test_a_failure_costs_less_when_more_progress_was_made(pool):
    facts = pool.facts[0]
    half = (facts[Fact.INITIAL] + facts[Fact.TARGET]) / 2
    values, reward = finished(pool, LOSS=half, COST=facts[Fact.BUDGET])
    assert values[Col.END] == End.BUDGET
    assert reward == pytest.approx(-0.5 - core.PENALTY - 0.5)


def test_a_bill_above_what_is_left_is_cut_and_ends_the_job_even_at_the_target(pool):
    facts = pool.facts[0]
    values, _ = finished(pool, LOSS=facts[Fact.TARGET], COST=2 * facts[Fact.BUDGET])
    assert values[Col.END] == End.BUDGET
    assert values[Col.LEFT] == 0


def test_no_epoch_counts_for_more_than_its_least_reward(pool):
    _, reward = finished(pool, DURATION_S=100 * pool.facts[0, Fact.REFERENCE_S])
    assert reward == core.EPOCH_REWARD_MIN


def test_too_many_epochs_truncate(pool):
    values, _ = finished(pool, EPOCH=pool.facts[0, Fact.MAX_EPOCHS] - 1)
    assert values[Col.END] == End.LIMIT


def test_a_run_and_an_episode_explode_at_the_same_loss():
    assert tables.EXPLODED == siren.loop.EXPLODED


def test_the_papers_reward_ends_with_a_constant(jobs, pool, rng):
    for j in range(len(jobs)):
        values, reward, _ = last(play(pool, j, rng, (0.0, 0.0), siren=True))
        epoch = max(-values[Col.DURATION_S] / jobs[j].spec.reference_s, core.EPOCH_REWARD_MIN)
        if values[Col.END] == End.TARGET:
            assert reward == pytest.approx(epoch + core.PENALTY)
        else:
            assert min(abs(reward - epoch + core.PENALTY), abs(reward + core.PENALTY)) < 1e-9


@hypothesis.given(job=st.integers(0, 11), first=part, second=part, seed=st.integers(0, 1000))
@hypothesis.settings(max_examples=40)
def test_every_observation_is_finite_and_inside_its_box(pool, job, first, second, seed):
    rng = np.random.default_rng(seed)
    out = np.full(observation.OBSERVATION_SIZE, np.nan, np.float32)
    paper = np.full(observation.SIREN_SIZE, np.nan, np.float32)
    for _, _, state in play(pool, job, rng, (first, second)):
        observation.observe(pool, state, 0, out)
        assert (np.abs(out) <= 1).all()
        observation.observe_siren(state, 0, paper)
        assert ((paper >= 0) & (paper <= observation.SIREN_HIGH)).all()


def test_observations_do_not_depend_on_the_scale_of_losses_time_or_money(pool):
    scaled = pool._replace(facts=pool.facts.copy(), floor=pool.floor * 3, start=pool.start * 3**0.5)
    scaled = scaled._replace(noise=pool.noise * 3**0.5, cells=pool.cells.copy())
    for first in (Cell.DURATION_S, Cell.FETCH_S):
        scaled.cells[..., first : first + 3] *= 2
    for column in (Fact.INITIAL, Fact.TARGET, Fact.LOWEST, Fact.EXPLODED_LOSS):
        scaled.facts[:, column] *= 3
    scaled.facts[:, Fact.AMPLITUDE] *= 3**0.5
    scaled.facts[:, Fact.REFERENCE_S] *= 2
    scaled.facts[:, Fact.KEEP_ALIVE_S] *= 2
    one, other = (np.zeros(observation.OBSERVATION_SIZE, np.float32) for _ in range(2))
    pairs = zip(
        play(pool, 0, np.random.default_rng(3)), play(scaled, 0, np.random.default_rng(3)), strict=False
    )
    for (_, first, state), (_, second, again) in pairs:
        observation.observe(pool, state, 0, one)
        observation.observe(scaled, again, 0, other)
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert first == pytest.approx(second, rel=1e-4)
