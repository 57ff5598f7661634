"""The fakes keep the promises they stand in for, and break them when told to."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest

from siren.errors import PlatformError, RunFolderError
from siren.testing.fakes import FakePlatform, MemoryFolder
from siren.testing.platform import PlatformConformance, Subject
from siren.testing.tiny import tiny_costing, tiny_workload, write_tiny_workload
from siren.types import Action
from siren.workloads.registry import load_workload

ACTIONS = (Action(3, 1024), Action(1, 256), Action(8, 1024))


class TestFakePlatform(PlatformConformance):
    @pytest.fixture(params=[True, False], ids=["replays", "does-not-replay"])
    def subject(self, request) -> Subject:
        costing = tiny_costing(tiny_workload(training={"evaluator": "function"}))

        @contextlib.contextmanager
        def breaking(platform: FakePlatform):
            platform._failures[2] = PlatformError("as arranged")
            yield

        def make() -> FakePlatform:
            return FakePlatform(costing, 3, replays=request.param)

        return Subject(make, costing, ACTIONS, breaking, PlatformError)


def test_a_fake_platform_can_be_told_to_break_its_plan():
    costing = tiny_costing(tiny_workload())
    subject = Subject(lambda: FakePlatform(costing, overruns={1: 100}, greed=1.0), costing, ACTIONS)
    plan = subject.plan(ACTIONS[0])
    report = subject.make().run_epoch(plan)
    bill = costing.pricer.price_epoch(report.usage, previous=costing_totals())
    assert bill.total > plan.reserve_usd


def costing_totals():
    from siren.money.pricer import RunTotals

    return RunTotals()


def test_a_memory_folder_keeps_the_last_two_checkpoints():
    folder = MemoryFolder(Decimal(1))
    for epoch in range(4):
        folder.write_checkpoint(epoch, {}, {"epoch": epoch})
    assert folder.checkpoints() == (2, 3)
    assert folder.read_checkpoint(3) == ({}, {"epoch": 3})
    with pytest.raises(RunFolderError):
        folder.read_checkpoint(0)


def test_the_tiny_job_in_memory_and_as_a_folder_are_the_same_job(tmp_path):
    loaded = load_workload(str(write_tiny_workload(tmp_path / "tiny", training={"batch_size": 5})))
    memory = tiny_workload(training={"batch_size": 5})
    assert loaded.spec == memory.spec
    assert loaded.init(3).tobytes() == memory.init(3).tobytes()
    assert loaded.evaluate(loaded.init(3)) == memory.evaluate(memory.init(3))
    loaded.check()
    memory.check()
