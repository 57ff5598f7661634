"""What a platform promises, as tests.

Inherit them to test a platform of your own:

    from siren.testing.platform import PlatformConformance, Subject

    class TestMyPlatform(PlatformConformance):
        @pytest.fixture
        def subject(self) -> Subject:
            costing = tiny_costing(tiny_workload())
            return Subject(lambda: MyPlatform(costing), costing, actions=(Action(4, 1024), ...))

Needs pytest, which Siren itself does not install.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from siren.errors import ActionError
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.types import Action, EpochReport, Usage
from siren.worlds.costing import WORKER_MARGIN_S, Costing, EpochPlan, Outlook

PLENTY = Decimal(1_000_000)


@dataclass(frozen=True)
class Subject:
    """What is tested.

    Attributes:
        make: A new platform for the same job and seed each time.
        costing: Laws and prices of the job.
        actions: At least three actions that the job can run.
        breaking: A context in which the next `run_epoch` of the platform fails in its middle; None
            if that cannot be arranged.
        failure: What it raises then.
    """

    make: Callable[[], Platform]
    costing: Costing
    actions: tuple[Action, ...]
    breaking: Callable[[Platform], AbstractContextManager[object]] | None = None
    failure: type[Exception] = Exception

    def plan(self, action: Action, timeout_s: int | None = None, outlook: Outlook | None = None) -> EpochPlan:
        """A plan with any of the world's timeouts; the longest by default."""
        timeout_s = timeout_s or self.costing.world.limits.timeout_rungs[-1]
        outlook = outlook or Outlook(0.0, 1, RunTotals(), PLENTY)
        reserve = self.costing.worst_case(action, timeout_s, outlook)
        return EpochPlan(action, timeout_s, timeout_s - WORKER_MARGIN_S, reserve)


def snapshot(platform: Platform) -> tuple[dict[str, Any], str]:
    """Everything that `save` and the properties tell, in a form that can be compared."""
    tensors, state = platform.save()
    kept = {name: (t.dtype.str, t.shape, t.tobytes()) for name, t in tensors.items()}
    kept["params"] = (platform.params.dtype.str, platform.params.shape, platform.params.tobytes())
    return kept, json.dumps({**state, "clock": platform.clock_s}, sort_keys=True)


def same(a: EpochReport, b: EpochReport) -> bool:
    """Whether two reports are equal, NaN equal to NaN."""
    return repr(a) == repr(b)


class PlatformConformance:
    """The promises of `siren.platforms.base.Platform`; override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> Subject:
        """What is tested."""
        raise NotImplementedError("override the fixture `subject`")

    @pytest.fixture
    def platform(self, subject: Subject) -> Iterator[Platform]:
        """A started platform."""
        platform = subject.make()
        platform.start()
        yield platform
        platform.close()

    def test_start_tells_a_finite_loss_and_an_accuracy_or_nan(self, subject: Subject) -> None:
        """`start`."""
        platform = subject.make()
        loss, accuracy = platform.start()
        assert math.isfinite(loss)
        assert math.isnan(accuracy) or 0 <= accuracy <= 1
        assert platform.clock_s == 0
        platform.close()

    def test_params_are_one_flat_float32_vector(self, subject: Subject, platform: Platform) -> None:
        """`params`."""
        assert platform.params.dtype == np.float32
        assert platform.params.shape == (subject.costing.job.parameters,)

    def test_equal_jobs_start_equal(self, subject: Subject, platform: Platform) -> None:
        """`start` of two platforms of one job."""
        other = subject.make()
        other.start()
        assert snapshot(other) == snapshot(platform)
        other.close()

    def test_epochs_count_up_from_one_and_the_clock_by_their_durations(
        self, subject: Subject, platform: Platform
    ) -> None:
        """`run_epoch`, `clock_s`."""
        clock_s = 0.0
        for epoch, action in enumerate(subject.actions, start=1):
            report = platform.run_epoch(subject.plan(action))
            assert (report.epoch, report.action) == (epoch, action)
            assert report.duration_s > 0
            clock_s += report.duration_s
            assert platform.clock_s == pytest.approx(clock_s)

    def test_a_report_adds_up(self, subject: Subject, platform: Platform) -> None:
        """The parts of an epoch's time make the whole."""
        report = platform.run_epoch(subject.plan(subject.actions[0]))
        parts = (report.start_s, report.load_s, report.fetch_s, report.compute_s, report.update_s)
        whole_s = sum(parts) + report.wait_s + report.evaluate_s
        assert whole_s == pytest.approx(report.duration_s)
        assert 0 <= report.pushes <= report.pushes_planned
        assert 0 <= report.cold_starts <= report.action.functions

    def test_no_item_of_the_bill_exceeds_what_the_plan_allows(self, subject: Subject) -> None:
        """Whatever the timeout, every quantity stays within its bound, and so does every dollar."""
        rungs = subject.costing.world.limits.timeout_rungs
        for timeout_s in (rungs[0], rungs[len(rungs) // 2], rungs[-1]):
            platform = subject.make()
            platform.start()
            totals = RunTotals()
            for epoch, action in enumerate((*subject.actions, subject.actions[0]), start=1):
                outlook = Outlook(platform.clock_s, epoch, totals, PLENTY)
                plan = subject.plan(action, timeout_s, outlook)
                report = platform.run_epoch(plan)
                bounds = subject.costing.bounds(action, timeout_s, outlook)
                check_usage(report.usage, subject.costing.pricer.worst_usage(bounds))
                bill = subject.costing.pricer.price_epoch(report.usage, previous=totals)
                assert bill.total <= plan.reserve_usd
                totals = totals.after(report.usage)
            platform.close()

    def test_refused_actions_change_nothing(self, subject: Subject, platform: Platform) -> None:
        """`check_action` and `run_epoch` refuse alike."""
        platform.run_epoch(subject.plan(subject.actions[0]))
        before = snapshot(platform)
        limits, job = subject.costing.world.limits, subject.costing.job
        good = subject.actions[0]
        off_grid = limits.memory_grid[-1] + 1
        for action in (
            Action(good.functions, off_grid),
            Action(0, good.memory_mb),
            Action(-1, good.memory_mb),
            Action(limits.functions_max + 1, good.memory_mb),
            Action(job.functions_max + 1, good.memory_mb),
        ):
            with pytest.raises(ActionError):
                platform.check_action(action)
            plan = dataclasses.replace(subject.plan(good), action=action)
            with pytest.raises(ActionError):
                platform.run_epoch(plan)
            assert snapshot(platform) == before

    def test_asking_changes_nothing(self, subject: Subject, platform: Platform) -> None:
        """`check_action`, `expect_starts` and `save` leave the job where it is."""
        platform.run_epoch(subject.plan(subject.actions[0]))
        before = snapshot(platform)
        for action in subject.actions:
            platform.check_action(action)
            for timeout_s in subject.costing.world.limits.timeout_rungs:
                cold, loading = platform.expect_starts(action, timeout_s)
                assert 0 <= cold <= loading <= action.functions
        assert snapshot(platform) == before

    def test_a_failed_epoch_leaves_the_job_where_it_was(self, subject: Subject) -> None:
        """And the next attempt goes on as if nothing had happened."""
        if subject.breaking is None:
            pytest.skip("no way to make this platform fail was given")
        broken, whole = subject.make(), subject.make()
        for platform in (broken, whole):
            platform.start()
            platform.run_epoch(subject.plan(subject.actions[0]))
        before = snapshot(broken)
        with subject.breaking(broken), pytest.raises(subject.failure):
            broken.run_epoch(subject.plan(subject.actions[1]))
        assert snapshot(broken) == before
        report = broken.run_epoch(subject.plan(subject.actions[2]))
        assert report.epoch == 2
        if whole.replays:
            assert same(report, whole.run_epoch(subject.plan(subject.actions[2])))
            assert snapshot(broken) == snapshot(whole)
        broken.close()
        whole.close()

    def test_what_was_saved_stays_as_it_was(self, subject: Subject, platform: Platform) -> None:
        """`save` gives a copy, or something that later epochs do not touch; so does `params`."""
        platform.run_epoch(subject.plan(subject.actions[0]))
        tensors, state = platform.save()
        params, text = platform.params, json.dumps(state)
        kept = {name: t.copy() for name, t in tensors.items()}
        kept_params = params.copy()
        for action in subject.actions:
            platform.run_epoch(subject.plan(action))
        assert json.dumps(state) == text
        assert np.array_equal(params, kept_params)
        for name, tensor in tensors.items():
            assert np.array_equal(tensor, kept[name])

    @pytest.mark.parametrize("epochs", [0, 1, 2])
    def test_a_restored_job_goes_on_identically(self, subject: Subject, epochs: int) -> None:
        """`restore` of what `save` returned, after a journey through a file, in another platform."""
        first, second = subject.make(), subject.make()
        first.start()
        second.start()
        for action in subject.actions[:epochs]:
            first.run_epoch(subject.plan(action))
        tensors, state = first.save()
        copies = {name: t.copy() for name, t in tensors.items()}
        second.restore(copies, json.loads(json.dumps(state)))
        assert snapshot(second) == snapshot(first)
        for action in reversed(subject.actions):
            expected, found = (p.run_epoch(subject.plan(action)) for p in (first, second))
            assert found.epoch == expected.epoch
            if first.replays:
                assert same(found, expected)
                assert snapshot(second) == snapshot(first)
        first.close()
        second.close()

    def test_a_platform_that_replays_repeats_an_epoch_bit_for_bit(
        self, subject: Subject, platform: Platform
    ) -> None:
        """`replays`: the same result and the same bill."""
        if not platform.replays:
            pytest.skip("this platform does not replay")
        platform.run_epoch(subject.plan(subject.actions[0]))
        tensors, state = platform.save()
        once = platform.run_epoch(subject.plan(subject.actions[1]))
        after = snapshot(platform)
        platform.restore(tensors, state)
        assert same(platform.run_epoch(subject.plan(subject.actions[1])), once)
        assert snapshot(platform) == after

    def test_it_can_be_closed_twice(self, subject: Subject) -> None:
        """`close`."""
        platform = subject.make()
        platform.start()
        platform.close()
        platform.close()


def check_usage(used: Usage, most: Usage) -> None:
    """Asserts that no quantity exceeds its bound."""
    assert used.memory_mb == most.memory_mb
    assert used.ephemeral_mb <= most.ephemeral_mb
    assert used.evaluator_memory_mb in (0, most.evaluator_memory_mb)
    for name in (
        "billed_ms",
        "requests",
        "evaluator_billed_ms",
        "s3_puts",
        "s3_gets",
        "s3_gb_s",
        "log_bytes",
        "cache_s",
    ):
        assert 0 <= getattr(used, name) <= getattr(most, name), name
