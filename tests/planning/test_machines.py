"""What a job would take on machines: epochs by real gradients, the best mini-batch of every cluster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from siren.planning.bands import band_of
from siren.planning.machines import (
    Convergence,
    VmOption,
    measure,
    options,
    pushes_tried,
    sequential,
    undominated,
)
from siren.rehearsal.stage import Stage
from siren.simulator.twin_jobs import loss_curve
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.twin.twin import Twin, job_of
from siren.types import Action
from siren.worlds import load_world
from siren.worlds.vm import VmCosting, load_machines

TARGET = 0.6


def stage_of(**training) -> Stage:
    workload = tiny_workload(training={"target_loss": TARGET, **training})
    return Stage(workload, tiny_costing(workload))


def vm_costing(**changes) -> VmCosting:
    return VmCosting(load_world("aws-2026"), replace(job_of(tiny_workload()), **changes), load_machines())


def test_epochs_are_those_of_one_sequential_worker_on_real_gradients():
    stage = stage_of()
    (found,) = measure(stage, TARGET, seconds=30.0, runs=3)
    alone = stage.costing  # additive over Redis with one function has no staleness
    losses = loss_curve(Twin(stage.workload, alone, 40_000_000), Action(1, 1769), 60, TARGET)
    assert found.epochs[0] == len(losses) - 1
    assert len(found.epochs) == 3
    assert (found.steps, found.batch) == (24, 10.0)
    assert not found.estimated


def test_a_sequential_twin_is_limited_by_nothing():
    workload = sequential(tiny_workload(cost={"seconds_per_sample": 100.0, "runtime_mb": 1e6}), 4)
    twin = Twin(workload, tiny_costing(workload), 0)
    assert np.isfinite(loss_curve(twin, Action(1, 10240), 1)).all()


def test_under_split_several_mini_batches_are_tried():
    assert pushes_tried(stage_of(batch_rule="split").workload) == [4, 16, 64]  # 240 samples
    assert pushes_tried(stage_of().workload) == [4]
    found = measure(stage_of(batch_rule="split", learning_rate=0.2), TARGET, seconds=30.0, runs=1)
    assert {c.steps for c in found} <= {4, 16, 64}
    assert all(c.steps * c.batch == 240 for c in found)
    epochs = [c.epochs[0] for c in found]
    assert epochs == sorted(epochs, reverse=True)  # more steps, fewer epochs


def test_a_target_that_is_never_reached_leaves_no_machine():
    assert measure(stage_of(), 1e-6, seconds=30.0, runs=1) == []
    assert options(vm_costing(), []) == []


def test_every_cluster_takes_its_fastest_mini_batch():
    slow, fast = Convergence(24, 10.0, (40, 42)), Convergence(96, 2.5, (9, 9))
    found = options(vm_costing(), [slow, fast])
    assert {option.instance for option in found} >= {"m4.large", "m4.xlarge", "m4.2xlarge", "c5.2xlarge"}
    assert {option.machines for option in found} == {1, 2, 4, 8}
    assert all(option.batch == 2.5 for option in found)
    assert all(option.epochs == 9.0 for option in found)


def test_heavy_jobs_gain_from_cores_and_machines_light_ones_do_not():
    convergence = [Convergence(10, 64.0, (100,))]
    heavy = options(vm_costing(seconds_per_sample=0.05), convergence)
    assert max(o.cores for o in heavy) == 8
    fastest = min(heavy, key=lambda o: o.time_s.mean)
    assert fastest.machines == 8
    light = options(vm_costing(seconds_per_sample=1e-7, seconds_per_push=0.0), convergence)
    assert {o.cores for o in light} == {1}


def test_undominated_options_trade_time_for_dollars():
    def option(name: str, time_s: float, usd: float) -> VmOption:
        return VmOption(name, 1, 1, 1.0, 1.0, band_of([time_s]), band_of([usd]), False)

    found = undominated([option("a", 10, 3), option("b", 20, 1), option("c", 15, 3), option("d", 30, 1)])
    assert [o.instance for o in found] == ["a", "b"]


@pytest.mark.parametrize("seconds", [1e-6])
def test_what_was_cut_off_says_that_it_is_estimated(seconds):
    (found,) = measure(stage_of(), TARGET, seconds=seconds, runs=3)
    assert found.estimated
    assert len(found.epochs) == 1
