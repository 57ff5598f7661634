"""How much is tried to find the best fixed action of a job, and what is left out."""

import numpy as np
import pytest

from siren.evaluation import baseline, seeds
from siren.evaluation.baseline import SPARING, THOROUGH, Trials, effort_for, ranked, scout
from siren.evaluation.jobs import JobInTwin
from siren.testing.tiny import tiny_costing, tiny_workload


@pytest.fixture
def large(monkeypatch):
    """The tiny job counts as large."""
    monkeypatch.setattr(baseline, "LARGE_EPOCH", 100)


def job_of(**sections) -> JobInTwin:
    workload = tiny_workload(**sections)
    training = workload.spec.training
    rules = str(training.batch_rule), str(training.update_rule)
    return JobInTwin(tiny_costing(workload), training, {}, rules, workload)


def test_effort_follows_what_an_epoch_computes_in_the_twin(monkeypatch):
    job = job_of()
    assert effort_for(job) is THOROUGH
    monkeypatch.setattr(baseline, "LARGE_EPOCH", job.workload.samples * job.workload.size - 1)
    assert effort_for(job) is SPARING


def test_counts_that_save_nothing_are_left_out_of_large_jobs_with_constant_batches(large):
    """Where starts and the store decide, more functions are as slow and dearer."""
    slow = job_of(cost={"seconds_per_sample": 2e-3, "seconds_per_push": 0.0})
    found = scout(slow)
    grid, least = found.grid, found.grid.functions.min()
    assert found.epochs.shape == (len(grid.functions), SPARING.scouts)
    assert least == 1
    assert grid.functions.max() < slow.costing.job.functions_max
    assert (found.epochs[0] > 0).all()


def test_other_jobs_are_scouted_at_all_counts():
    job = job_of()
    found = scout(job)
    assert found.grid.functions.max() == job.costing.job.functions_max
    assert found.epochs.shape[1] == seeds.SCOUT_COUNT


def test_under_split_no_count_is_left_out(large):
    """More functions push more often there, and so may need fewer epochs."""
    training = {"batch_rule": "split", "pushes_per_function": 10}
    slow = job_of(training=training)
    assert scout(slow).grid.functions.max() == slow.costing.job.functions_max


def test_a_failure_counts_twice_the_time_of_the_fastest_reliable_candidate():
    sure = Trials(np.array([True, True, True, True]), np.full(4, 10.0), np.zeros(4))
    fast_but_unsure = Trials(np.array([True, True, False, False]), np.full(4, 5.0), np.zeros(4))
    slow = Trials(np.array([True, True, True, True]), np.full(4, 13.0), np.zeros(4))
    assert ranked([slow, fast_but_unsure, sure]) == [2, 1, 0]
    assert fast_but_unsure.success_rate == pytest.approx(0.5)
