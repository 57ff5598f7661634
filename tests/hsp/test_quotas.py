"""Quotas divide an epoch evenly and completely, and refuse more functions than there is work for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import ActionError
from siren.hsp import quotas
from siren.twin.twin import job_of
from siren.types import BatchRule
from siren.worlds.laws import Job
from tests.twin.jobs import small_workload

JOB = job_of(small_workload())


def constant(pushes: int, batch: int) -> Job:
    return dataclasses.replace(
        JOB, batch_rule=BatchRule.CONSTANT, samples=pushes * batch, batch_size=batch, dataset_samples=10**9
    )


def split(samples: int, pushes_per_function: int) -> Job:
    return dataclasses.replace(
        JOB,
        batch_rule=BatchRule.SPLIT,
        samples=samples,
        pushes_per_function=pushes_per_function,
        dataset_samples=10**9,
    )


@given(st.integers(1, 3000), st.integers(0, 5000), st.integers(1, 64))
def test_constant_batches_are_shared_by_floor_and_ceiling(functions, more, batch):
    job = constant(functions + more, batch)
    quota = np.diff(quotas.divide(job, functions).first_push)
    pushes = functions + more
    assert quota.sum() == pushes
    assert quota.min() == pushes // functions
    assert quota.max() == -(-pushes // functions)


@given(st.integers(1, 3000), st.integers(0, 5000), st.integers(1, 64))
def test_constant_batches_all_have_the_stated_size(functions, more, batch):
    divided = quotas.divide(constant(functions + more, batch), functions)
    assert (np.diff(divided.first_sample) == batch).all()
    assert divided.pushes == functions + more


@given(st.integers(1, 3000), st.integers(1, 20), st.integers(0, 100_000))
def test_split_gives_every_function_its_pushes_and_batches_by_floor_and_ceiling(functions, k, more):
    samples = functions * k + more
    divided = quotas.divide(split(samples, k), functions)
    batch = np.diff(divided.first_sample)
    assert (np.diff(divided.first_push) == k).all()
    assert batch.sum() == samples
    assert batch.min() == samples // (functions * k)
    assert batch.max() == -(-samples // (functions * k))


@given(st.integers(1, 3000), st.integers(1, 20), st.integers(0, 5000), st.sampled_from(BatchRule))
def test_shards_are_contiguous_and_cover_the_epoch_exactly_once(functions, per_push, more, rule):
    if rule is BatchRule.CONSTANT:
        job = constant(functions + more, per_push)
    else:
        job = split(functions * per_push + more, per_push)
    divided = quotas.divide(job, functions)
    shards = divided.shards
    assert shards[0] == 0
    assert shards[-1] == job.samples
    assert (np.diff(shards) >= 1).all()
    assert len(shards) == functions + 1
    np.testing.assert_array_equal(shards, divided.first_sample[divided.first_push])


@given(st.integers(1, 3000), st.integers(1, 64))
def test_more_functions_than_mini_batches_are_refused_with_the_limit(pushes, batch):
    job = constant(pushes, batch)
    assert job.functions_max == pushes
    quotas.divide(job, pushes)
    with pytest.raises(ActionError, match=f"choose at most {pushes:,}$"):
        quotas.divide(job, pushes + 1)


@given(st.integers(1, 100_000), st.integers(1, 20))
def test_more_functions_than_samples_to_push_are_refused_with_the_limit(samples, k):
    job = split(max(samples, k), k)
    quotas.divide(job, job.functions_max)
    with pytest.raises(ActionError, match=rf"S/k = .*choose at most {job.functions_max:,}$"):
        quotas.divide(job, job.functions_max + 1)
