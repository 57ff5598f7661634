"""Predictions against what then happens, on generated jobs: `experiments/calibration.py` in small."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from siren.errors import BudgetError
from siren.planning.prediction import (
    PREDICTION_SEED,
    first_action,
    play_fresh,
    prediction_of,
    rehearsed_stage,
)
from siren.policies.reference import Reference
from siren.rehearsal.rehearse import Rehearsal
from siren.rehearsal.stage import FIRST_SEED, FRESH_SEED, Candidate, Stage
from siren.rehearsal.workers import StageSettings
from siren.simulator.scenarios import load_sgd_scenario
from siren.simulator.twin_jobs import family_job
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action
from siren.workloads.workload import Workload

BUDGET = Decimal("0.50")
FIXED = Candidate("fixed:4x1769", action=Action(4, 1769))


def stage_of(**training) -> Stage:
    workload = tiny_workload(training={"target_loss": 0.6, **training})
    return Stage(workload, tiny_costing(workload))


def generated(index: int) -> tuple[Stage, Candidate, Decimal]:
    made = family_job(load_sgd_scenario("small-2026"), np.random.default_rng([99, index]), "aws-2026")
    workload, spec = made.twin.workload, made.spec
    training = workload.spec.training.model_copy(update={"target_loss": spec.target_loss})
    changed = workload.spec.model_copy(update={"training": training})
    workload = Workload(workload.name, changed, workload.model, workload.dataset, workload.folder)
    action = Action(spec.functions_ref, spec.memory_ref_mb)
    candidate = Candidate(f"fixed:{action}", action=action)
    return Stage(workload, spec.costing), candidate, Decimal(repr(round(spec.budget_usd, 6)))


def test_bands_hold_about_80_per_cent_of_runs_on_fresh_seeds():
    held: dict[str, list[bool]] = {"time": [], "cost": []}
    for index in range(4):
        stage, candidate, budget = generated(index)
        target = stage.workload.spec.training.target_loss
        told = prediction_of(
            candidate.name, play_fresh(stage, None, [candidate], budget, target, 600.0, episodes=10)
        )
        for seed in range(12):
            trial = stage.trial(candidate, budget, target, 7_000_000 + seed)
            held["cost"].append(told.cost_usd.holds(trial.cost_usd))
            if trial.success and told.time_s:
                held["time"].append(told.time_s.holds(trial.duration_s))
    assert len(held["time"]) >= 40
    assert np.mean(held["time"]) == pytest.approx(0.8, abs=0.12)
    assert np.mean(held["cost"]) == pytest.approx(0.8, abs=0.12)


def test_predictions_use_seeds_that_chose_nothing():
    trials = play_fresh(stage_of(), None, [FIXED], BUDGET, 0.6, 600.0, episodes=3)
    assert [trial.seed for trial in trials] == [PREDICTION_SEED + k for k in range(3)]
    assert not {FIRST_SEED, FRESH_SEED} & {trial.seed for trial in trials}


def test_at_least_one_run_is_played_however_short_the_time():
    trials = play_fresh(stage_of(), None, [FIXED], BUDGET, 0.6, 1e-3, episodes=5)
    assert 1 <= len(trials) <= 5
    with pytest.raises(BudgetError, match="give more --seconds"):
        prediction_of("another", trials)


def test_the_first_action_is_what_the_run_would_do_with_its_worst_case():
    first = first_action(stage_of(), FIXED, BUDGET)
    assert (first.functions, first.memory_mb) == (4, 1769)
    assert first.cost_usd < float(first.reserve_usd) <= float(BUDGET)
    with pytest.raises(BudgetError):
        first_action(stage_of(), FIXED, Decimal("0.00001"))


def test_a_sub_sample_is_predicted_on_the_same_sub_sample():
    whole = stage_of(batch_rule="split")
    reference = Reference(4, 1769, 1.0, 0.01)
    found = Rehearsal(FIXED, "", reference, (), ((4, 5),), 1.0, 0.6, 0, 1, 1.0)
    settings = StageSettings("tiny", {}, "aws-2026", 1.0, "mine.json")
    assert rehearsed_stage(whole, settings, found) == (whole, settings)
    part, named = rehearsed_stage(whole, settings, replace(found, share=0.5))
    assert part.share < 1
    assert (named.fraction, named.profile) == (0.5, "mine.json")
