"""The laws of time: Amdahl, bandwidth, memory, latencies, merging and evaluating."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import ChannelError
from siren.hsp.quotas import divide
from siren.twin.twin import job_of
from siren.types import BatchRule, ChannelKind, UpdateRule
from siren.worlds import events, laws, load_world, world_names
from siren.worlds.costing import make_costing
from siren.worlds.laws import RULES_OF_CHANNEL
from tests.twin.jobs import small_workload

WORLD = load_world("aws-2026")
JOB = job_of(small_workload(channel=ChannelKind.S3, update_rule="average"))
MEMORY = st.integers(128, 10240)
FRACTION = st.floats(0, 1)


@given(MEMORY, MEMORY, FRACTION)
def test_more_memory_is_never_slower(a, b, p):
    low, high = sorted((a, b))
    assert laws.speed(WORLD.cpu, low, p) <= laws.speed(WORLD.cpu, high, p) * (1 + 1e-12)


@given(MEMORY, FRACTION, FRACTION)
def test_a_larger_parallel_fraction_is_never_slower(m, a, b):
    low, high = sorted((a, b))
    assert laws.speed(WORLD.cpu, m, low) <= laws.speed(WORLD.cpu, m, high) * (1 + 1e-12)


@given(st.integers(128, 1769), FRACTION)
def test_below_one_vcpu_speed_is_the_share_of_it(m, p):
    assert laws.speed(WORLD.cpu, m, p) == pytest.approx(m / 1769)


@given(st.integers(1769, 10240), FRACTION)
def test_above_one_vcpu_speed_follows_amdahl(m, p):
    v = min(m / 1769, 5.79)
    assert laws.speed(WORLD.cpu, m, p) == pytest.approx(1 / ((1 - p) + p / v))
    assert laws.speed(WORLD.cpu, m, 0.0) == 1
    assert laws.speed(WORLD.cpu, m, 1.0) == pytest.approx(v)


@given(st.integers(1, 3000), MEMORY, st.sampled_from(ChannelKind))
def test_bandwidth_is_the_least_of_the_functions_its_cpus_and_its_share_of_the_store(n, m, kind):
    store = WORLD.channels[kind]
    found = laws.bandwidth(WORLD.network, WORLD.cpu, store, n, m)
    parts = (
        WORLD.network.per_function,
        WORLD.network.per_vcpu * min(m / 1769, 5.79),
        store.aggregate / n,
    )
    assert found == pytest.approx(min(parts))


@given(st.integers(1, 240), st.integers(1, 10**6), st.integers(1, 10**7))
def test_a_worker_needs_its_packages_its_shard_and_four_models(n, sample_bytes, parameters):
    job = dataclasses.replace(JOB, sample_bytes=sample_bytes, parameters=parameters)
    shard = int(job.shard_samples(n)) * sample_bytes
    wanted = 30 + (shard + 4 * 4 * parameters) / 2**20
    assert laws.memory_needed_mb(job, n) == pytest.approx(wanted)


@pytest.mark.parametrize("name", world_names())
@pytest.mark.parametrize("kind", ChannelKind)
@pytest.mark.parametrize("read", [True, False])
def test_the_mean_latency_is_that_of_the_draws(name, kind, read):
    store = load_world(name).channels[kind]
    law = events.latency_of(store, read=read)
    draws = events.draw_latencies(np.random.default_rng(1), law, 200_000)
    median, sigma = (store.read_median, store.read_sigma) if read else (store.write_median, store.write_sigma)
    error = draws.std() / math.sqrt(len(draws))
    assert draws.mean() == pytest.approx(laws.latency_mean_s(store, median, sigma), abs=5 * error + 1e-12)
    assert np.median(draws) == pytest.approx(median, rel=0.02)


@pytest.mark.parametrize("shape", [0.5, 1.0, 1.5, 2.5])
def test_the_pareto_tail_has_the_mean_of_the_draws(shape):
    store = WORLD.channels[ChannelKind.S3].model_copy(
        update={
            "tail_probability": 0.25,
            "tail_shape": shape,
            "tail_max": 3.0,
            "read_median": 0.0,
            "read_sigma": 0.0,
        }
    )
    draws = events.draw_latencies(np.random.default_rng(2), events.latency_of(store, read=True), 200_000)
    hit = draws > 0
    assert hit.mean() == pytest.approx(0.25, abs=0.01)
    assert draws[hit].min() >= 0.1
    assert draws.max() <= 3.0
    error = draws.std() / math.sqrt(len(draws))
    assert draws.mean() == pytest.approx(laws.latency_mean_s(store, 0.0, 0.0), abs=5 * error)


def test_a_store_without_a_tail_has_none():
    store = WORLD.channels[ChannelKind.REDIS]
    assert laws.latency_mean_s(store, 1.0, 0.0) == 1.0


@pytest.mark.parametrize("variation", [0.0, 0.03, 0.5, 2.0])
def test_noise_has_mean_one_and_the_stated_variation(variation):
    rng = np.random.default_rng(3)
    draws = np.array([events.draw_noise(rng, variation) for _ in range(4000)])
    assert draws.mean() == pytest.approx(1, abs=6 * variation / math.sqrt(4000) + 1e-12)
    assert draws.std() == pytest.approx(variation, rel=0.6)
    if variation == 0:
        assert (draws == 1).all()


@given(st.integers(1, 60), st.sampled_from(WORLD.limits.memory_grid), st.sampled_from(BatchRule))
def test_compute_of_a_push_follows_the_batch_and_the_speed(n, m, rule):
    job = dataclasses.replace(JOB, batch_rule=rule)
    epoch = laws.epoch_laws(WORLD, job, n, m)
    batch = 4 if rule is BatchRule.CONSTANT else 240 / (3 * n)
    pace = float(laws.speed(WORLD.cpu, m, 0.5))
    assert epoch.compute_s == pytest.approx((2e-3 + 1e-3 * batch) / pace)
    assert epoch.push_overhead_s + epoch.sample_s * batch == pytest.approx(float(epoch.compute_s))
    assert epoch.pushes == (60 if rule is BatchRule.CONSTANT else 3 * n)


def test_a_shard_is_loaded_in_ranges_of_sixteen_megabytes():
    job = dataclasses.replace(JOB, sample_bytes=2**20)
    for n in (1, 5, 15, 16):
        epoch = laws.epoch_laws(WORLD, job, n, 1769)
        assert epoch.load_requests == math.ceil(job.shard_samples(n) / 16)
        assert epoch.load_s == pytest.approx(job.shard_samples(n) * 2**20 / 78_643_200)


def test_the_largest_shard_is_that_of_the_quotas():
    for n in (1, 3, 7, 20):
        for rule in BatchRule:
            job = dataclasses.replace(JOB, batch_rule=rule)
            assert job.shard_samples(n) == np.diff(divide(job, n).shards).max()


def test_only_s3_merges_and_only_where_functions_meet_at_a_barrier():
    for channel in ChannelKind:
        for rule in RULES_OF_CHANNEL[channel]:
            job = dataclasses.replace(JOB, channel=channel, update_rule=rule)
            merge_s = [float(laws.epoch_laws(WORLD, job, n, 1769).merge_s) for n in (1, 2, 16, 17, 50)]
            if channel is ChannelKind.S3 and rule in laws.BARRIER_RULES:
                assert merge_s[0] == 0
                assert merge_s == sorted(merge_s)
                assert merge_s[3] - merge_s[2] > 0.027  # one more round of requests
            else:
                assert merge_s == [0] * 5


def test_s3_carries_no_rule_that_needs_an_atomic_add():
    assert not {UpdateRule.ADDITIVE, UpdateRule.STALENESS} & RULES_OF_CHANNEL[ChannelKind.S3]


def test_a_store_that_adds_in_place_carries_no_compare_and_swap():
    assert UpdateRule.CAS not in RULES_OF_CHANNEL[ChannelKind.REDIS]
    with pytest.raises(ChannelError, match="redis, which adds in place, so `additive` does the same"):
        make_costing(WORLD, dataclasses.replace(JOB, update_rule=UpdateRule.CAS, channel=ChannelKind.REDIS))


def test_evaluation_is_billed_only_if_a_function_does_it():
    for function in (False, True):
        job = dataclasses.replace(JOB, evaluator_is_function=function, evaluate_seconds_per_sample=0.01)
        epoch = laws.epoch_laws(WORLD, job, 3, 512)
        assert epoch.evaluate_s > 200 * 0.01 * (0.5 if not function else 1)
        assert (epoch.evaluate_billed_s > 0) == function


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(WORLD.limits.memory_grid)), min_size=1))
def test_laws_of_many_actions_are_the_laws_of_each(actions):
    n, m = (np.array(column, np.float64) for column in zip(*actions, strict=True))
    together = laws.epoch_laws(WORLD, JOB, n, m)
    for k in range(len(actions)):
        alone = laws.epoch_laws(WORLD, JOB, n[k], m[k])
        for field in dataclasses.fields(together):
            both = np.broadcast_to(getattr(together, field.name), n.shape)
            assert both[k] == pytest.approx(float(getattr(alone, field.name)), rel=1e-12)
