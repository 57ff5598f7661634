"""The laws of training on virtual machines."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import ActionError, PriceError, UnknownNameError
from siren.testing.tiny import tiny_workload
from siren.twin.twin import job_of
from siren.worlds import load_world
from siren.worlds.vm import Cluster, VmCosting, load_machines

WORLD, MACHINES = load_world("aws-2026"), load_machines()
JOB = replace(job_of(tiny_workload()), seconds_per_sample=0.01, seconds_per_push=0.0, parallel_fraction=0.0)
COSTING = VmCosting(WORLD, JOB, MACHINES)
ONE = Cluster("m4.large")


def test_every_type_of_the_testbed_has_laws_and_a_price():
    assert {"m4.large", "m4.xlarge", "m4.2xlarge", "c5.2xlarge"} <= set(COSTING.types())
    assert set(COSTING.types()) == set(MACHINES.instances)


def test_an_unknown_type_or_one_without_a_price_is_refused():
    with pytest.raises(UnknownNameError, match=r"m4\.large"):
        COSTING.check(Cluster("m4.lrge"))
    machines = MACHINES.model_copy(update={"instances": {"x9.huge": MACHINES.instances["m4.large"]}})
    with pytest.raises(PriceError, match=r"x9\.huge"):
        VmCosting(WORLD, JOB, machines).check(Cluster("x9.huge"))
    with pytest.raises(ActionError, match="0 machines"):
        COSTING.check(Cluster("m4.large", 0))


def test_data_that_do_not_fit_are_refused_until_machines_share_them():
    job = replace(JOB, dataset_samples=10_000_000, sample_bytes=1000)
    costing = VmCosting(WORLD, job, MACHINES)
    with pytest.raises(ActionError, match="too small"):
        costing.check(ONE)
    assert not costing.fits(ONE)
    assert costing.fits(Cluster("m4.large", 2))


@pytest.mark.parametrize(("seconds", "billed_s"), [(0.1, 60), (60.0, 60), (60.2, 61), (3600.0, 3600)])
def test_a_machine_is_billed_by_the_second_and_for_a_minute_at_least(seconds, billed_s):
    expected = Decimal("0.10") * billed_s / 3600
    assert 0 <= COSTING.bill_usd(ONE, seconds) - expected <= Decimal("1e-10")


def test_machines_are_not_billed_before_they_run():
    run = COSTING.run(ONE, epochs=50, steps=24, batch=10)
    running_s = run.duration_s - MACHINES.start.pending
    assert run.cost_usd == COSTING.bill_usd(ONE, running_s)
    assert running_s == pytest.approx(COSTING.ready_s(ONE) + 50 * run.epoch_s)


def test_all_cores_are_used_where_a_mini_batch_is_worth_dividing():
    assert COSTING.best_cores(Cluster("m4.2xlarge"), 64) == 8
    assert COSTING.step_s(Cluster("m4.2xlarge"), 64, 8) == pytest.approx(0.08, rel=0.01)
    light = VmCosting(WORLD, replace(JOB, seconds_per_sample=1e-7), MACHINES)
    assert light.best_cores(Cluster("m4.2xlarge"), 64) == 1  # cores would wait for each other


def test_threads_serve_a_process_by_amdahls_law():
    half = VmCosting(WORLD, replace(JOB, parallel_fraction=0.5), MACHINES)
    assert half.step_s(ONE, 10, 1) == pytest.approx(0.1 * (0.5 + 0.5 / 2))


def test_an_all_reduce_takes_the_better_of_ring_and_doubling():
    rate, latency = MACHINES.instances["m4.large"].bandwidth, MACHINES.network.latency
    small, large = replace(JOB, parameters=10), replace(JOB, parameters=10_000_000)
    doubling_s = 2 * (latency + 40 / rate)
    assert VmCosting(WORLD, small, MACHINES).reduce_s(Cluster("m4.large", 4), 1) == pytest.approx(doubling_s)
    ring_s = 6 * (latency + 10_000_000 / rate)
    assert VmCosting(WORLD, large, MACHINES).reduce_s(Cluster("m4.large", 4), 1) == pytest.approx(ring_s)


def test_one_process_on_one_machine_reduces_nothing():
    assert COSTING.reduce_s(ONE, 1) == 0.0


@given(
    machines=st.integers(1, 64),
    batch=st.integers(1, 10_000),
    sample_s=st.floats(1e-7, 1e-1),
    fraction=st.floats(0, 1),
)
def test_the_best_number_of_cores_is_never_slower_than_one_or_all(machines, batch, sample_s, fraction):
    job = replace(JOB, seconds_per_sample=sample_s, parallel_fraction=fraction)
    costing, cluster = VmCosting(WORLD, job, MACHINES), Cluster("c5.2xlarge", machines)
    best_s = costing.step_s(cluster, batch, costing.best_cores(cluster, batch))
    assert best_s <= min(costing.step_s(cluster, batch, 1), costing.step_s(cluster, batch, 8))


def test_more_machines_of_heavy_work_are_faster_and_dearer():
    runs = [COSTING.run(Cluster("m4.xlarge", k), epochs=500, steps=24, batch=1000) for k in (1, 2, 4)]
    assert [r.duration_s for r in runs] == sorted((r.duration_s for r in runs), reverse=True)
    assert [r.cost_usd for r in runs] == sorted(r.cost_usd for r in runs)


def test_an_unknown_file_of_machines_is_refused():
    with pytest.raises(UnknownNameError, match="ec2-2026"):
        load_machines("ec2-2025")
