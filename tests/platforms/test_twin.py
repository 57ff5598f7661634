"""The twin keeps the promises of a platform, under every update rule, batch rule and channel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from siren.errors import ActionError, WorkloadError
from siren.money.pricer import RunTotals
from siren.platforms.twin import TwinPlatform
from siren.testing.platform import PLENTY, PlatformConformance, Subject
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action
from siren.worlds import load_world
from siren.worlds.costing import Outlook
from siren.worlds.laws import RULES_OF_CHANNEL

ACTIONS = (Action(3, 1024), Action(1, 256), Action(8, 1024), Action(3, 1769))
PAIRS = sorted((channel, rule) for channel, rules in RULES_OF_CHANNEL.items() for rule in rules)


def _subject(*, kernel: bool = True, hang_probability: float = 0.0, **training) -> Subject:
    workload = tiny_workload(kernel=kernel, training=training)
    world = load_world("aws-2026")
    cpu = world.cpu.model_copy(update={"hang_probability": hang_probability})
    costing = tiny_costing(workload, world.model_copy(update={"cpu": cpu}))

    @contextlib.contextmanager
    def breaking(platform: TwinPlatform) -> Iterator[None]:
        def explode(params, features, labels):
            raise ZeroDivisionError("as arranged")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workload.model, "evaluate", explode)
            yield

    return Subject(lambda: TwinPlatform(workload, costing, 7), costing, ACTIONS, breaking, WorkloadError)


class TestTwin(PlatformConformance):
    @pytest.fixture(params=PAIRS, ids="-".join)
    def subject(self, request) -> Subject:
        channel, rule = request.param
        return _subject(channel=channel, update_rule=rule)


class TestTwinWithoutKernel(PlatformConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return _subject(kernel=False)


class TestTwinUnderTheSplitRule(PlatformConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return _subject(batch_rule="split", split_learning_rate="sqrt")


class TestTwinWithFunctionsThatHang(PlatformConformance):
    @pytest.fixture(params=PAIRS, ids="-".join)
    def subject(self, request) -> Subject:
        channel, rule = request.param
        return _subject(hang_probability=0.5, channel=channel, update_rule=rule)


class TestTwinThatEvaluatesInAFunction(PlatformConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return _subject(evaluator="function", channel="s3", update_rule="average", samples_per_epoch=120)


def test_a_function_that_hangs_is_billed_up_to_the_timeout_and_not_beyond():
    subject = _subject(hang_probability=1.0)
    platform = subject.make()
    platform.start()
    report = platform.run_epoch(subject.plan(Action(4, 1024), 10))
    assert report.unfinished == 4
    assert report.usage.billed_ms >= 4 * 10_000
    most_init_ms = 4 * 1000 * subject.costing.world.limits.init_max
    assert report.usage.billed_ms <= 4 * 10_000 + most_init_ms


def test_a_function_that_hung_starts_cold_the_next_time():
    subject = _subject(hang_probability=1.0)
    platform = subject.make()
    platform.start()
    assert platform.expect_starts(Action(4, 1024), 10) == (4, 4)
    platform.run_epoch(subject.plan(Action(4, 1024), 10))
    assert platform.expect_starts(Action(4, 1024), 10) == (4, 4)


def test_the_second_equal_epoch_is_expected_to_be_warm():
    subject = _subject()
    platform = subject.make()
    platform.start()
    platform.run_epoch(subject.plan(Action(4, 1024), 10))
    assert platform.expect_starts(Action(4, 1024), 10) == (0, 0)
    assert platform.expect_starts(Action(4, 1024), 12) == (4, 4)  # another version
    assert platform.run_epoch(subject.plan(Action(4, 1024), 10)).cold_starts == 0


def test_memory_that_cannot_hold_a_shard_is_refused():
    workload = tiny_workload(cost={"sample_bytes": 2_000_000})
    costing = tiny_costing(workload)
    platform = TwinPlatform(workload, costing, 0)
    platform.start()
    with pytest.raises(ActionError, match="choose more memory or more functions"):
        platform.check_action(Action(1, 256))
    platform.check_action(Action(8, 256))
    outlook = Outlook(0.0, 1, RunTotals(), PLENTY)
    assert costing.worst_case(Action(8, 256), 3, outlook) > 0


def test_seeds_differ():
    workload = tiny_workload()
    costing = tiny_costing(workload)
    subject = _subject()
    reports = []
    for seed in (1, 2):
        platform = TwinPlatform(workload, costing, seed)
        platform.start()
        reports.append(platform.run_epoch(subject.plan(Action(4, 1024))))
    assert reports[0].loss != reports[1].loss
    assert reports[0].duration_s != reports[1].duration_s
