"""What an epoch bills is the sum over its functions, and never more than its worst case."""

from __future__ import annotations

import functools
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siren.money.billed_time import billed_ms
from siren.money.pricer import RunTotals
from siren.twin import twin as twin_module
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.worlds import World, load_world
from siren.worlds.costing import WORKER_MARGIN_S, Outlook
from siren.worlds.laws import RULES_OF_CHANNEL, memory_needed_mb
from tests.twin.jobs import plan_of, rules_of, small_workload, timing_twin

WORLDS = ("aws-2026", "siren-2019", "lambdaml-2021")
PAIRS = [(channel, rule) for channel in ChannelKind for rule in sorted(RULES_OF_CHANNEL[channel])]


@functools.cache
def workload_of(channel: ChannelKind, update_rule: UpdateRule, batch_rule: BatchRule, evaluator: str):
    return small_workload(
        samples=200,
        inputs=2,
        batch_size=2,
        channel=channel,
        evaluator=evaluator,
        **rules_of(batch_rule, update_rule),
    )


def with_hangs(world: World, probability: float) -> World:
    return world.model_copy(update={"cpu": world.cpu.model_copy(update={"hang_probability": probability})})


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("channel", "rule"), PAIRS)
def test_the_billed_time_is_the_sum_over_functions_each_rounded_by_itself(world, channel, rule, monkeypatch):
    courses = []
    report = twin_module.report
    monkeypatch.setattr(twin_module, "report", lambda c, course: courses.append(course) or report(c, course))
    twin = timing_twin(
        workload_of(channel, rule, BatchRule.CONSTANT, "scheduler"), with_hangs(load_world(world), 0.2)
    )
    billing = twin.world.billing
    for action in (Action(5, 512), Action(5, 512), Action(9, 512)):
        told, course = twin.run_epoch(plan_of(action, 6)), None
        course = courses.pop()
        total = 0
        for began, ended, init_s in zip(
            course.launch.began_s, course.trace.end_s, course.launch.init_s, strict=True
        ):
            handler_s = min(float(ended - began), 6.0)
            total += billed_ms(
                handler_s * 1000, float(init_s * 1000), billing.granularity, billing.init_billed
            )
        assert abs(told.usage.billed_ms - total) <= action.functions * 1e-9
        assert told.usage.requests == action.functions
        hung = course.trace.end_s >= course.launch.starts.kill_s
        assert (
            course.trace.end_s[hung] - course.launch.began_s[hung] == pytest.approx(6.0)
        ) or not hung.any()


def test_a_function_that_hangs_is_billed_up_to_the_timeout():
    world = with_hangs(load_world("aws-2026"), 1.0)
    twin = timing_twin(small_workload(), world)
    told = twin.run_epoch(plan_of(Action(4, 512), 30))
    assert told.pushes < told.pushes_planned
    init_ms = told.usage.billed_ms - 4 * 30_000
    assert 0 < init_ms < 4 * 1000
    again = twin.run_epoch(plan_of(Action(4, 512), 30))
    assert again.cold_starts == 4  # the platform threw their environments away


def test_initialisation_is_billed_only_where_the_world_says_so():
    for name, billed in (("aws-2026", True), ("siren-2019", False)):
        told = timing_twin(small_workload(), load_world(name)).run_epoch(plan_of(Action(4, 512)))
        again = timing_twin(small_workload(), load_world(name), import_s=5.0).run_epoch(
            plan_of(Action(4, 512))
        )
        assert (again.usage.billed_ms > told.usage.billed_ms + 10_000) == billed


def test_billed_time_is_a_multiple_of_the_granularity():
    told = timing_twin(small_workload(), "siren-2019").run_epoch(plan_of(Action(7, 512)))
    assert told.usage.billed_ms % 100 == 0


def test_the_training_set_is_stored_in_the_first_epoch_only():
    twin = timing_twin(small_workload(channel=ChannelKind.S3, update_rule="average"))
    first, second = (twin.run_epoch(plan_of(Action(4, 512))) for _ in range(2))
    assert first.usage.s3_puts - second.usage.s3_puts == twin.costing.setup_puts


def test_a_cache_is_needed_from_the_start_of_the_run():
    twin = timing_twin(small_workload(channel=ChannelKind.REDIS))
    for _ in range(3):
        told = twin.run_epoch(plan_of(Action(4, 512)))
        assert told.usage.cache_s == pytest.approx(twin.clock_s)


@st.composite
def runs(draw):
    """(twin, actions with their timeouts) of any short run."""
    channel, rule = draw(st.sampled_from(PAIRS))
    workload = workload_of(
        channel, rule, draw(st.sampled_from(BatchRule)), draw(st.sampled_from(["scheduler", "function"]))
    )
    world = with_hangs(
        load_world_once(draw(st.sampled_from(WORLDS))), draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
    )
    job = {
        "seconds_per_sample": draw(st.sampled_from([1e-6, 1e-2, 0.3])),
        "seconds_per_push": draw(st.sampled_from([0.0, 0.05, 2.0])),
        "sample_bytes": draw(st.sampled_from([10, 10**5, 10**6])),
        "parameters": draw(st.sampled_from([3, 50_000, 1_000_000])),
        "evaluate_seconds_per_sample": draw(st.sampled_from([1e-6, 1e-2])),
        "import_s": draw(st.sampled_from([0.0, 20.0])),
    }
    twin = timing_twin(workload, world, seed=draw(st.integers(0, 10**6)), **job)
    memory = [m for m in world.limits.memory_grid if m >= memory_needed_mb(twin.job, 1)]
    action = st.builds(
        Action,
        st.integers(1, min(60, twin.job.functions_max)),
        st.sampled_from(memory),
    )
    plays = st.lists(
        st.tuples(action, st.sampled_from(world.limits.timeout_rungs[:14])), min_size=1, max_size=3
    )
    return twin, draw(plays)


load_world_once = functools.cache(load_world)


@settings(max_examples=300)
@given(runs())
def test_no_epoch_bills_more_than_the_worst_case_that_was_reserved(run):
    twin, plays = run
    totals, costing = RunTotals(), twin.costing
    for epoch, (action, timeout_s) in enumerate(plays, start=1):
        outlook = Outlook(twin.clock_s, epoch, totals, Decimal(10**9))
        worst = costing.worst_case(action, timeout_s, outlook)
        bounds = costing.bounds(action, timeout_s, outlook)
        usage = twin.run_epoch(plan_of(action, timeout_s, timeout_s - WORKER_MARGIN_S)).usage
        most = costing.pricer.worst_usage(bounds)
        for name in ("billed_ms", "requests", "evaluator_billed_ms", "s3_puts", "s3_gets", "log_bytes"):
            assert getattr(usage, name) <= getattr(most, name), name
        assert usage.s3_gb_s <= most.s3_gb_s * (1 + 1e-9)
        assert usage.cache_s <= most.cache_s + 1e-6
        assert costing.pricer.price_epoch(usage, previous=totals).total <= worst
        totals = totals.after(usage)


@given(st.integers(1, 60), st.sampled_from(WORLDS))
def test_the_worst_case_grows_with_functions_memory_and_timeout(functions, name):
    twin = timing_twin(
        workload_of(ChannelKind.REDIS, UpdateRule.ADDITIVE, BatchRule.SPLIT, "function"),
        load_world_once(name),
    )
    costing, outlook = twin.costing, Outlook(0.0, 1, RunTotals(), Decimal(10**9))
    grid, rungs = twin.world.limits.memory_grid, twin.world.limits.timeout_rungs
    base = costing.worst_case(Action(functions, grid[3]), rungs[5], outlook)
    assert costing.worst_case(Action(functions + 1, grid[3]), rungs[5], outlook) > base
    assert costing.worst_case(Action(functions, grid[3]), rungs[6], outlook) > base


def test_ten_cold_runs_at_the_grid_corners_stay_below_their_worst_case():
    for m in (128, 10240):
        for seed in range(5):
            twin = timing_twin(small_workload(samples=60, inputs=2), seed=seed, import_s=0.0)
            outlook = Outlook(0.0, 1, RunTotals(), Decimal(10**9))
            worst = twin.costing.worst_case(Action(15, m), 3, outlook)
            usage = twin.run_epoch(plan_of(Action(15, m), 3)).usage
            bill = twin.costing.pricer.price_epoch(usage, previous=RunTotals())
            assert 0 < bill.total <= worst
            assert np.isfinite(float(bill.total))
