"""Epochs on real functions of this machine keep the promises of a platform, also when functions fail."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from siren.errors import ActionError, ChannelError, PlatformError, WorkloadError
from siren.money.pricer import RunTotals
from siren.platforms.local import create_worker
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.manager.site import Grounds
from siren.platforms.package import build_package, local_target
from siren.testing import tiny_model
from siren.testing.platform import PLENTY, PlatformConformance, Subject
from siren.testing.tiny import write_tiny_workload
from siren.twin.twin import job_of
from siren.types import Action, EpochReport
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import LIFETIMES, Outlook, make_costing
from tests.platforms.manager.sites import SharedSite

ACTIONS = (Action(2, 1769), Action(1, 1769), Action(3, 1769))
RUNGS = (3, 15)
PAIRS = [
    ("s3", "overwrite"),
    ("s3", "cas"),
    ("s3", "average"),
    ("s3", "sync"),
    ("redis", "overwrite"),
    ("redis", "additive"),
    ("redis", "staleness"),
    ("redis", "average"),
    ("redis", "sync"),
]


def job(folder, **overrides):
    """(workload, costing) of the tiny job in a world of few timeouts."""
    workload = load_workload(str(folder), overrides=overrides)
    world = load_world("local")
    limits = world.limits.model_copy(update={"timeout_rungs": RUNGS})
    world = world.model_copy(update={"limits": limits})
    return workload, make_costing(world, job_of(workload), lifetimes_max=LIFETIMES)


def subject_of(site, folder, **overrides) -> Subject:
    workload, costing = job(folder, **overrides)

    @contextlib.contextmanager
    def breaking(platform: FunctionPlatform) -> Iterator[None]:
        def explode(params, features, labels):
            raise ZeroDivisionError("as arranged")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workload.model, "evaluate", explode)
            yield

    def make() -> FunctionPlatform:
        return FunctionPlatform(workload, costing, 7, site, "Test Run")

    return Subject(make, costing, ACTIONS, breaking, WorkloadError)


class TestFunctionsOverRedis(PlatformConformance):
    @pytest.fixture
    def subject(self, site, tiny_folder) -> Subject:
        return subject_of(site, tiny_folder)


@contextlib.contextmanager
def started(subject: Subject) -> Iterator[FunctionPlatform]:
    platform = subject.make()
    assert isinstance(platform, FunctionPlatform)
    platform.start()
    try:
        yield platform
    finally:
        platform.close()


def bill_is_covered(subject: Subject, report: EpochReport, plan) -> bool:
    bill = subject.costing.pricer.price_epoch(report.usage, previous=RunTotals())
    return bill.total <= plan.reserve_usd


@pytest.mark.parametrize(("channel", "rule"), PAIRS)
def test_every_rule_trains_over_every_channel_that_carries_it(site, tiny_folder, channel, rule):
    subject = subject_of(site, tiny_folder, channel=channel, update_rule=rule)
    plan = subject.plan(Action(2, 1769))
    with started(subject) as platform:
        first = platform.run_epoch(plan)
        second = platform.run_epoch(plan)
        assert second.loss < first.loss < subject.costing.job.parameters  # and it is finite
        assert (second.pushes_planned, second.unfinished) == (24, 0)
        assert second.pushes == 24
        assert second.updates_lost == 0 or rule == "overwrite"
        assert math.isnan(second.mean_staleness) or second.mean_staleness >= 0
        assert second.usage.requests == 2
        assert bill_is_covered(subject, second, plan)


def test_one_function_is_plain_sgd_whatever_the_channel(site, tiny_folder):
    params = []
    for channel, rule in (("s3", "average"), ("s3", "cas"), ("redis", "additive")):
        subject = subject_of(site, tiny_folder, channel=channel, update_rule=rule)
        with started(subject) as platform:
            platform.run_epoch(subject.plan(Action(1, 1769)))
            params.append(platform.params)
    assert np.allclose(params[0], params[1], atol=1e-6)
    assert np.allclose(params[0], params[2], atol=1e-6)


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory):
    """The tiny job with a model that takes its time, and says so."""
    text = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    slow = text.replace("        error = ", "        time.sleep(0.22)\n        error = ", 1)
    slow = slow.replace("import math\n", "import math\nimport time\n", 1)
    assert slow.count("time") == text.count("time") + 2
    folder = tmp_path_factory.mktemp("slow") / "slow"
    return write_tiny_workload(folder, slow, cost={"seconds_per_push": 0.22})


class Beside(SharedSite):
    """Another function in the same servers."""

    def __init__(self, shared: SharedSite, folder: Path, name: str) -> None:
        super().__init__(shared.site)
        self._folder, self._name = folder, name

    def open(self) -> Grounds:
        backend = replace(super().open().backend, function_name=self._name)
        package = build_package(self._folder, local_target())
        create_worker(backend, package)
        return Grounds(backend, package.sha256_base64)


@pytest.mark.parametrize(("channel", "rule", "functions"), [("s3", "average", 1), ("redis", "additive", 2)])
def test_an_epoch_that_outlasts_its_functions_goes_on_in_new_ones(
    site, tiny_folder, slow_folder, channel, rule, functions
):
    """A lifetime of 3 seconds (issue 4, line 5), and 24 pushes of 0.22 s: none begins after 2.42 s."""
    workload, _ = job(slow_folder, channel=channel, update_rule=rule, samples_per_epoch=240)
    world = load_world("local")
    limits = world.limits.model_copy(update={"timeout_rungs": (3,)})
    world = world.model_copy(update={"limits": limits})
    costing = make_costing(world, job_of(workload), lifetimes_max=LIFETIMES)
    action = Action(functions, 1769)
    outlook = Outlook(0.0, 1, RunTotals(), PLENTY)
    subject = Subject(
        lambda: FunctionPlatform(workload, costing, 7, Beside(site, slow_folder, f"slow-{rule}"), "slow"),
        costing,
        (action,),
    )
    plan = costing.plan(action, upper_s=5.0, expected_s=4.0, outlook=outlook)
    assert plan is not None
    assert (plan.timeout_s, plan.lifetimes, plan.spares) == (3, 2, 1)
    with started(subject) as platform:
        report = platform.run_epoch(plan)
        params = platform.params
    assert report.unfinished == 0
    assert report.pushes == report.pushes_planned == 24
    assert report.retries >= 1
    assert report.usage.billed_ms > 3000
    assert bill_is_covered(subject, report, plan)
    if functions == 1:  # the same as in one go
        whole = subject_of(site, tiny_folder, channel=channel, update_rule=rule)
        with started(whole) as platform:
            platform.run_epoch(whole.plan(action))
            assert np.allclose(params, platform.params, atol=1e-6)


def test_what_outlasts_all_lifetimes_is_refused_and_the_twin_knows_one_lifetime(slow_folder):
    _, costing = job(slow_folder)
    longest = costing.world.limits.timeout_rungs[-1]
    slow = replace(costing.job, seconds_per_push=longest / 10)
    once, often = (make_costing(costing.world, slow, lifetimes_max=k) for k in (1, LIFETIMES))
    assert f"none lives longer than {longest} s" in once.futility(Action(1, 1769))
    assert not often.futility(Action(1, 1769))
    never = make_costing(
        costing.world, replace(costing.job, seconds_per_push=4.0 * longest), lifetimes_max=LIFETIMES
    )
    assert f"at most {LIFETIMES} follow one another" in never.futility(Action(1, 1769))


def test_a_function_that_dies_is_run_again_and_its_updates_count_once(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    plan = subject.plan(Action(3, 1769))
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject("kill", after=0, count=1, delay_s=0.002)
        report = platform.run_epoch(plan)
    assert report.retries == 1
    assert (report.pushes, report.unfinished) == (24, 0)
    assert bill_is_covered(subject, report, plan)


@pytest.mark.parametrize("fault", [{"kind": "kill", "delay_s": 0.002}, {"kind": "drop_response"}])
def test_what_fails_under_sync_is_run_again_while_the_others_wait_for_it(site, tiny_folder, fault):
    subject = subject_of(site, tiny_folder, channel="s3", update_rule="sync")
    outlook = Outlook(0.0, 1, RunTotals(), PLENTY)
    plan = subject.costing.plan(Action(2, 1769), upper_s=14.0, expected_s=1.0, outlook=outlook)
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject(**fault)
        report = platform.run_epoch(plan)
    assert (report.pushes, report.unfinished, report.retries) == (24, 0, 1)
    assert bill_is_covered(subject, report, plan)


def test_a_lost_response_is_billed_in_full_and_its_updates_count_once(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    plan = subject.plan(Action(3, 1769))
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject("drop_response", count=1)
        report = platform.run_epoch(plan)
    longest_ms = subject.costing.pricer.longest_ms(plan.timeout_s, subject.costing.world.limits.init_max)
    assert (report.pushes, report.unfinished) == (24, 0)
    assert report.usage.billed_ms >= longest_ms
    assert report.usage.requests == 4
    assert bill_is_covered(subject, report, plan)


def test_throttles_and_duplicates_change_nothing_but_the_count(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    plan = subject.plan(Action(3, 1769))
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject("throttle", count=5)
        site.site.endpoint.inject("duplicate", count=2)
        report = platform.run_epoch(plan)
    assert report.throttles == 5
    assert (report.pushes, report.unfinished) == (24, 0)
    assert report.usage.requests == 3


def test_out_of_memory_runs_again_with_the_next_size_and_the_run_says_so(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    plan = subject.plan(Action(3, 1024))
    told = []
    with started(subject) as platform:
        platform.tell = told.append
        site.site.endpoint.inject("oom", count=1)
        report = platform.run_epoch(plan)
    assert len(told) == 1
    assert "ran out of 1024 MB and is run again with 1280 MB" in told[0]
    assert (report.pushes, report.unfinished, report.retries) == (24, 0, 1)
    assert bill_is_covered(subject, report, plan)


def test_an_epoch_whose_every_answer_is_lost_fails_and_the_next_is_right(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    plan = subject.plan(Action(2, 1769))
    with started(subject) as platform:
        before = platform.params.copy()
        site.site.endpoint.inject("drop_response", count=2)
        with pytest.raises(PlatformError, match="no function of the epoch returned"):
            platform.run_epoch(plan)
        assert np.array_equal(platform.params, before)
        site.site.endpoint.clear_faults()
        report = platform.run_epoch(plan)
    assert (report.epoch, report.pushes) == (1, 24)


def test_what_only_the_twin_does_is_refused_before_anything_starts(tiny_folder):
    class Nowhere(SharedSite):
        def __init__(self) -> None:
            pass

        def check(self) -> None:
            raise AssertionError("asked too early")

        close = open = check

    for overrides, error in (
        ({"channel": "memory"}, ChannelError),
        ({"evaluator": "function"}, ActionError),
    ):
        workload, costing = job(tiny_folder, **overrides)
        platform = FunctionPlatform(workload, costing, 7, Nowhere(), "never")
        with pytest.raises(error, match="platform local"):
            platform.start()


def test_a_redis_rule_without_a_cache_is_refused(site, tiny_folder):
    class Cacheless(SharedSite):
        def open(self) -> Grounds:
            found = super().open()
            return replace(found, backend=replace(found.backend, redis_url=None))

    workload, costing = job(tiny_folder)
    platform = FunctionPlatform(workload, costing, 7, Cacheless(site.site), "cacheless")
    platform.start()
    with pytest.raises(ChannelError, match=r"siren\.deploy --channel redis"):
        platform.run_epoch(subject_of(site, tiny_folder).plan(Action(1, 1769)))


def test_a_stored_sample_of_another_size_is_refused(site, tmp_path):
    folder = write_tiny_workload(tmp_path / "tiny", cost={"sample_bytes": 12})
    workload, costing = job(folder)
    with pytest.raises(WorkloadError, match="sample_bytes = 16"):
        FunctionPlatform(workload, costing, 7, site, "x").start()
