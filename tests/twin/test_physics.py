"""The known physics of asynchronous SGD shows in the twin; experiments/physics.py draws the figure."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from experiments import physics
from siren.analysis import asynchrony
from siren.types import BatchRule, ChannelKind, UpdateRule

SEEDS = (0, 1)


@functools.cache
def job():
    """A logistic regression of 12,800 samples; its best training loss and largest curvature."""
    data, _ = asynchrony.floor_limited_data(12_800, inputs=10, heldout=200)
    workload = asynchrony.changed_workload(
        physics.higgs(), data, samples_per_epoch=12_800, batch_size=32, channel=ChannelKind.MEMORY
    )
    best, curvature = asynchrony.logistic_optimum(data.train_features, data.train_labels)
    loss, _ = workload.model.evaluate(best.astype(np.float32), data.train_features, data.train_labels)
    return workload, loss, curvature


def ratio(functions: int, epochs: int = 2, **training) -> float:
    """Excess loss after an epoch over that before, geometric mean over epochs and seeds."""
    workload, best, _ = job()
    changed = asynchrony.changed_workload(workload, **training)
    found = [physics.progress(changed, best, functions, seed, epochs).excess_ratio for seed in SEEDS]
    return float(np.exp(np.mean(np.log(found))))


def lost(functions: int) -> float:
    workload, best, _ = job()
    changed = asynchrony.changed_workload(workload, update_rule=UpdateRule.OVERWRITE, learning_rate=0.05)
    return physics.progress(changed, best, functions, 0, 1).lost_share


def test_overwriting_loses_nearly_all_updates_as_functions_grow():
    shares = [lost(n) for n in (1, 2, 5, 20, 100)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[1] > 0.3
    assert shares[3] > 0.9
    assert shares[4] > 0.97


def test_overwriting_makes_less_progress_the_more_functions_there_are():
    ratios = [
        ratio(n, epochs=1, update_rule=UpdateRule.OVERWRITE, learning_rate=0.05) for n in (1, 5, 20, 100)
    ]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.1
    assert ratios[-1] > 0.7


def test_additive_updates_make_the_same_progress_at_every_n_below_the_cliff():
    rate = 0.005
    assert asynchrony.predicted_cliff(rate, job()[2]) > 1000
    ratios = [ratio(n, epochs=1, learning_rate=rate) for n in (1, 4, 16, 64)]
    assert max(ratios) / min(ratios) < 1.15
    assert ratios[0] < 0.8


@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_additive_updates_diverge_beyond_the_predicted_cliff(rate):
    cliff = asynchrony.predicted_cliff(rate, job()[2])
    assert 10 < cliff < 60
    alone = ratio(1, learning_rate=rate)
    assert ratio(round(cliff / 2), learning_rate=rate) < min(3 * alone, 0.3)
    assert ratio(round(cliff * 2), learning_rate=rate) > 10 * alone
    assert ratio(round(cliff * 4), learning_rate=rate) > 1


def test_the_cliff_goes_with_the_inverse_of_the_learning_rate():
    curvature = job()[2]
    assert asynchrony.predicted_cliff(0.2, curvature) - 1 == pytest.approx(
        2 * (asynchrony.predicted_cliff(0.4, curvature) - 1)
    )
    n = round(1.5 * asynchrony.predicted_cliff(0.4, curvature))
    assert ratio(n, learning_rate=0.4) > 2 * ratio(n, learning_rate=0.2)


def test_damping_by_staleness_moves_the_cliff():
    rate, curvature = 0.4, job()[2]
    cliff = asynchrony.predicted_cliff(rate, curvature)
    n = round(2.5 * cliff)
    diverging = ratio(n, learning_rate=rate)
    assert diverging > 1
    scale = cliff
    assert asynchrony.predicted_cliff(rate, curvature, scale) > n
    damped = ratio(n, learning_rate=rate, update_rule=UpdateRule.STALENESS, staleness_scale=scale)
    assert damped < 0.5 * diverging
    assert damped < 1


def test_light_damping_moves_the_cliff_less_than_strong_damping():
    rate, curvature = 0.4, job()[2]
    cliff = asynchrony.predicted_cliff(rate, curvature)
    marks = [asynchrony.predicted_cliff(rate, curvature, s) for s in (math.inf, 4 * cliff, 1.5 * cliff)]
    assert marks == sorted(marks)
    assert asynchrony.predicted_cliff(rate, curvature, cliff / 2) == math.inf
    n = round(2.5 * cliff)
    ratios = [
        ratio(n, learning_rate=rate, update_rule=UpdateRule.STALENESS, staleness_scale=s)
        for s in (20 * cliff, 1.5 * cliff, cliff / 4)
    ]
    assert ratios == sorted(ratios, reverse=True)


SCHEDULES = {
    "few": (physics.fixed(14), 100),
    "middle": (physics.fixed(28), 50),
    "more": (physics.fixed(38), 50),
    "many": (physics.fixed(80), 40),
    "many, then few": (physics.many_then_few(80, 28, 8), 40),
}
"""Under `split`, near the noise floor; with the most epochs each may take."""


@functools.cache
def arrivals() -> dict[str, list[physics.Arrival]]:
    """How each schedule came to the target, by seed; seeds that chose nothing."""
    workload, best, _ = asynchrony.floor_limited_job()
    assert workload.spec.training.batch_rule is BatchRule.SPLIT
    costing = asynchrony.changed_costing(workload, seconds_per_sample=physics.SECONDS_PER_SAMPLE)
    target = best + physics.TARGET_GAP
    return {
        name: [physics.arrive(workload, costing, target, schedule, seed, most) for seed in range(200, 204)]
        for name, (schedule, most) in SCHEDULES.items()
    }


def mean(name: str, attribute: str) -> float:
    return float(np.mean([getattr(a, attribute) for a in arrivals()[name]]))


def test_under_split_few_functions_are_slow():
    assert all(a.reached for a in arrivals()["few"])
    assert mean("few", "seconds") > 2.5 * mean("middle", "seconds")


def test_under_split_very_many_functions_are_expensive_and_do_not_arrive():
    assert not any(a.reached for a in arrivals()["many"])
    assert mean("many", "dollars") > 1.5 * mean("middle", "dollars")


def test_under_split_many_early_and_few_late_is_faster_than_any_fixed_at_no_more_cost():
    assert all(a.reached for a in arrivals()["many, then few"])
    for name in ("few", "middle", "more"):
        assert all(a.reached for a in arrivals()[name]), name
        assert mean("many, then few", "seconds") < 0.9 * mean(name, "seconds"), name
        assert mean("many, then few", "dollars") <= mean(name, "dollars"), name


def test_the_figure_is_drawn(tmp_path):
    rows = [
        {"series": s, "functions": n, "excess_ratio": 0.5, "lost_share": 0.5}
        for s in ("overwrite", "additive", "0.1", "inf")
        for n in (1, 2)
    ]
    physics.draw(
        {
            "overwrite": rows,
            "additive": [r | {"series": s} for r in rows for s in ("1", "2", "3")],
            "additive_cliffs": {"1": 10.0, "2": 20.0, "3": 30.0},
            "staleness": [r | {"series": s} for r in rows for s in ("inf", "40", "25", "10")],
            "staleness_cliffs": {"inf": 10.0, "40": 20.0, "25": 30.0, "10": math.inf},
            "split": {
                "table": {"5": {"reached": 0.5, "seconds": (2.0, 1.0, 3.0), "dollars": (2.0, 1.0, 3.0)}},
                "chosen": "5",
            },
        },
        tmp_path / "physics.png",
    )
    assert (tmp_path / "physics.png").stat().st_size > 10_000
