import math
from decimal import Decimal

import numpy as np
import pytest

from siren.analysis.asynchrony import (
    PARTS,
    changed_costing,
    changed_workload,
    floor_limited_data,
    logistic_optimum,
    predicted_cliff,
    watch_epoch,
)
from siren.simulator.small_models import largest_curvature
from siren.simulator.twin_jobs import loss_curve
from siren.testing.tiny import write_tiny_workload
from siren.twin.twin import Twin
from siren.types import Action, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds.costing import EpochPlan

SLOW = {"seconds_per_push": 5.0}
"""Pushes that take long enough that all functions run at the same time."""


@pytest.fixture(scope="module")
def digits() -> Workload:
    return load_workload("softmax-digits")


def plan(functions: int) -> EpochPlan:
    return EpochPlan(Action(functions, 1769), 900, 899.0, Decimal(0))


@pytest.mark.parametrize("rule", ["additive", "average", "sync"])
def test_the_parts_of_every_function_add_up_to_the_barrier(digits, rule):
    workload = changed_workload(digits, update_rule=UpdateRule(rule))
    seen = watch_epoch(workload, changed_costing(workload, **SLOW), plan(7), seed=3)
    assert seen.parts_s.shape == (7, len(PARTS))
    assert (seen.parts_s > -1e-9).all()
    assert seen.parts_s.sum(axis=1) == pytest.approx(seen.barrier_s)
    told = seen.report
    means = (told.start_s, told.load_s, told.fetch_s, told.compute_s, told.update_s, told.wait_s)
    assert seen.parts_s.mean(axis=0) == pytest.approx(means)


def test_staleness_is_that_of_the_report_and_about_n_minus_1(digits):
    seen = watch_epoch(digits, changed_costing(digits, **SLOW), plan(10), seed=0)
    assert len(seen.staleness) == 150
    assert seen.staleness.mean() == pytest.approx(seen.report.mean_staleness)
    assert np.median(seen.staleness) == pytest.approx(9, abs=1)


def test_no_update_is_stale_where_all_functions_wait_for_each_other(digits):
    workload = changed_workload(digits, update_rule=UpdateRule.SYNC, channel=ChannelKind.S3)
    assert not watch_epoch(workload, changed_costing(workload), plan(4), seed=0).staleness.any()


def test_watching_an_epoch_does_not_change_it(digits):
    costing = changed_costing(digits)
    assert watch_epoch(digits, costing, plan(5), seed=2).report == Twin(digits, costing, 2).run_epoch(plan(5))


def test_additive_updates_diverge_beyond_the_predicted_cliff_and_not_before(digits):
    rate = digits.spec.training.learning_rate
    cliff = predicted_cliff(rate, largest_curvature(digits.dataset))

    def loss(functions: int) -> float:
        twin = Twin(digits, changed_costing(digits, **SLOW), seed=0)
        with np.errstate(all="ignore"):
            return float(loss_curve(twin, Action(functions, 1769), 3)[-1])

    alone = loss(1)
    assert loss(round(0.6 * cliff)) == pytest.approx(alone, rel=0.1)
    assert loss(round(3 * cliff)) > 1.5 * alone


def test_damping_moves_the_cliff_or_removes_it():
    plain = predicted_cliff(0.1, 1.0)
    assert plain == pytest.approx(1 + 5 * math.pi)
    assert plain < predicted_cliff(0.1, 1.0, scale=20.0) < math.inf
    assert predicted_cliff(0.1, 1.0, scale=10.0) == math.inf


def test_newton_finds_the_model_that_made_the_labels():
    data, truth = floor_limited_data(20_000, inputs=3, heldout=10)
    found, curvature = logistic_optimum(data.train_features, data.train_labels)
    assert found == pytest.approx(truth, abs=0.1)
    assert 0 < curvature < 0.5


def test_a_changed_workload_leaves_the_first_as_it_is(digits):
    changed = changed_workload(digits, learning_rate=0.5)
    assert changed.spec.training.learning_rate == 0.5
    assert digits.spec.training.learning_rate == 0.05
    assert changed.dataset is digits.dataset


@pytest.mark.parametrize("training", [{"learning_rat": 0.5}, {"learning_rate": -1.0}])
def test_a_workload_is_not_changed_to_one_that_cannot_be(digits, training):
    with pytest.raises(ValueError, match="learning_rat"):
        changed_workload(digits, **training)


def test_other_data_get_a_model_with_the_settings_of_the_first(tmp_path):
    model = (
        "from siren.testing import tiny_model\n"
        "load_dataset = tiny_model.load_dataset\n"
        "class Model(tiny_model.Model):\n"
        "    def __init__(self, feature_shape, classes, scale=1):\n"
        "        super().__init__(feature_shape, classes)\n"
        "        self.scale = scale\n"
    )
    folder = write_tiny_workload(tmp_path / "scaled", model, model={"settings": {"scale": 7}})
    other, _ = floor_limited_data(64, inputs=3, heldout=8)
    changed = changed_workload(load_workload(str(folder)), other)
    assert changed.model.scale == 7
    assert changed.size == 4
