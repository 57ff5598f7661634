import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from siren.money.pricer import RunTotals
from siren.simulator import quadratic
from siren.simulator.job import ActionGrid, ladder
from siren.testing.tiny import tiny_workload
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, UpdateRule
from siren.worlds import load_world
from siren.worlds.costing import EpochPlan, Outlook, make_costing
from siren.worlds.laws import memory_needed_mb

SLOW = {"cost": {"seconds_per_sample": 0.02, "seconds_per_push": 0.01}}


def costing(world="aws-2026", **training):
    return make_costing(load_world(world), job_of(tiny_workload(training=training, **SLOW)))


def test_the_ladder_ends_at_the_quota_and_at_the_limit_of_the_world(jobs):
    for job in jobs:
        counts = ladder(job.spec.job, job.spec.world)
        limit = min(job.spec.job.functions_max, job.spec.world.limits.functions_max)
        assert counts[0] == 1
        assert counts[-1] == limit
        steps = np.diff(counts)
        assert ((steps == 1) | (counts[1:] / counts[:-1] < 1.3)).all()
        assert (steps > 0).all()


def test_time_and_bill_of_the_grid_are_those_of_the_laws(jobs):
    for job in jobs[:4]:
        grid = ActionGrid.of(job.spec.costing)
        n, m = float(grid.functions[3]), float(grid.memory_mb[2])
        for kind, (cold, loading) in enumerate(((0.0, 0.0), (0.0, n), (n, n))):
            expected = job.spec.costing.expect(
                np.array([n]), np.array([m]), np.array([cold]), np.array([loading])
            )
            assert grid.duration_s[kind, 3, 2] == pytest.approx(float(expected.duration_s[0]), rel=1e-9)
            usd = job.spec.costing.marginal_usd(np.array([n]), np.array([m]), expected)
            assert grid.marginal_usd[kind, 3, 2] == pytest.approx(float(usd[0]), rel=1e-9)


def test_allowed_actions_have_memory_enough_and_end_in_time(jobs):
    for job in jobs:
        grid = ActionGrid.of(job.spec.costing)
        n, m = grid.mesh
        longest = job.spec.world.limits.timeout_rungs[-1]
        assert (memory_needed_mb(job.spec.job, n) <= m)[grid.allowed].all()
        assert (np.asarray(grid.starts[2].handler_s)[grid.allowed] < longest).all()


@pytest.mark.parametrize("world", ["aws-2026", "siren-2019"])
def test_the_least_reservation_is_that_of_the_ledger(world):
    costs = costing(world)
    grid = ActionGrid.of(costs)
    outlook = Outlook(0.0, 2, RunTotals(cache_hours=10), Decimal(1000))
    for level, size in ((0, 4), (4, 6), (9, 9)):
        action = Action(int(grid.functions[level]), int(grid.memory_mb[size]))
        expected = grid.starts[2]
        upper, handler = float(expected.upper_s[level, size]), float(expected.handler_s[level, size])
        *_, timeout = costs.rungs(upper, handler)
        exact = float(costs.worst_case(action, timeout, outlook))
        assert grid.reserve_usd[level, size] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("rule", [UpdateRule.ADDITIVE, UpdateRule.SYNC, UpdateRule.AVERAGE])
@pytest.mark.parametrize("functions", [1, 6, 24])
def test_noise_has_the_spread_of_the_twin(rule, functions):
    costs = costing(update_rule=rule)
    workload = tiny_workload(training={"update_rule": rule}, **SLOW)
    grid = ActionGrid.of(costs)
    level = int(np.searchsorted(grid.functions, functions))
    n, size = int(grid.functions[level]), grid.memory_mb.tolist().index(1769)
    plan = EpochPlan(Action(n, 1769), 900, 899.0, Decimal(1000))
    times, bills = [], []
    for seed in range(60):
        twin = Twin(workload, costs, seed)
        twin.run_epoch(plan)
        report = twin.run_epoch(plan)
        times.append(report.duration_s)
        bills.append(report.usage.billed_ms)
    assert np.mean(times) == pytest.approx(grid.duration_s[0, level, size], rel=0.05)
    for spread, sample in zip(grid.spreads, (times, bills), strict=True):
        ratio = np.std(sample) / np.mean(sample) / spread[level, size]
        assert 0.5 < ratio < 2


@pytest.mark.parametrize("rule", [UpdateRule.ADDITIVE, UpdateRule.CAS, UpdateRule.STALENESS])
@pytest.mark.parametrize("batch_rule", list(BatchRule))
@pytest.mark.parametrize("functions", [2, 6, 20])
def test_the_delay_is_the_staleness_of_the_twin(rule, batch_rule, functions):
    channel = "s3" if rule is UpdateRule.CAS else "redis"
    training = {"update_rule": rule, "batch_rule": batch_rule, "channel": channel}
    twin = Twin(tiny_workload(training=training, **SLOW), costing(**training), 0)
    plan = EpochPlan(Action(functions, 1769), 900, 899.0, Decimal(1000))
    twin.run_epoch(plan)
    measured = twin.run_epoch(plan)
    delay = quadratic.in_flight_delay(twin.world, twin.job, np.array([float(functions)]), 1769)[0]
    expected = np.minimum(np.arange(measured.pushes), round(delay)).mean()
    assert measured.mean_staleness == pytest.approx(expected, rel=0.25, abs=0.6)


def test_fan_out_limits_the_delay_of_short_functions():
    short = dataclasses.replace(costing().job, seconds_per_sample=1e-7, seconds_per_push=1e-7)
    delay = quadratic.in_flight_delay(load_world("aws-2026"), short, np.array([24.0]), 1769)[0]
    assert delay < 3
