"""What disturbs a truth, what is counted of it, and the experiment in small, from the command to its page."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from experiments import _disturbed, robustness
from experiments._disturbed import (
    DISTURBANCES,
    HELDOUT,
    NOISY,
    NONE,
    OFF,
    ONE_SIZE,
    STORE_TIMES,
    TIMES,
    DisturbedCase,
    NoisyPlatform,
    constants_off,
)
from experiments._pages import append_rows
from experiments._robustness_tables import (
    HINDSIGHT,
    MOVED,
    PLANNED,
    REHEARSED,
    UNDISTURBED,
    CellRow,
    Table,
    memories,
    remaining,
)
from siren.errors import ActionError
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case
from siren.evaluation.jobs import TWIN, JobKey, build
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy
from siren.types import Action
from siren.worlds import load_world
from siren.worlds.costing import EpochPlan

JOB = JobKey(TWIN, "noisy-2026", "aws-2026", "split", None, 390, generated=True)


@pytest.fixture(scope="module")
def job():
    return build(JOB)


@pytest.fixture
def planned(job, tmp_path):
    case = Case.__new__(Case)  # without its ladder
    case.key, case.job, case.budget_usd = None, job, Decimal("0.10")
    case._cache = ChoiceCache(tmp_path)
    return case


def cell(job: str, truth: str, policy: str, times: list[float], success: list[bool], **changes) -> CellRow:
    zeros = np.zeros(len(times))
    made = CellRow(
        job=job, truth=truth, policy=policy, choice=policy, best_fixed="1x128", unit_s=10.0, failure_s=20.0,
        success=np.array(success), time_s=np.array(times), cost_usd=zeros, overspent_usd=zeros, off=zeros,
        budget_usd="1", cpu_s=1.0, commit="abc",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


# --- disturbances ------------------------------------------------------------------------------------


def test_constants_are_off_by_factors_of_their_own_and_nothing_else_is():
    world = load_world("aws-2026")
    off = constants_off(world, 1)
    factors = []
    sections = [(getattr(world, name), getattr(off, name), TIMES[name]) for name in TIMES]
    sections += [(world.channels[kind], off.channels[kind], STORE_TIMES) for kind in world.channels]
    for before, after, names in sections:
        for name, value in before:
            if name not in names:
                assert getattr(after, name) == value
            elif value:
                factors.append(getattr(after, name) / value)
    assert len(set(factors)) == len(factors) > 20
    assert max(factors) <= OFF + 1e-3
    assert min(factors) >= 1 / OFF - 1e-3
    assert (off.limits, off.billing) == (world.limits, world.billing)
    assert constants_off(world, 1) == off != constants_off(world, 2)
    assert all(store.tail_min <= store.tail_max for store in off.channels.values())


def test_a_noisy_loss_is_that_of_other_samples_after_every_epoch(job):
    plan = EpochPlan(Action(8, 1769), 900, 900.0, Decimal(0))
    exact, noisy, again = (
        made(job.workload, job.costing, 7) for made in (TwinPlatform, NoisyPlatform, NoisyPlatform)
    )
    for platform in (exact, noisy, again):
        platform.start()
    errors = []
    for _ in range(6):
        told, estimate = exact.run_epoch(plan), noisy.run_epoch(plan)
        assert again.run_epoch(plan).loss == estimate.loss != told.loss
        assert np.array_equal(noisy.params, exact.params)  # training is the same
        assert dataclasses.replace(estimate, loss=told.loss, accuracy=told.accuracy).usage == told.usage
        errors.append(estimate.loss - told.loss)
    assert len(set(errors)) == 6
    assert np.abs(errors).max() < 5 / np.sqrt(HELDOUT)  # a sample's loss varies by less than 1 here


def test_policies_believe_the_world_of_before_and_the_truth_plays(planned):
    stragglers = DisturbedCase(planned, DISTURBANCES[2])
    assert stragglers.job.costing.world.cpu.push_noise == _disturbed.NOISE
    policy = FixedPolicy(Action(16, 1769))
    episode, exact_loss = stragglers.played(policy, 3)
    assert policy._job.costing is planned.job.costing
    assert episode.duration_s > planned.episode(policy, 3).duration_s
    assert exact_loss == episode.losses[-1]
    assert episode.overspent_usd == 0
    noisy, exact_loss = DisturbedCase(planned, NOISY).played(policy, 3)
    assert noisy.losses[-1] != exact_loss


def test_the_ablation_refuses_every_other_memory_size(planned):
    case = DisturbedCase(planned, ONE_SIZE)
    case.job.platform(0).check_action(Action(4, 1769))
    with pytest.raises(ActionError, match="1536 MB is not a memory size"):
        case.job.platform(0).check_action(Action(4, 1536))


# --- tables ------------------------------------------------------------------------------------------


def test_speed_ups_count_failures_and_are_strict_on_request():
    none = [
        cell("a", UNDISTURBED, REHEARSED, [5.0, 5.0], [True, True]),
        cell("a", UNDISTURBED, PLANNED, [10.0, 3.0], [True, False]),
    ]
    noisy = [
        cell("a", NOISY.name, REHEARSED, [5.0, 5.0], [True, True], off=np.array([0.0, 0.2])),
        cell("a", NOISY.name, PLANNED, [10.0, 10.0], [True, True]),
        cell("a", NOISY.name, HINDSIGHT, [8.0, 8.0], [True, True]),
    ]
    table = Table([*none, *noisy])
    assert table.speed_up("a", UNDISTURBED, PLANNED)[0] == pytest.approx((10 + 20) / 10)
    assert table.speed_up("a", UNDISTURBED, HINDSIGHT)[0] == pytest.approx(3)  # the planned one is the best
    assert table.speed_up("a", NOISY.name, HINDSIGHT)[0] == pytest.approx(16 / 10)
    assert table.speed_up("a", NOISY.name, PLANNED, exact=True)[0] == pytest.approx(20 / 25)
    assert table.difference("a", UNDISTURBED, (UNDISTURBED, PLANNED))[0] == 0.5
    assert remaining((3.0, 2.0, 4.0), (2.0, 1.5, 2.5)) == "50%"
    assert remaining((1.2, 0.9, 1.5), (0.5, 0.4, 0.6)) == "no clear gain"


def test_what_memory_gives_is_measured_with_one_yardstick():
    rows = [
        cell("a", UNDISTURBED, REHEARSED, [5.0, 5.0], [True, True]),
        cell("a", UNDISTURBED, PLANNED, [10.0, 10.0], [True, True]),
        cell("a", UNDISTURBED, MOVED, [4.0, 4.0], [True, False]),
        cell("a", ONE_SIZE.name, REHEARSED, [20.0, 20.0], [True, True], failure_s=60.0),
        cell("a", ONE_SIZE.name, HINDSIGHT, [30.0, 9.0], [True, False], failure_s=60.0),
    ]
    (found,) = memories(Table(rows))
    assert found.seconds == (45.0, 20.0, 10.0, 5.0, 32.0)
    assert found.ratios == (45 / 20, 2.0, 4.5, 4.0)


# --- the command -------------------------------------------------------------------------------------


def test_the_experiment_goes_on_where_it_was_and_becomes_a_page(tmp_path, monkeypatch):
    config = robustness.RobustnessConfig(
        workloads=(), first_job=390, jobs=1, seeds=3, seconds=0.5, page=tmp_path / "page.md", out=tmp_path
    )
    path = tmp_path / "cells.csv"
    with monkeypatch.context() as patch:
        patch.setattr(robustness, "truths", lambda fast: (NONE,))
        robustness.measure(config, path)
    rows = robustness._rows(path)
    assert [(row["truth"], row["policy"]) for row in rows] == [
        ("none", p) for p in (REHEARSED, PLANNED, MOVED)
    ]
    for truth in (*DISTURBANCES[1:], ONE_SIZE):  # as if they had gone as without a disturbance
        for policy, row in ((REHEARSED, rows[0]), (PLANNED, rows[1]), (HINDSIGHT, rows[1])):
            if not (truth is ONE_SIZE and policy == PLANNED):
                append_rows(path, [{**row, "truth": truth.name, "policy": policy}])
    before = path.read_text(encoding="utf-8")
    assert robustness.main(config) == 0
    assert path.read_text(encoding="utf-8") == before  # nothing was left to be done
    text = config.page.read_text(encoding="utf-8")
    assert "in all 60 runs of this page: $0.00" in text
    for truth in DISTURBANCES:
        assert f"| `noisy-2026` 390 | {truth.title} | " in text
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
