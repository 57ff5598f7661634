"""What every trace of an epoch must keep to, whatever the times, and its closed forms without noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.hsp import quotas
from siren.twin.twin import job_of
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.worlds import events, load_world
from tests.twin.jobs import (
    ASYNCHRONOUS,
    ideal,
    plan_of,
    rules_of,
    small_workload,
    timing_twin,
)

SMALL = 1e-9
JOBS = {
    rule: job_of(small_workload(batch_rule=rule, samples=48, batch_size=4, pushes_per_function=3))
    for rule in BatchRule
}


def flat(median_s: float, sigma: float = 0.0) -> events.Latency:
    return events.Latency(median_s, sigma, 0.0, 0.0, 2.0, 0.0)


def run(rule: UpdateRule, times: events.Times, starts: events.Starts, split: quotas.Quotas, seed: int = 0):
    arguments = (starts, split.first_push, split.first_sample, np.random.default_rng(seed))
    if rule is UpdateRule.AVERAGE:
        return events.run_average(times, *arguments)
    if rule is UpdateRule.SYNC:
        return events.run_synchronous(times, *arguments)
    mode = events.COMPARE_AND_SWAP if rule is UpdateRule.CAS else events.ASYNCHRONOUS
    return events.run_asynchronous(times, mode, *arguments)


@st.composite
def epochs(draw, rules=tuple(UpdateRule)):
    """(rule, times, starts, quotas, seed) of any epoch."""
    seconds = st.one_of(st.just(0.0), st.floats(1e-4, 2.0))
    sigma = st.sampled_from([0.0, 0.3, 1.0])
    batch_rule = draw(st.sampled_from(BatchRule))
    n = draw(st.integers(1, 12))
    split = quotas.divide(JOBS[batch_rule], n)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def latency():
        return events.Latency(draw(seconds), draw(sigma), draw(st.sampled_from([0.0, 0.2])), 0.5, 1.5, 5.0)

    times = events.Times(
        read=latency(),
        write=latency(),
        transfer_s=draw(seconds),
        push_overhead_s=draw(st.floats(1e-3, 0.5)),
        sample_s=draw(st.floats(1e-3, 0.1)),
        service_s=draw(seconds),
        merge_s=draw(seconds),
        push_noise=draw(st.sampled_from([0.0, 0.1, 1.0])),
        retry_limit=draw(st.sampled_from([0, 2, 1000])),
        reads_queue=draw(st.booleans()),
    )
    ready_s = np.round(rng.random(n) * draw(st.sampled_from([0.0, 0.5, 5.0])), 2)
    deadline_s = draw(st.sampled_from([0.5, 3.0, 20.0, 1e6]))
    hangs = np.full(n, -1, np.int64)
    for i in np.flatnonzero(rng.random(n) < draw(st.sampled_from([0.0, 0.3]))):
        hangs[i] = rng.integers(split.first_push[i], split.first_push[i + 1])
    limit_s = ready_s + deadline_s
    starts = events.Starts(ready_s, limit_s, limit_s + 0.25, 1 + rng.random(n), hangs)
    return draw(st.sampled_from(rules)), times, starts, split, draw(st.integers(0, 1000))


@given(epochs())
def test_a_function_that_finished_pushed_its_quota_and_every_push_lands_once(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    assert len(set(trace.push.tolist())) == len(trace.push)
    for i in range(len(starts.ready_s)):
        mine = trace.push[(trace.push >= split.first_push[i]) & (trace.push < split.first_push[i + 1])]
        np.testing.assert_array_equal(mine, split.first_push[i] + np.arange(trace.done[i]))


@given(epochs())
def test_an_update_was_computed_on_a_version_that_existed(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    assert len(trace.read_version) == len(trace.push)
    assert (trace.read_version >= 0).all()
    assert (trace.read_version <= np.arange(len(trace.push))).all()


@given(epochs(rules=ASYNCHRONOUS))
def test_a_function_reads_a_version_that_holds_its_own_last_update(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    owner = np.searchsorted(split.first_push, trace.push, side="right")
    for i in set(owner.tolist()):
        mine = np.flatnonzero(owner == i)
        assert (trace.read_version[mine[1:]] > mine[:-1]).all()


@given(epochs())
def test_no_function_outlives_its_deadline_unless_it_hangs_until_the_timeout(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    hung = starts.hangs >= 0
    assert (trace.end_s[~hung] <= starts.limit_s[~hung] + SMALL).all()
    assert (trace.end_s <= starts.kill_s + SMALL).all()
    assert (trace.end_s >= starts.ready_s - SMALL).all()


@given(epochs())
def test_a_function_that_hangs_is_killed_at_its_timeout_or_stopped_before(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    quota = np.diff(split.first_push)
    for i in np.flatnonzero(starts.hangs >= 0):
        assert trace.done[i] <= starts.hangs[i] - split.first_push[i]
        assert trace.done[i] < quota[i]
        if rule is UpdateRule.AVERAGE or (
            rule in ASYNCHRONOUS and trace.done[i] == starts.hangs[i] - split.first_push[i]
        ):
            assert trace.end_s[i] == starts.kill_s[i]


@given(epochs())
def test_the_barrier_waits_for_everybody_and_times_add_up_to_it(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    assert trace.barrier_s >= trace.end_s.max()
    for spent in (trace.fetch_s, trace.compute_s, trace.update_s):
        assert (spent >= -SMALL).all()
    spent = trace.fetch_s + trace.compute_s + trace.update_s
    assert (starts.ready_s + spent <= trace.barrier_s + 1e-6).all()


@given(epochs())
def test_a_function_that_finished_its_quota_is_not_cut(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    cut = trace.done < np.diff(split.first_push)
    assert len(trace.push) == trace.done.sum()
    if rule in ASYNCHRONOUS and trace.retries == 0:
        stopped = (trace.end_s >= starts.limit_s - SMALL) | (starts.hangs >= 0)
        assert stopped[cut].all()


@given(epochs(rules=(UpdateRule.ADDITIVE, UpdateRule.AVERAGE, UpdateRule.SYNC)))
def test_the_store_serves_one_push_at_a_time(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    served = (trace.done > 0).sum() if rule is UpdateRule.AVERAGE else len(trace.push)
    busy_s = served * times.service_s
    if rule is UpdateRule.SYNC:
        steps = trace.read_version.max() + 1 if served else 0
        busy_s += steps * times.merge_s
    if served:
        assert trace.barrier_s - starts.ready_s.min() >= busy_s - 1e-6


@given(epochs(rules=(UpdateRule.CAS,)))
def test_no_function_retries_more_often_than_its_limit_allows(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    n = len(starts.ready_s)
    assert 0 <= trace.retries <= n * (times.retry_limit + 1)
    if n == 1:
        assert trace.retries == 0


@given(epochs(rules=(UpdateRule.SYNC,)))
def test_the_functions_of_a_synchronous_step_push_together_or_not_at_all(epoch):
    rule, times, starts, split, seed = epoch
    trace = run(rule, times, starts, split, seed)
    quota = np.diff(split.first_push)
    steps = trace.read_version.max() + 1 if len(trace.push) else 0
    np.testing.assert_array_equal(trace.done, np.minimum(quota, steps))
    for step in range(steps):
        assert (trace.read_version == step).sum() == (quota > step).sum()


@given(epochs())
def test_the_same_generator_gives_the_same_trace(epoch):
    rule, times, starts, split, seed = epoch
    first, second = (run(rule, times, starts, split, seed) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def plain(n: int, rule: BatchRule = BatchRule.CONSTANT, deadline_s: float = 1e6):
    split = quotas.divide(JOBS[rule], n)
    zeros = np.zeros(n)
    starts = events.Starts(
        zeros, zeros + deadline_s, zeros + deadline_s + 1, np.ones(n), np.full(n, -1, np.int64)
    )
    return split, starts


def still(**changes) -> events.Times:
    base = events.Times(flat(0.0), flat(0.0), 0.0, 0.5, 0.125, 0.0, 0.0, 0.0, 1000, False)
    return base._replace(**changes)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("rule", UpdateRule)
def test_without_noise_an_epoch_takes_the_compute_of_the_largest_quota(rule, n):
    split, starts = plain(n)
    trace = run(rule, still(), starts, split)  # a push of 4 samples computes for exactly 1 s
    assert trace.barrier_s == math.ceil(12 / n)
    np.testing.assert_array_equal(trace.compute_s, np.diff(split.first_push))
    assert trace.fetch_s.sum() == trace.update_s.sum() == 0


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("rule", [UpdateRule.OVERWRITE, UpdateRule.ADDITIVE, UpdateRule.STALENESS])
def test_without_noise_latencies_and_transfers_add_to_every_push(rule, n):
    split, starts = plain(n)
    times = still(read=flat(0.25), write=flat(0.5), transfer_s=0.125)
    trace = run(rule, times, starts, split)
    each = 12 // n
    assert trace.barrier_s == each * (0.25 + 0.125 + 1 + 0.5 + 0.125)
    np.testing.assert_array_equal(trace.fetch_s, np.full(n, each * 0.375))
    np.testing.assert_array_equal(trace.update_s, np.full(n, each * 0.625))


def test_under_average_latencies_are_paid_once_an_epoch():
    split, starts = plain(4)
    trace = run(UpdateRule.AVERAGE, still(read=flat(0.25), write=flat(0.5), transfer_s=0.125), starts, split)
    assert trace.barrier_s == 0.25 + 0.125 + 3 * 1 + 0.5 + 0.125


def test_under_sync_every_step_pays_latency_service_and_merge():
    split, starts = plain(4)
    times = still(read=flat(0.25), write=flat(0.5), transfer_s=0.125, service_s=0.0625, merge_s=2.0)
    trace = run(UpdateRule.SYNC, times, starts, split)
    assert trace.barrier_s == 3 * (0.25 + 0.125 + 1 + 0.5 + 0.125 + 4 * 0.0625 + 2.0)


def test_a_slow_store_bounds_the_epoch_by_its_service_rate():
    split, starts = plain(12)
    trace = run(UpdateRule.ADDITIVE, still(service_s=0.5), starts, split)
    assert trace.barrier_s == 1 + 12 * 0.5
    np.testing.assert_array_equal(np.sort(trace.end_s), 1 + 0.5 * np.arange(1, 13))


def test_simultaneous_pushes_land_in_the_order_of_the_functions():
    split, starts = plain(12)
    trace = run(UpdateRule.ADDITIVE, still(), starts, split)
    np.testing.assert_array_equal(trace.push, np.arange(12))
    np.testing.assert_array_equal(trace.read_version, np.zeros(12))


def test_waiting_for_a_slow_store_beyond_the_deadline_is_no_compute():
    split, starts = plain(4, deadline_s=2.75)
    trace = run(UpdateRule.ADDITIVE, still(service_s=1.0), starts, split)
    assert trace.barrier_s == 1 + 4 * 1.0
    assert trace.done.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(trace.compute_s, [1.75, 1.0, 1.0, 1.0])
    assert trace.fetch_s.sum() == 0


def test_a_fetch_that_the_deadline_cuts_is_counted_up_to_it():
    split, starts = plain(1, deadline_s=0.5)
    trace = run(UpdateRule.ADDITIVE, still(transfer_s=1.0), starts, split)
    assert (trace.fetch_s[0], trace.compute_s[0]) == (0.5, 0)
    split, starts = plain(1, deadline_s=1.75)
    trace = run(UpdateRule.ADDITIVE, still(transfer_s=1.0), starts, split)
    assert (trace.fetch_s[0], trace.compute_s[0]) == (1.0, 0.75)


def test_of_two_racing_compare_and_swaps_one_retries_once():
    split = quotas.Quotas(np.arange(3), np.arange(3) * 4)
    _, starts = plain(2)
    times = still(read=flat(0.25), write=flat(0.5), transfer_s=0.125)
    trace = run(UpdateRule.CAS, times, starts, split)
    assert trace.retries == 1
    cycle_s = 0.25 + 0.125 + 1 + 0.5 + 0.125
    again_s = 0.25 + 2 * 0.125 + 0.5
    np.testing.assert_array_equal(trace.end_s, [cycle_s, cycle_s + again_s])
    np.testing.assert_array_equal(trace.read_version, [0, 0])


def test_a_compare_and_swap_that_may_not_retry_gives_up():
    split = quotas.Quotas(np.arange(3), np.arange(3) * 4)
    _, starts = plain(2)
    trace = run(UpdateRule.CAS, still(retry_limit=0), starts, split)
    assert trace.done.tolist() == [1, 0]
    assert trace.retries == 1


@pytest.mark.parametrize("rule", ASYNCHRONOUS)
def test_a_deadline_cuts_what_is_not_done_and_keeps_what_is(rule):
    split, starts = plain(2, deadline_s=3.5)
    trace = run(rule, still(retry_limit=10**6), starts, split)
    assert (trace.end_s == 3.5).all()
    assert (trace.done < 6).all()
    assert len(trace.push) == trace.done.sum() > 0


@pytest.mark.parametrize("rule", [UpdateRule.AVERAGE, UpdateRule.SYNC])
def test_functions_that_meet_at_a_barrier_stop_together_at_their_deadline(rule):
    split, starts = plain(2, deadline_s=3.5)
    trace = run(rule, still(), starts, split)
    assert (trace.end_s == 3.5).all()
    assert trace.done.tolist() == ([0, 0] if rule is UpdateRule.AVERAGE else [3, 3])


def test_under_average_the_store_is_not_kept_busy_by_functions_that_never_push():
    split, starts = plain(4)
    starts.hangs[:3] = split.first_push[:3]
    trace = run(UpdateRule.AVERAGE, still(service_s=0.5), starts, split)
    assert trace.done.tolist() == [0, 0, 0, 3]
    assert trace.end_s[3] == 3 + 0.5
    assert (trace.end_s[:3] == starts.kill_s[:3]).all()


def test_under_average_a_push_that_lands_late_still_comes_before_the_barrier():
    split, starts = plain(4, deadline_s=3.25)
    trace = run(UpdateRule.AVERAGE, still(service_s=0.5), starts, split)
    assert trace.done.sum() == 12
    assert trace.end_s.max() == 3.25
    assert trace.barrier_s == 3 + 4 * 0.5


@pytest.mark.parametrize("rule", UpdateRule)
def test_a_function_that_hangs_holds_the_epoch_until_the_timeout(rule):
    split, starts = plain(3, deadline_s=100.0)
    starts.hangs[1] = split.first_push[1]
    trace = run(rule, still(), starts, split)
    assert trace.end_s[1] == trace.barrier_s == 101.0
    assert trace.done[1] == 0


@pytest.mark.parametrize("batch_rule", BatchRule)
@pytest.mark.parametrize("update_rule", UpdateRule)
@pytest.mark.parametrize("n", [1, 4, 10])
def test_in_an_ideal_world_the_report_equals_the_closed_form(batch_rule, update_rule, n):
    workload = small_workload(**rules_of(batch_rule, update_rule))
    twin = timing_twin(workload, ideal(load_world("aws-2026")), import_s=0.0, seconds_per_push=2.003e-3)
    told = twin.run_epoch(plan_of(Action(n, 1769)))
    if batch_rule is BatchRule.CONSTANT:
        compute_s = math.ceil(60 / n) * (2.003e-3 + 4e-3)
    else:
        compute_s = 3 * 2.003e-3 + 240 / n * 1e-3
    assert told.duration_s - told.evaluate_s == pytest.approx(compute_s, rel=1e-6)
    assert told.wait_s + told.compute_s == pytest.approx(compute_s, rel=1e-6)
    assert told.start_s == pytest.approx(0, abs=1e-9)
    if 60 % n == 0 or batch_rule is BatchRule.SPLIT:
        assert told.usage.billed_ms == n * math.ceil(compute_s * 1000)


def test_the_memory_of_the_kernels_grows_with_functions_and_pushes_only():
    n = 3000
    split = quotas.Quotas(np.arange(n + 1), np.arange(n + 1))
    _, starts = plain(1)
    starts = events.Starts(*(np.resize(x, n) for x in starts))
    trace = run(UpdateRule.ADDITIVE, still(read=flat(0.1, 0.5), push_noise=0.2), starts, split)
    assert len(trace.push) == n
    assert sorted(trace.push.tolist()) == list(range(n))


def test_an_epoch_over_any_channel_spends_time_only_where_the_laws_say():
    twin = timing_twin(small_workload(channel=ChannelKind.MEMORY))
    told = twin.run_epoch(plan_of(Action(4, 1769)))
    assert told.fetch_s < 1e-4
    assert told.update_s < 1e-4
