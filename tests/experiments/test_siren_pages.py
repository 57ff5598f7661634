"""Siren's experiments: what they compute, and each of them in small, from the command to its page."""

from __future__ import annotations

import dataclasses
import subprocess

import numpy as np
import pytest

from experiments import _pages, siren_simulation, siren_testbed, siren_toy
from experiments._pages import Course, interval, machine_courses, ratio, wrapped
from experiments.siren_testbed import Run, cells_of, read_runs, same_cost, write_runs
from siren.planning.machines import Convergence
from siren.simulator.sampling import costing_of
from siren.twin.twin import job_of
from siren.workloads.registry import load_workload
from siren.worlds.vm import Cluster, VmCosting, load_machines

PNG = b"\x89PNG"


def course(seconds: float, dollars: float, cache_usd: float = 0.0) -> Course:
    return Course(np.array([0.0, seconds]), np.array([0.0, dollars]), np.array([1.0, 0.4]), True, cache_usd)


def run(arm: str, machines: int, seconds: float, dollars: float, *, started: bool = False) -> Run:
    budget_usd, policy = ("", "") if machines else ("0.05", "fixed:4x1769")
    return Run(arm, machines, started, budget_usd, policy, course(seconds, dollars))


# --- shared ------------------------------------------------------------------------------------------


def test_an_interval_holds_its_mean_and_narrows_with_more_seeds():
    few, many = (interval(list(np.random.default_rng(0).normal(10, 1, n))) for n in (5, 200))
    for mean, low, high in (few, many):
        assert low < mean < high
    assert many[2] - many[1] < few[2] - few[1]
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_a_ratio_is_that_of_the_means():
    mean, low, high = ratio([10.0, 30.0], [4.0, 6.0])
    assert mean == 4.0
    assert low < mean < high


def test_a_page_keeps_its_tables_and_fills_its_paragraphs():
    text = "# A heading\n\n" + "word " * 60 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    found = wrapped(text)
    assert "| a | b |\n|---|---|\n| 1 | 2 |" in found
    assert max(len(line) for line in found.splitlines()) <= 118
    assert found.count("word") == 60


def test_a_page_names_its_commit_and_whether_code_differs_from_it(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    monkeypatch.setattr(_pages, "ROOT", tmp_path)
    named = _pages.commit.__wrapped__
    git("init", "--quiet")
    for path in ("siren/a.py", "experiments/page.md"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "--short", "HEAD").strip()
    (tmp_path / "experiments/page.md").write_text("2")
    assert named() == head
    (tmp_path / "siren/a.py").write_text("2")
    assert named() == f"{head} and changes to it"


def test_courses_on_machines_differ_by_the_start_and_its_bill():
    job = job_of(load_workload("softmax-digits"))
    costing = VmCosting(costing_of("aws-2026", job).world, job, load_machines())
    cluster = Cluster("m4.xlarge", 2)
    found = Convergence(20, 10.0, (2,), losses=((1.0, 0.5, 0.4),))
    (cold,), (started,) = (machine_courses(costing, cluster, found, started=flag) for flag in (False, True))
    lost_s = costing.machines.start.pending + costing.ready_s(cluster)
    assert np.allclose(cold.seconds - started.seconds, lost_s)
    assert np.allclose(np.diff(started.seconds), costing.epoch_s(cluster, 20, 10.0))
    assert cold.cost_usd == pytest.approx(2 * 0.20 * 60 / 3600)  # a minute is the least
    assert started.cost_usd == pytest.approx(2 * 0.20 * started.duration_s / 3600)


# --- the toy example ---------------------------------------------------------------------------------


def test_a_course_begins_before_the_first_epoch_and_ends_at_the_target():
    toy = siren_toy.toy_job(3e-3)
    course, functions = toy.run(siren_toy.SlidesSchedule(), seed=0)
    assert course.reached
    assert len(course.seconds) == len(course.dollars) == len(course.losses) == len(functions) + 1
    assert course.losses[-1] <= toy.best_loss + 3e-3 < course.losses[-2]
    assert course.seconds[0] == 0
    assert (np.diff(course.seconds) > 0).all()
    assert course.dollars[0] == course.cache_usd > 0  # the cache's hour is billed from the beginning


def test_the_toy_example_becomes_a_page(tmp_path):
    config = siren_toy.ToyConfig(fast=True, page=tmp_path / "page.md", out=tmp_path / "out")
    assert siren_toy.main(config) == 0
    text = config.page.read_text(encoding="utf-8")
    for arm in (siren_toy.TWENTY, siren_toy.MANY, siren_toy.SCHEDULE, siren_toy.MACHINE):
        assert f"| {arm} | 2 of 2 |" in text
    assert (config.out / "figure.png").read_bytes().startswith(PNG)
    assert (config.out / "runs.csv").read_text(encoding="utf-8").startswith("target_gap,arm,run,reached")


# --- the simulation ----------------------------------------------------------------------------------


def test_a_grid_search_tries_every_count_at_about_one_vcpu_and_keeps_the_fastest():
    case = siren_simulation.budgeted(siren_simulation.key_of(0, 1.5))
    grid = siren_simulation.grid_search(case)
    limits, world = case.job.costing.world.limits, case.job.costing.world
    most = min(case.job.costing.job.functions_max, limits.functions_max)
    assert grid.functions.min() == 1
    assert 0.5 * most <= grid.functions.max() <= most
    step = max(np.diff(sorted(limits.memory_grid)))
    assert (np.abs(grid.memory_mb - world.cpu.memory_per_vcpu) <= step).all()
    rates, times = (
        np.array([getattr(o, name) for o in grid.outcomes]) for name in ("success_rate", "time_s")
    )
    assert rates[grid.chosen] == 1
    assert times[grid.chosen] == times[rates == 1].min()
    reference = grid.reference
    assert (reference.functions, reference.memory_mb) == (
        grid.functions[grid.chosen],
        grid.memory_mb[grid.chosen],
    )
    assert reference.duration_s == times[grid.chosen]
    assert reference.cost_usd < float(case.budget_usd)


def test_the_simulation_becomes_a_page(tmp_path):
    config = siren_simulation.SimulationConfig(fast=True, page=tmp_path / "page.md", out=tmp_path / "out")
    assert siren_simulation.main(config) == 0
    text = config.page.read_text(encoding="utf-8")
    assert f"| 1.5 | {siren_simulation.NAMES[siren_simulation.GRID]} | " in text
    assert "1.00 [1.00, 1.00]" in text  # the grid's choice is its own yardstick
    assert (config.out / "figure.png").read_bytes().startswith(PNG)
    lines = (config.out / "episodes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * 2 * len(siren_simulation.NAMES)


# --- the testbed -------------------------------------------------------------------------------------


def test_the_fastest_cluster_that_costs_no_more_is_the_peer():
    runs = [
        run("Siren", 0, 30.0, 0.02),
        run("m4.large", 1, 50.0, 0.001),
        run("m4.large", 4, 40.0, 0.01),
        run("m4.2xlarge", 8, 10.0, 0.05),
        run("m4.large", 1, 20.0, 0.0005, started=True),
    ]
    (cold,), (started,) = same_cost(runs, started=False), same_cost(runs, started=True)
    assert cold.peer is not None
    assert (cold.peer.name, cold.times) == ("4x m4.large", (0.75, 0.75, 0.75))
    assert started.times == (1.5, 1.5, 1.5)
    assert same_cost([run("Siren", 0, 30.0, 0.0001), *runs[1:]], started=False)[0].peer is None


def test_runs_are_read_as_they_were_written(tmp_path):
    runs = [
        run("Siren", 0, 30.0, 0.02),
        run("Siren", 0, 31.0, 0.02),
        run("m4.large", 2, 9.0, 0.5, started=True),
    ]
    write_runs(runs, tmp_path / "runs.csv")
    found = read_runs(tmp_path / "runs.csv")
    for ours, read in zip(runs, found, strict=True):
        assert dataclasses.replace(read, course=ours.course) == ours
        for name in ("seconds", "dollars", "losses"):
            assert np.array_equal(getattr(read.course, name), getattr(ours.course, name))
    assert [len(cell.runs) for cell in cells_of(found, machines=False)] == [2]


def test_the_testbed_becomes_a_page(tmp_path):
    config = siren_testbed.TestbedConfig(fast=True, page=tmp_path / "page.md", out=tmp_path / "out")
    kept = siren_testbed.csv_of("linear-ctr", dataclasses.replace(config, fast=False))
    write_runs([run("Siren", 0, 30.0, 0.02)], kept)
    before = kept.read_text(encoding="utf-8")
    assert siren_testbed.main(config) == 0
    assert kept.read_text(encoding="utf-8") == before  # what is quoted stays
    text = config.page.read_text(encoding="utf-8")
    assert "44.3% less time at the same cost" in text
    assert "| 8x m4.2xlarge |" in text
    assert "| 2 of 2 |" in text
    assert (config.out / "figure.png").read_bytes().startswith(PNG)
