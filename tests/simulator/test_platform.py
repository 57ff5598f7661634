"""Simulated jobs keep the promises of a platform, and cost what their laws say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.simulator.job import EpisodeSpec, SimulatedJob
from siren.simulator.platform import SimulatedPlatform
from siren.simulator.quadratic import MODES, Quadratic
from siren.simulator.sensors import noise_floor
from siren.testing.platform import PLENTY, PlatformConformance, Subject
from siren.testing.tiny import tiny_workload
from siren.twin.twin import job_of
from siren.types import Action, BatchRule
from siren.worlds import load_world
from siren.worlds.costing import Outlook, make_costing

ACTIONS = (Action(3, 1024), Action(1, 256), Action(8, 1024), Action(3, 1769))


def simulated_job(world: str = "aws-2026", **job) -> SimulatedJob:
    """The tiny job with as many parameters as there are modes, converging as a quadratic."""
    laws_job = dataclasses.replace(job_of(tiny_workload()), parameters=MODES, **job)
    costing = make_costing(load_world(world), laws_job)
    spec = EpisodeSpec(costing, 1.0, 0.2, 1.0, 4, 1024, 10.0, 0.1)
    return SimulatedJob(spec, Quadratic(0.3, 1.0, 0.5, 0.05, 0.9, 10.0))


class TestSimulated(PlatformConformance):
    @pytest.fixture(params=list(BatchRule))
    def subject(self, request) -> Subject:
        job = simulated_job(batch_rule=request.param)
        return Subject(lambda: SimulatedPlatform(job, 5), job.spec.costing, ACTIONS)


class TestSimulatedWhoseEvaluationIsAFunction(PlatformConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        job = simulated_job(evaluator_is_function=True, evaluate_seconds_per_sample=0.1)
        return Subject(lambda: SimulatedPlatform(job, 5), job.spec.costing, ACTIONS)


def epoch_of(platform: Platform, subject: Subject, action: Action):
    outlook = Outlook(platform.clock_s, 1, RunTotals(), PLENTY)
    return platform.run_epoch(subject.plan(action, outlook=outlook))


@pytest.mark.parametrize("action", [Action(1, 1769), Action(6, 1024), Action(24, 3008)], ids=str)
def test_times_and_bills_agree_with_the_closed_form_in_the_mean(action):
    job = simulated_job()
    costing = job.spec.costing
    subject = Subject(lambda: SimulatedPlatform(job, 0), costing, ACTIONS)
    n, m = np.array([float(action.functions)]), np.array([float(action.memory_mb)])
    for warm in (False, True):
        seconds, dollars = [], []
        for seed in range(150):
            platform = SimulatedPlatform(job, seed)
            platform.start()
            if warm:
                epoch_of(platform, subject, action)
            report = epoch_of(platform, subject, action)
            seconds.append(report.duration_s)
            usage = dataclasses.replace(report.usage, cache_s=0.0)
            dollars.append(float(costing.pricer.price_epoch(usage, previous=RunTotals()).total))
        starts = 0 * n if warm else n
        expected = costing.expect(n, m, starts, starts)
        usd = float(costing.marginal_usd(n, m, expected)[0])
        usd += 0.0 if warm else costing.setup_puts * float(costing.pricer.s3_put_usd)
        error_s = np.std(seconds) / np.sqrt(len(seconds))
        error_usd = np.std(dollars) / np.sqrt(len(dollars))
        duration_s = float(np.asarray(expected.duration_s).item())
        assert abs(np.mean(seconds) - duration_s) < 4 * error_s + 1e-3 * duration_s
        assert abs(np.mean(dollars) - usd) < 4 * error_usd + 5e-3 * usd


def test_an_epoch_that_its_timeout_cuts_off_takes_and_bills_no_more():
    job = simulated_job(seconds_per_sample=1.0)
    platform = SimulatedPlatform(job, 0)
    subject = Subject(lambda: platform, job.spec.costing, ACTIONS)
    plan = subject.plan(Action(2, 1024), job.spec.world.limits.timeout_rungs[0])
    report = platform.run_epoch(plan)
    assert report.duration_s == job.spec.costing.longest_s(plan.action, plan.timeout_s)
    assert platform.clock_s == report.duration_s
    longest_s = plan.timeout_s + job.spec.world.limits.init_max
    assert report.usage.billed_ms == 2 * longest_s * 1000


def test_a_model_that_is_set_back_goes_on_from_there():
    job = simulated_job()
    platform = SimulatedPlatform(job, 1)
    subject = Subject(lambda: platform, job.spec.costing, ACTIONS)
    initial, _ = platform.start()
    best = platform.params.copy()
    losses = [epoch_of(platform, subject, ACTIONS[0]).loss for _ in range(3)]
    assert losses[-1] < initial
    platform.set_params(best)
    np.testing.assert_array_equal(platform.params, best)
    again = epoch_of(platform, subject, ACTIONS[0])
    assert again.epoch == 4
    assert again.loss > losses[1]


def test_the_gradients_tell_the_noise_floor_of_the_dynamics():
    job = simulated_job()
    told = []
    for seed in range(60):
        platform = SimulatedPlatform(job, seed)
        subject = Subject(lambda platform=platform: platform, job.spec.costing, ACTIONS)
        report = epoch_of(platform, subject, Action(4, 1024))
        told.append(noise_floor(platform._training, job.spec.job, report))
        assert report.gradients.square_norm_of_mean > 0
        assert 0 < report.gradients.secant_curvature <= 1
    floor = float(platform.pool(4).floor[0, 0])
    assert np.exp(np.mean(np.log(told))) == pytest.approx(floor, rel=0.1)
