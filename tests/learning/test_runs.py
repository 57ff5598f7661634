"""Recorded runs: what they tell, what is drawn around them, and what an agent learns from them."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.from_runs import START, slow_starts
from siren.errors import AgentError, RunFolderError, UsageError
from siren.learning.episodes import acting, compare, play, play_reference
from siren.learning.neighbourhood import FITTED, Neighbourhood, read_fitted, write_fitted
from siren.learning.recipe import FINE_TUNING, changed_recipe, load_recipe
from siren.learning.report import CARD, FAMILY, NEAR
from siren.learning.runs import fit_runs, read_run
from siren.policies.network import load_network
from siren.simulator.sampling import sample_jobs
from siren.simulator.tables import Fact, pool_of
from siren.testing.recorded import record
from siren.train_agent import TrainConfig, main

FAMILY_OF_RUNS = slow_starts(pushes=(100, 400))  # so few that they are fitted quickly


@pytest.fixture(scope="module")
def recorded_jobs():
    return sample_jobs(FAMILY_OF_RUNS, 6, seed=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, recorded_jobs):
    root = tmp_path_factory.mktemp("runs")
    return [record(root / f"slow-{k}", job, job.spec.functions_ref) for k, job in enumerate(recorded_jobs)]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, runs):
    """(agent folder, exit code, stdout, stderr) of a short fine-tuning."""
    folder = tmp_path_factory.mktemp("agents") / "tuned"
    changes = {
        "optimiser": {**FINE_TUNING.optimiser.model_dump(), "warm_up": 4000, "environments": 32},
        "evaluation": {"every": 30_000, "jobs": 20, "test_jobs": 10, "repeats": 1},
        "runs": {"share": 0.9},
    }
    recipe = folder.parent / "short.toml"
    recipe.write_text(changed_recipe(FINE_TUNING, changes).to_toml(), encoding="utf-8")
    stdout, stderr = io.StringIO(), io.StringIO()
    config = TrainConfig(recipe=str(recipe), from_runs=tuple(runs), steps=150_000, jobs=150, out=folder)
    code = main(config, stdout, stderr)
    return folder, code, stdout.getvalue(), stderr.getvalue()


def test_an_agent_improves_on_a_family_that_it_was_bad_at(tuned):
    folder, code, _, stderr = tuned
    assert code == 0, stderr
    fresh = pool_of(sample_jobs(FAMILY_OF_RUNS, 60, seed=77))
    reference = play_reference(fresh, 2, seed=1)
    before, after = (play(fresh, acting(load_network(path)[0]), 2, seed=1) for path in (START, folder))
    assert compare(before, reference).high < 1.0
    assert compare(after, before).low > 1.0
    assert after.success.mean() >= before.success.mean()


def test_the_folder_says_what_it_learned_from_and_how_it_did_before(tuned, runs):
    folder, _, stdout, _ = tuned
    assert f"{NEAR}, before" in stdout
    card = (folder / CARD).read_text(encoding="utf-8")
    for run in runs:
        assert f"`{run.name}`" in card
        assert str(run.parent) not in card
    for row in (FAMILY, f"{FAMILY}, before", NEAR, f"{NEAR}, before"):
        assert f"| {row} | 10 |" in card
    recipe = load_recipe(str(folder / "train.toml"))
    assert recipe.start == "agents/default-2026"
    assert recipe.network.hold == load_recipe("default-2026").network.hold
    assert [run for job in read_fitted(folder) for run in job.runs] == [run.name for run in runs]


def test_a_recipe_is_repeated_without_the_runs(tuned):
    folder, *_ = tuned
    copy, again = Path("copy"), [Path("first"), Path("second")]
    copy.mkdir()
    shutil.copy(folder / FITTED, copy)
    recipe = load_recipe(str(folder / "train.toml"))
    changes = {
        "jobs": 2,
        "evaluation": {"every": 600, "jobs": 2, "test_jobs": 2, "repeats": 1},
        "optimiser": {**recipe.optimiser.model_dump(), "environments": 8, "warm_up": 300},
    }
    text = changed_recipe(recipe, changes).to_toml()
    (copy / "train.toml").write_text(text, encoding="utf-8")
    for out in again:
        config = TrainConfig(recipe=str(copy / "train.toml"), steps=600, out=out)
        assert main(config, io.StringIO(), io.StringIO()) == 0
    first, second = (load_network(out)[0].tensors for out in again)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert read_fitted(again[0]) == read_fitted(folder)


def test_runs_of_a_job_are_fitted_together(tmp_path, recorded_jobs, runs):
    job = recorded_jobs[0]
    again = record(tmp_path / "again", job, max(1, job.spec.functions_ref // 2), seed=3)
    fitted, notes = fit_runs([runs[0], again, runs[1], runs[0]])
    assert [f.runs for f in fitted] == [("slow-0", "again"), ("slow-1",)]
    assert notes == []
    assert fitted[0].initial_loss == pytest.approx(job.spec.initial_loss)
    assert fitted[0].job == job.spec.job
    assert fitted[0].courses[1][0] == max(1, job.spec.functions_ref // 2)
    write_fitted(tmp_path, fitted)
    assert read_fitted(tmp_path) == fitted


def test_measured_slowness_is_in_the_neighbours(runs):
    fitted, _ = fit_runs(runs[:1])
    goal = FAMILY_OF_RUNS.goal
    slower = dataclasses.replace(fitted[0], scales=dataclasses.replace(fitted[0].scales, compute=2.0))
    usual, slow = (
        np.mean([job.spec.job.seconds_per_sample for job in Neighbourhood((f,), goal, 0.3)(6, [2])])
        for f in (fitted[0], slower)
    )
    assert slow == pytest.approx(2 * usual, rel=0.3)


def test_neighbours_differ_repeat_and_can_be_done(runs):
    near = Neighbourhood(fit_runs(runs[:2])[0], FAMILY_OF_RUNS.goal, 0.3)
    jobs = near(12, [4])
    assert [job.dynamics for job in near(3, [4])] == [job.dynamics for job in jobs[:3]]
    assert len({job.dynamics.rate for job in jobs}) == 12
    pool = pool_of(jobs)
    assert (pool.facts[:, Fact.TARGET] < pool.facts[:, Fact.INITIAL]).all()
    assert play_reference(pool, 2, seed=0).success.mean() > 0.7


def test_runs_that_tell_too_little_are_left_out_or_refused(tmp_path, recorded_jobs, runs):
    short = record(tmp_path / "short", recorded_jobs[0], 1, max_epochs=2)
    fitted, notes = fit_runs([short, runs[1]])
    assert [f.runs for f in fitted] == [("slow-1",)]
    assert notes == ["run short is left out: it has 2 epochs, fewer than 3"]
    with pytest.raises(UsageError, match="no run tells enough"):
        fit_runs([short])


def test_a_run_that_only_diverged_is_left_out(runs):
    run = read_run(runs[0])
    worse = [dataclasses.replace(r, loss=run.initial_loss * 2**k) for k, r in enumerate(run.reports, 1)]
    assert "never fell" in dataclasses.replace(run, reports=tuple(worse)).shortcoming
    worse[0] = dataclasses.replace(worse[0], loss=run.initial_loss * 0.9)
    assert "diverged" in dataclasses.replace(run, reports=tuple(worse)).shortcoming
    assert run.shortcoming == ""


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "{", "is damaged"),
        ("config.json", '{"budget_usd": 1.0, "workload": "x"}', "does not tell the workload and the world"),
        ("events.jsonl", "{}\n", "line 1"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path, runs, file, text, said):
    folder = tmp_path / "damaged"
    shutil.copytree(runs[0], folder)
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=said):
        read_run(folder)
    stderr = io.StringIO()
    assert main(TrainConfig(from_runs=(folder,), out=Path("none")), io.StringIO(), stderr) == 4
    assert not Path("none").exists()


def test_damaged_fitted_jobs_are_refused(tmp_path):
    with pytest.raises(AgentError, match="cannot read"):
        read_fitted(tmp_path)
    (tmp_path / FITTED).write_text("[{}]", encoding="utf-8")
    with pytest.raises(AgentError, match="is damaged"):
        read_fitted(tmp_path)
