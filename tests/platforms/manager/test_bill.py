"""What an epoch of real functions is billed for beside its functions: objects, probes, answers, pauses."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from botocore.exceptions import ClientError

from siren.channels import objects
from siren.channels.objects import Origin
from siren.errors import PlatformError
from siren.hsp.quotas import divide
from siren.money.pricer import RunTotals
from siren.platforms.local import LocalSite
from siren.platforms.manager.clients import s3_client
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.manager.staging import Staging, objects_of
from siren.types import Action
from siren.worker.messages import Status, Task
from siren.worlds import real
from siren.worlds.costing import Costing
from siren.worlds.real import ANSWER_BYTES, KEPT_S
from tests.platforms.manager.test_crew import status, task
from tests.platforms.manager.test_platform import bill_is_covered, job, started, subject_of

TWO = Action(2, 1769)


def left_behind(platform: FunctionPlatform) -> list[str]:
    """Keys of a run that are in the bucket."""
    assert platform._open is not None
    client, backend = s3_client(platform._open.backend), platform._open.backend
    try:
        found = client.list_objects_v2(Bucket=backend.bucket, Prefix=f"runs/{platform._run}/")
    finally:
        client.close()
    return [each["Key"] for each in found.get("Contents", [])]


@pytest.mark.parametrize(
    ("channel", "rule"), [("s3", "cas"), ("s3", "average"), ("s3", "sync"), ("redis", "additive")]
)
def test_an_epoch_leaves_nothing_in_the_bucket_and_pays_for_what_lay_there(site, tiny_folder, channel, rule):
    subject = subject_of(site, tiny_folder, channel=channel, update_rule=rule)
    plan = subject.plan(TWO)
    with started(subject) as platform:
        for _ in range(2):
            report = platform.run_epoch(plan)
            assert left_behind(platform) == []
            assert bill_is_covered(subject, report, plan)
    stored_gb_s = float(subject.costing.stored_gb(2)) * report.duration_s
    epoch = subject.costing.real_epoch(TWO, plan.timeout_s, plan.lifetimes)
    assert stored_gb_s < report.usage.s3_gb_s < stored_gb_s + epoch.kept_gb_s() / 100


def test_what_a_lost_function_may_still_put_there_is_paid_until_the_bucket_forgets_it(site, tiny_folder):
    subject = subject_of(site, tiny_folder, channel="s3", update_rule="average")
    plan = subject.plan(TWO)
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject("drop_response", count=1)
        report = platform.run_epoch(plan)
    epoch = subject.costing.real_epoch(TWO, plan.timeout_s, plan.lifetimes)
    assert report.usage.s3_gb_s > epoch.left_gb_s(epoch.left(report.usage.requests), KEPT_S)
    assert bill_is_covered(subject, report, plan)


def test_the_probe_of_the_store_is_billed_with_the_first_epoch(site, tiny_folder):
    subject = subject_of(site, tiny_folder, channel="s3", update_rule="average")
    plan = subject.plan(TWO)
    with started(subject) as platform:
        platform.run_epoch(plan)  # the data is there from now on
    with started(subject) as platform:
        platform.connect()
        assert platform._open.staging.traffic == (0, 0, 0)
        first = platform.run_epoch(plan).usage
        asked = platform._open.staging.traffic
        second = platform.run_epoch(plan).usage
        later = platform._open.staging.traffic.since(asked)
    assert first.s3_puts - second.s3_puts == 4 + 1  # the probe's writes, and its removal
    # Functions may read their data anew in either epoch; what the manager asks itself is certain.
    assert asked.gets - later.gets == 1
    assert first.s3_gets >= asked.gets


def test_answers_and_models_are_billed_as_they_leave_the_region(site, tiny_folder):
    subject = subject_of(site, tiny_folder, channel="s3", update_rule="average")
    plan = subject.plan(TWO)
    with started(subject) as platform:
        report = platform.run_epoch(plan)
    epoch = subject.costing.real_epoch(TWO, plan.timeout_s, plan.lifetimes)
    models = 2 * subject.costing.job.model_bytes
    assert models + 2 * 600 < report.usage.egress_bytes < models + 2 * (ANSWER_BYTES + 8192)
    assert report.usage.egress_bytes <= epoch.egress_bytes()


def test_an_epoch_of_which_no_function_ran_costs_what_the_manager_asked(site, tiny_folder, monkeypatch):
    subject = subject_of(site, tiny_folder)
    plan, pricer = subject.plan(TWO), subject.costing.pricer
    with started(subject) as platform:
        platform.run_epoch(plan)
        site.site.endpoint.inject("throttle", count=10**6)
        with monkeypatch.context() as patch:
            patch.setattr(Costing, "longest_s", lambda *_: 1.0)
            with pytest.raises(PlatformError, match="had not ended after 1 s") as failed:
                platform.run_epoch(plan)
        site.site.endpoint.clear_faults()
        usage = failed.value.unlaunched
        assert usage is not None
        bill = pricer.price_epoch(usage, previous=RunTotals(cache_hours=1))
        assert (usage.billed_ms, usage.requests, usage.s3_puts) == (0, 0, 1)
        assert pricer.s3_put_usd < bill.total < plan.reserve_usd / 100
        site.site.endpoint.inject("drop_response", count=10)
        with pytest.raises(PlatformError, match="no function of the epoch returned") as failed:
            platform.run_epoch(plan)
        assert failed.value.unlaunched is None


def test_the_cache_is_billed_from_when_the_run_first_began(site, tiny_folder):
    subject = subject_of(site, tiny_folder)
    with started(subject) as platform:
        first = platform.run_epoch(subject.plan(TWO)).usage
        assert 0 < first.cache_s < 600
        tensors, state = platform.save()
    assert abs(time.time() - state["began_unix"]) < 600
    state = json.loads(
        json.dumps({**state, "began_unix": state["began_unix"] - 3 * 3600})
    )  # killed, and a pause
    with started(subject) as platform:
        platform.connect()
        platform.restore(tensors, state)
        assert 3 * 3600 <= platform.idle_s < 4 * 3600
        second = platform.run_epoch(subject.plan(TWO)).usage
        assert platform.save()[1]["began_unix"] == state["began_unix"]
    totals = RunTotals().after(first)
    hours = subject.costing.pricer.price_epoch(second, previous=totals)["cache"]
    assert hours == 3 * subject.costing.pricer.cache_usd_per_h


def test_a_run_folder_that_does_not_say_when_the_run_began_is_gone_on_with(tiny_folder):
    workload, costing = job(tiny_folder)
    platform = FunctionPlatform(workload, costing, 7, LocalSite(tiny_folder, environments=1), "Old Run")
    platform.restore({"params": platform.params}, {"epoch": 2, "clock_s": 7200.0})
    assert platform.save()[1]["began_unix"] == pytest.approx(time.time() - 7200, abs=600)
    assert 0 <= platform.idle_s < 600


def test_what_s3_does_not_remove_is_told_once_and_hours_count_on_a_clock_that_is_behind(
    site, tiny_folder, monkeypatch
):
    subject = subject_of(site, tiny_folder)
    monkeypatch.setattr(Staging, "remove", lambda *_: False)
    told: list[str] = []
    with started(subject) as platform:
        platform.tell = told.append
        tomorrow = time.time() + 24 * 3600
        platform.restore({"params": platform.params}, {"epoch": 0, "clock_s": 3600.0, "began_unix": tomorrow})
        plan = subject.plan(TWO)
        reports = [platform.run_epoch(plan) for _ in range(2)]
    for report, began_s in zip(reports, (3600.0, 3600.0 + reports[0].duration_s), strict=True):
        assert report.usage.cache_s == pytest.approx(began_s + report.duration_s)
        assert report.usage.s3_gb_s > 0
    assert sum("s3:DeleteObject" in text for text in told) == 1


def test_removals_are_counted_and_what_stays_is_told(site, monkeypatch):
    staging = Staging(site.open().backend, "r")
    try:
        assert staging.remove([f"runs/r/{i}" for i in range(2500)])  # at most 1,000 in a request
        assert staging.traffic == (3, 0, 0)
        refused = ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteObjects")
        for answer in ({"return_value": {"Errors": [{"Key": "runs/r/1"}]}}, {"side_effect": refused}):
            monkeypatch.setattr(staging._client, "delete_objects", Mock(**answer))
            assert not staging.remove(["runs/r/1"])
    finally:
        staging.close()


@pytest.mark.parametrize("functions", [1, 2, 5])
@pytest.mark.parametrize(
    ("channel", "rule"), [("s3", "sync"), ("s3", "average"), ("s3", "cas"), ("redis", "sync")]
)
def test_no_object_is_forgotten_and_there_are_no_more_than_reserved(tiny_folder, channel, rule, functions):
    subject = subject_of(None, tiny_folder, channel=channel, update_rule=rule)
    job = subject.costing.job
    epoch = subject.costing.real_epoch(Action(functions, 1769), 15, 1)
    pushes = int(job.pushes(functions))
    told: Task = replace(
        task(0, functions), run="r", rule=rule, channel=channel, epoch_pushes=pushes, size=job.parameters
    )
    statuses: list[Status] = [
        status(replace(told, worker=i), model_key=f"{told.folder}final-{i}.npz") for i in range(functions)
    ]
    statuses.append(status(told, model_key="runs/other/epochs/1-0/final-1.npz"))
    keys = objects_of(told, statuses)
    assert all(key.startswith(told.folder) for key in keys)
    own = {f"{told.folder}final-{i}.npz" for i in range(functions)}
    assert len(set(keys) - (own if channel == "s3" else set())) <= epoch.left(functions)
    steps = -(-pushes // functions)
    if (channel, rule) == ("s3", "sync"):
        models = {f"{told.folder}step-{step}/model.npz" for step in range(steps)}
        gradients = {
            f"{told.folder}step-{push // functions}/worker-{push % functions}.npz" for push in range(pushes)
        }
        assert models | {key for key in gradients if "/worker-0" not in key} <= set(keys)
    if (channel, rule) == ("s3", "average"):
        quotas = np.diff(divide(job, functions).first_push)
        assert {f"{told.folder}worker-{i}-{quota}.npz" for i, quota in enumerate(quotas)} <= set(keys)
    assert epoch.object_bytes == Origin("r", 1, 0, job.parameters, functions).bytes_max
    assert real.OBJECT_OVERHEAD_BYTES == objects.OVERHEAD_BYTES
