"""The twin as a whole: repeatable, refuses what cannot run, and tells the truth about an epoch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from siren.errors import ActionError, WorkloadError
from siren.twin.twin import Twin
from siren.types import Action, BatchRule, ChannelKind, EpochReport, UpdateRule
from siren.workloads.workload import Workload
from siren.worlds import load_world
from siren.worlds.laws import RULES_OF_CHANNEL
from tests.twin.jobs import (
    Logistic,
    make_costing,
    make_twin,
    plan_of,
    rules_of,
    small_workload,
    timing_twin,
)

COURSE = (Action(3, 512), Action(7, 512), Action(7, 512), Action(2, 1024))


def same(a: EpochReport, b: EpochReport) -> bool:
    """Equal in every field; NaN equals NaN."""
    return repr(a) == repr(b)


def run(twin: Twin, actions=COURSE, timeout_s: int = 900) -> list[EpochReport]:
    return [twin.run_epoch(plan_of(action, timeout_s)) for action in actions]


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("channel", ChannelKind)
def test_the_same_seed_gives_the_same_run_bit_for_bit(channel, kernel):
    for rule in sorted(RULES_OF_CHANNEL[channel]):
        workload = small_workload(update_rule=rule, channel=channel, kernel=kernel)
        first, second = make_twin(workload, seed=5), make_twin(workload, seed=5)
        for a, b in zip(run(first), run(second), strict=True):
            assert same(a, b)
        np.testing.assert_array_equal(first.params, second.params)
        assert first.clock_s == second.clock_s


@pytest.mark.parametrize("rule", UpdateRule)
def test_a_run_that_is_saved_and_restored_goes_on_bit_for_bit(rule):
    workload = small_workload(update_rule=rule, channel=ChannelKind.REDIS)
    whole = make_twin(workload, seed=2)
    told = run(whole)
    before = make_twin(workload, seed=2)
    run(before, COURSE[:2])
    tensors, state = before.save()
    tensors = {key: tensor.copy() for key, tensor in tensors.items()}
    run(before, COURSE[:1])  # what happens after the checkpoint does not matter
    after = make_twin(workload, seed=2)
    after.restore(tensors, state)
    for a, b in zip(told[2:], run(after, COURSE[2:]), strict=True):
        assert same(a, b)
    np.testing.assert_array_equal(whole.params, after.params)


def test_what_was_saved_does_not_change_when_the_run_goes_on():
    twin = make_twin(small_workload())
    tensors, _ = twin.save()
    params = tensors["params"].copy()
    run(twin, COURSE[:1])
    np.testing.assert_array_equal(tensors["params"], params)


def test_different_seeds_give_different_runs():
    workload = small_workload(channel=ChannelKind.REDIS)
    first, second = run(make_twin(workload, seed=0)), run(make_twin(workload, seed=1))
    assert all(a.loss != b.loss and a.duration_s != b.duration_s for a, b in zip(first, second, strict=True))


def test_epochs_of_one_run_differ():
    told = run(make_twin(small_workload(channel=ChannelKind.REDIS)), (Action(4, 512),) * 3)
    assert len({r.compute_s for r in told}) == 3


def test_training_does_not_depend_on_how_fast_functions_are_where_there_is_one():
    workload = small_workload(channel=ChannelKind.REDIS)
    losses = [
        [r.loss for r in run(make_twin(workload, seconds_per_sample=s), (Action(1, 512),) * 2)]
        for s in (1e-6, 1e-3)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (Action(3, 513), "512 and 768"),
        (Action(0, 512), "1 to 1,000"),
        (Action(1001, 512), "1 to 1,000"),
        (Action(61, 512), "choose at most 60"),
    ],
)
def test_an_action_outside_the_limits_is_refused_and_nothing_changes(action, says):
    twin = make_twin(small_workload())
    before = repr(twin.save())
    with pytest.raises(ActionError, match=says):
        twin.run_epoch(plan_of(action))
    assert repr(twin.save()) == before
    assert twin.clock_s == 0
    assert twin.epoch == 0


def test_too_little_memory_for_the_shard_is_refused_with_what_is_needed():
    twin = make_twin(small_workload(), sample_bytes=2**20)
    with pytest.raises(ActionError, match="needs 271 MB"):
        twin.run_epoch(plan_of(Action(1, 256)))
    twin.run_epoch(plan_of(Action(1, 512)))
    twin.run_epoch(plan_of(Action(2, 256)))


class Failing(Logistic):
    """Raises at its tenth gradient."""

    calls = 0

    def loss_and_grad(self, params, features, labels):
        self.calls += 1
        if self.calls == 10:
            raise RuntimeError("out of luck")
        return super().loss_and_grad(params, features, labels)


def test_a_model_that_raises_leaves_model_and_clock_as_they_were():
    plain = small_workload()
    workload = Workload("failing", plain.spec, Failing(5), plain.dataset, plain.folder)
    twin = make_twin(workload)
    params = twin.params.copy()
    with pytest.raises(WorkloadError, match="out of luck"):
        twin.run_epoch(plan_of(Action(3, 512)))
    np.testing.assert_array_equal(twin.params, params)
    assert twin.clock_s == 0
    assert twin.epoch == 0


class Exploding(Logistic):
    """Its gradients overflow."""

    def loss_and_grad(self, params, features, labels):
        return math.inf, np.full(self.size, np.inf, np.float32)


@pytest.mark.parametrize("batch_rule", BatchRule)
@pytest.mark.parametrize("rule", UpdateRule)
def test_a_model_that_diverges_is_told_by_its_loss_without_a_warning(rule, batch_rule):
    plain = small_workload(**rules_of(batch_rule, rule))
    workload = Workload("exploding", plain.spec, Exploding(5), plain.dataset, plain.folder)
    told = make_twin(workload).run_epoch(plan_of(Action(7, 512)))
    assert not math.isfinite(told.loss)
    assert told.gradients.mean_square_norm == math.inf


@pytest.mark.parametrize("batch_rule", BatchRule)
@pytest.mark.parametrize("rule", UpdateRule)
def test_an_epoch_in_which_nobody_pushes_keeps_the_model(rule, batch_rule):
    world = load_world("aws-2026")
    world = world.model_copy(update={"cpu": world.cpu.model_copy(update={"hang_probability": 1.0})})
    twin = make_twin(small_workload(**rules_of(batch_rule, rule)), world, seconds_per_sample=10.0)
    params = twin.params.copy()
    told = twin.run_epoch(plan_of(Action(5, 512), 3))
    assert (told.pushes, told.unfinished) == (0, 5)
    assert math.isnan(told.gradients.mean_square_norm)
    np.testing.assert_array_equal(twin.params, params)


@pytest.mark.parametrize("rule", sorted(RULES_OF_CHANNEL[ChannelKind.S3]))
def test_times_of_a_report_add_up_to_the_barrier(rule):
    twin = make_twin(small_workload(update_rule=rule, channel=ChannelKind.S3))
    for told in run(twin):
        parts = told.start_s + told.load_s + told.fetch_s + told.compute_s + told.update_s + told.wait_s
        assert parts + told.evaluate_s == pytest.approx(told.duration_s)
        assert min(told.start_s, told.load_s, told.fetch_s, told.update_s, told.wait_s) >= -1e-9
        assert 0 < told.cpu_utilization <= 1
        assert 0 < told.memory_utilization <= 1


@pytest.mark.parametrize("rule", UpdateRule)
def test_times_of_a_report_add_up_when_functions_are_cut_or_hang(rule):
    world = load_world("aws-2026")
    world = world.model_copy(update={"cpu": world.cpu.model_copy(update={"hang_probability": 0.3})})
    twin = make_twin(small_workload(update_rule=rule), world, seconds_per_sample=0.04)
    for _ in range(4):
        told = twin.run_epoch(plan_of(Action(6, 512), 6))
        assert told.unfinished > 0
        assert told.wait_s >= -1e-9
        assert told.pushes < told.pushes_planned


def test_a_second_epoch_of_the_same_action_starts_warm_and_loads_nothing():
    twin = make_twin(small_workload())
    first, second = run(twin, (Action(5, 512),) * 2)
    assert (first.cold_starts, second.cold_starts) == (5, 0)
    assert first.load_s > 0
    assert second.load_s == 0
    assert (first.usage.s3_gets, second.usage.s3_gets) == (5, 0)


def test_a_shard_is_loaded_once_per_window_of_a_larger_set():
    twin = make_twin(small_workload(samples_per_epoch=120))  # two windows take turns
    told = run(twin, (Action(4, 512),) * 4)
    assert [r.usage.s3_gets for r in told] == [4, 4, 4, 4]
    assert [r.cold_starts for r in told] == [4, 0, 0, 0]


def test_a_worker_that_is_still_loading_at_its_deadline_stops_there():
    twin = make_twin(small_workload(), sample_bytes=10**7)
    told = twin.run_epoch(plan_of(Action(3, 3008), 3))
    assert told.pushes == 0
    assert told.load_s == pytest.approx(2.75)
    assert told.duration_s < 2.75 + 2
    assert told.usage.billed_ms < 3 * (2750 + 1000)
    assert twin.expect_starts(Action(3, 3008), 3) == (3, 3)  # no shard was loaded


@pytest.mark.parametrize("actions", [COURSE, (Action(5, 512),) * 3, (Action(9, 512), Action(4, 512))])
def test_expected_cold_starts_and_loads_are_those_that_happen(actions):
    twin = make_twin(small_workload())
    for action in actions:
        cold, loading = twin.expect_starts(action, 900)
        told = twin.run_epoch(plan_of(action))
        assert told.cold_starts == cold
        assert told.usage.s3_gets == loading


def test_only_overwriting_loses_updates_and_only_compare_and_swap_retries():
    for rule in UpdateRule:
        told = make_twin(small_workload(update_rule=rule, channel=ChannelKind.REDIS)).run_epoch(
            plan_of(Action(10, 512))
        )
        assert (told.updates_lost > 0) == (rule is UpdateRule.OVERWRITE)
        assert (told.update_retries > 0) == (rule is UpdateRule.CAS)
        assert (told.mean_staleness > 0) == (rule not in (UpdateRule.AVERAGE, UpdateRule.SYNC))
        assert told.pushes == told.pushes_planned == 60


def test_compare_and_swap_stops_at_the_retries_that_were_paid_for():
    class Stingy(type(make_costing(small_workload()))):
        def retry_limit(self, action):
            return 1

    workload = small_workload(update_rule=UpdateRule.CAS, channel=ChannelKind.S3)
    plain = make_costing(workload)
    told = Twin(workload, Stingy(plain.world, plain.job, plain.pricer), 0).run_epoch(plan_of(Action(20, 512)))
    assert told.unfinished > 0
    assert told.update_retries <= 20 * 2


def test_three_thousand_functions_run():
    world = load_world("siren-2019")
    twin = timing_twin(small_workload(samples=6000, inputs=3, batch_size=2), world)
    told = twin.run_epoch(plan_of(Action(3000, 512)))
    assert told.pushes == 3000
    assert told.cold_starts == 3000
    assert told.duration_s > 20  # 1,000 environments at once, 100 a second after that


def test_staleness_of_the_report_is_the_mean_over_pushes():
    twin = make_twin(small_workload(batch_size=24))  # ten pushes
    assert twin.run_epoch(plan_of(Action(1, 512))).mean_staleness == 0
    world = twin.world
    assert dataclasses.replace(twin.job).functions_max == 10
    told = make_twin(small_workload(batch_size=24), world).run_epoch(plan_of(Action(10, 512)))
    assert 0 < told.mean_staleness <= 4.5
