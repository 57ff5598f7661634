"""The greedy policy: what it prefers, what it shuns, and what it says about it."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siren.money.pricer import RunTotals
from siren.policies import GreedyPolicy, JobView, greedy
from siren.policies.greedy import (
    BACK_OFF,
    CLIFF_MARGIN,
    EQUALLY_FAST,
    FIRST_FUNCTIONS,
    effective_updates,
    function_cap,
    progress_rate,
)
from siren.testing.fakes import FakePlatform
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action, Decision, EpochRecord, EpochStatus, GradientStatistics, UpdateRule
from siren.workloads.workload import Workload
from siren.worlds.costing import Outlook


def job_view(workload: Workload | None = None, budget: str = "2", initial_loss: float = 1.0) -> JobView:
    workload = workload or tiny_workload(training={"batch_size": 1})  # up to 240 functions
    costing = tiny_costing(workload)
    outlook = Outlook(0.0, 1, RunTotals(), Decimal(budget))
    return JobView(costing, FakePlatform(costing), workload.spec.training, initial_loss, outlook)


def history(view: JobView, *epochs: tuple[int, float, float]) -> list[EpochRecord]:
    """Epochs of (functions, loss, curvature)."""
    platform = FakePlatform(view.costing)
    records = []
    for functions, loss, curvature in epochs:
        action = Action(functions, 1024)
        plan = view.plan(action)
        assert plan is not None
        report = dataclasses.replace(
            platform.run_epoch(plan), loss=loss, gradients=GradientStatistics(1.0, 0.5, curvature)
        )
        status = EpochStatus(report, Decimal(0), {}, Decimal(1), 1.0)
        records.append(EpochRecord(Decision(action, ""), plan.timeout_s, plan.reserve_usd, status))
    return records


def decide(view: JobView, past: list[EpochRecord] | None = None) -> Decision:
    policy = GreedyPolicy()
    policy.start(view)
    decision = policy.decide(past or [])
    assert decision is not None
    return decision


@settings(max_examples=60)
@given(cents=st.integers(1, 20_000))
def test_what_it_chooses_always_fits_what_is_left(cents):
    view = job_view(budget=str(Decimal(cents) / 10_000))
    policy = GreedyPolicy()
    policy.start(view)
    decision = policy.decide([])
    if decision is None:
        assert all(
            view.plan(action) is None for action in view.actions if action.functions <= FIRST_FUNCTIONS
        )
    else:
        plan = view.plan(decision.action)
        assert plan is not None
        assert plan.reserve_usd <= view.outlook.left_usd
        assert decision.forecast is not None
        assert decision.forecast.fits


def test_it_gives_up_only_when_nothing_fits():
    view = job_view(budget="0.000001")
    policy = GreedyPolicy()
    policy.start(view)
    assert policy.decide([]) is None


def test_among_equally_fast_actions_the_cheapest_is_chosen():
    view = job_view()
    decision = decide(view)
    actions = [action for action in view.actions if action.functions <= FIRST_FUNCTIONS]
    p = view.predict(actions)
    speed = effective_updates(view, p.functions) / p.duration_s
    chosen = actions.index(decision.action)
    equal = speed >= speed.max() * EQUALLY_FAST
    assert equal[chosen]
    assert p.marginal_usd[chosen] == p.marginal_usd[equal].min()


def test_a_tight_budget_is_spent_on_the_cheapest_progress():
    view = job_view(budget="0.035")
    past = history(job_view(), (8, 0.999, math.nan))  # hardly any progress: the budget will not last
    decision = decide(view, past)
    assert "cheapest progress" in decision.reason
    fitting = [a for a in view.actions if a.functions <= function_cap(view, past) and view.plan(a)]
    p = view.predict(fitting)
    price = p.marginal_usd / effective_updates(view, p.functions)
    assert price[fitting.index(decision.action)] == price.min()


def test_more_money_never_means_slower():
    past = history(job_view(), (8, 0.9, math.nan))
    durations = []
    for budget in ("0.04", "0.1", "1", "100"):
        decision = decide(job_view(budget=budget), past)
        assert decision.forecast is not None
        durations.append(decision.forecast.duration_s)
    assert durations == sorted(durations, reverse=True)


def test_the_first_epoch_is_small():
    view = job_view()
    assert function_cap(view, []) == FIRST_FUNCTIONS
    assert decide(view).action.functions <= FIRST_FUNCTIONS


def test_it_backs_off_after_a_rise_and_recovers_slowly():
    view = job_view()
    calm = function_cap(view, history(view, (16, 0.8, math.nan)))
    risen = function_cap(view, history(view, (16, 0.8, math.nan), (16, 1.2, math.nan)))
    after = function_cap(view, history(view, (16, 0.8, math.nan), (16, 1.2, math.nan), (8, 0.7, math.nan)))
    assert risen == 16 * BACK_OFF < after < calm
    past = history(view, (16, 0.8, math.nan), (16, 1.2, math.nan))
    assert decide(view, past).action.functions <= risen


def test_repeated_rises_end_at_one_function():
    view = job_view()
    past = history(view, *((16, 1.1 + k, math.nan) for k in range(12)))
    assert function_cap(view, past) == 1
    assert decide(view, past).action.functions == 1


@pytest.mark.parametrize("curvature", [0.5, 2.0, 50.0])
def test_functions_stay_below_the_cliff(curvature):
    view = job_view()
    past = history(view, *((4, 0.9 - k / 100, curvature) for k in range(10)))
    cliff = CLIFF_MARGIN / (view.training.learning_rate * curvature)
    assert function_cap(view, past) <= max(1, cliff)
    assert decide(view, past).action.functions <= max(1, cliff)


@pytest.mark.parametrize("curvature", [math.nan, 0.0, -3.0])
def test_a_curvature_that_tells_nothing_does_not_cap(curvature):
    view = job_view()
    known = function_cap(view, history(view, (16, 0.9, curvature)))
    assert known > FIRST_FUNCTIONS


@pytest.mark.parametrize("rule", ["average", "sync", "overwrite"])
def test_rules_without_a_cliff_are_not_capped(rule):
    view = job_view(tiny_workload(training={"update_rule": rule, "batch_size": 1}))
    assert function_cap(view, []) == view.functions[-1] == 240


def test_effective_updates_follow_the_rule():
    n = np.array([1.0, 4.0, 24.0])
    found = {}
    for rule in UpdateRule:
        channel = "s3" if rule is UpdateRule.CAS else "redis"
        view = job_view(tiny_workload(training={"update_rule": rule, "channel": channel}))
        found[rule] = effective_updates(view, n)
        assert found[rule][0] == 24  # one function alone is plain SGD
    assert np.array_equal(found[UpdateRule.ADDITIVE], [24, 24, 24])
    assert np.array_equal(found[UpdateRule.CAS], [24, 24, 24])
    for rule in (UpdateRule.OVERWRITE, UpdateRule.AVERAGE, UpdateRule.SYNC):
        assert np.array_equal(found[rule], [24, 6, 1])
    assert (np.diff(found[UpdateRule.STALENESS]) < 0).all()


def test_under_the_split_rule_more_functions_make_more_updates():
    view = job_view(tiny_workload(training={"batch_rule": "split", "split_learning_rate": "none"}))
    assert np.array_equal(effective_updates(view, np.array([1.0, 4.0])), [4, 16])


def test_progress_is_the_fall_of_the_logarithm_of_the_loss():
    view = job_view(tiny_workload())
    past = history(view, (4, math.exp(-1), math.nan), (4, math.exp(-3), math.nan))
    assert progress_rate(view, past) == pytest.approx(3 / 48)
    assert progress_rate(view, []) == 0
    assert progress_rate(view, history(view, (4, 1.5, math.nan))) == 0
    assert progress_rate(view, history(view, (4, 0.0, math.nan))) == 0


def test_its_neighbours_are_half_and_double_the_functions_and_one_memory_step_down_and_up():
    view = job_view()
    decision = decide(view)
    n, m = decision.action.functions, decision.action.memory_mb
    grid = view.costing.world.limits.memory_grid
    at = grid.index(m)
    wanted = {Action(n // 2, m), Action(n * 2, m)}
    wanted |= {Action(n, grid[k]) for k in (at - 1, at + 1) if 0 <= k < len(grid)}
    assert {forecast.action for forecast in decision.neighbours} == {a for a in wanted if a.functions >= 1}
    for forecast in decision.neighbours:
        assert forecast.duration_s > 0
        assert forecast.cost_usd > 0


def test_neighbours_end_where_the_job_and_the_grid_end():
    view = job_view(tiny_workload())
    grid = view.costing.world.limits.memory_grid
    assert view.neighbours(Action(1, grid[0])) == (Action(2, grid[0]), Action(1, grid[1]))
    assert view.neighbours(Action(24, grid[-1])) == (Action(12, grid[-1]), Action(24, grid[-2]))


def test_a_neighbour_that_was_ruled_out_says_why():
    view = job_view()
    past = history(view, *((16, 1.1 + k, math.nan) for k in range(12)))
    notes = {forecast.action: forecast.note for forecast in decide(view, past).neighbours}
    assert [note for action, note in notes.items() if action.functions == 2] == [
        "above the cap of 1 functions"
    ]
    poor = job_view(budget="0.033")
    forecast = poor.forecast(Action(240, 10_240), math.nan)
    assert (forecast.fits, forecast.note) == (False, "its worst case does not fit the budget that is left")


def test_its_forecast_of_the_loss_goes_on_with_the_last_progress():
    view = job_view(tiny_workload())
    past = history(view, (4, 0.8, math.nan), (4, 0.64, math.nan))
    decision = decide(view, past)
    assert decision.forecast is not None
    assert decision.forecast.loss == pytest.approx(0.64 * 0.8)


def test_actions_that_cannot_hold_their_shard_are_not_considered():
    view = job_view(tiny_workload(cost={"sample_bytes": 5_000_000}))
    assert view.actions
    assert Action(1, 1024) not in view.actions
    assert Action(1, 1280) in view.actions
    for action in view.actions:
        assert greedy.effective_updates(view, np.array([float(action.functions)]))[0] > 0
