from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from siren.analysis.agreement import (
    drawn_epochs,
    epoch_usd,
    expected_epochs,
    fixed_losses,
    predicted_losses,
)
from siren.analysis.asynchrony import changed_costing, changed_workload
from siren.money.pricer import RunTotals
from siren.simulator.fitting import Setting, fit_quadratic, fixed_trace
from siren.testing.timing import TimingTwin
from siren.twin.twin import Twin, job_of
from siren.types import Action
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import EpochPlan, make_costing

MEMORY_MB = 1769


@pytest.fixture(scope="module")
def digits():
    return load_workload("softmax-digits")


@pytest.mark.parametrize("functions", [1, 20])
def test_expected_epochs_are_the_mean_of_those_drawn(digits, functions):
    world, job, action = load_world("aws-2026"), job_of(digits), Action(functions, MEMORY_MB)
    drawn = drawn_epochs(lambda seed: TimingTwin(world, job, seed), action, range(30))
    expected = expected_epochs(make_costing(world, job), action)
    assert drawn.shape == (30, 2, 2)
    assert expected[:, 0] == pytest.approx(drawn[:, :, 0].mean(axis=0), rel=0.1)
    assert expected[:, 1] == pytest.approx(drawn[:, :, 1].mean(axis=0), rel=0.2)
    assert (expected[0] > expected[1]).all()  # a cold epoch is slower and dearer


def test_no_more_seeds_are_taken_once_the_means_are_known(digits):
    world, job = load_world("aws-2026"), job_of(digits)
    drawn = drawn_epochs(
        lambda seed: TimingTwin(world, job, seed), Action(5, MEMORY_MB), range(50), error=0.5
    )
    assert len(drawn) == 3


def test_an_epochs_dollars_leave_out_the_cache_and_the_set_up(digits):
    costing = changed_costing(digits)
    twin, plan = Twin(digits, costing, 0), EpochPlan(Action(2, MEMORY_MB), 900, 899.0, Decimal(0))
    for setup_puts in (costing.setup_puts, 0):
        told = twin.run_epoch(plan)
        assert told.usage.cache_s > 0
        alone = replace(told.usage, cache_s=0.0, s3_puts=told.usage.s3_puts - setup_puts)
        bill = costing.pricer.price_epoch(alone, previous=RunTotals())
        assert epoch_usd(costing, told) == float(bill.total) > 0


def test_losses_of_a_run_that_explodes_are_infinite_from_there_on(digits):
    wild = changed_workload(digits, learning_rate=1e38)
    twin = Twin(wild, changed_costing(wild), 0)
    with np.errstate(all="ignore"):
        losses = fixed_losses(twin, [Action(1, MEMORY_MB)], 4, [0])
    assert losses.shape == (1, 1, 5)
    assert np.isfinite(losses[0, 0, 0])
    assert np.isinf(losses[0, 0, -1])


def test_a_fitted_model_predicts_a_count_that_it_has_not_seen(digits):
    counts, unseen = [1, 8, 40], 20
    twin = Twin(digits, changed_costing(digits), 0)
    runs = fixed_losses(twin, [Action(n, MEMORY_MB) for n in [*counts, unseen]], 6, [0])[:, 0]
    setting = Setting.of(twin.world, twin.job, digits.spec.training, [*counts, unseen], MEMORY_MB)
    seen = [fixed_trace(n, losses) for n, losses in zip(counts, runs[:-1], strict=True)]
    predicted = predicted_losses(fit_quadratic(seen, setting), setting, float(runs[0, 0]), 6)
    row = setting.functions.tolist().index(unseen)
    assert predicted[row] == pytest.approx(runs[-1], rel=0.1)
