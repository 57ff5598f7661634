"""`python -m siren.plan` end to end."""

from __future__ import annotations

import functools
import io
import json
import time
from pathlib import Path

import pytest

from siren.plan import PlanConfig
from siren.plan import main as plan
from siren.rehearsal.stage import Stage
from siren.testing.tiny import tiny_costing, write_tiny_workload
from siren.workloads.registry import load_workload

EASY = {"target_loss": 0.55, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> str:
    """A job's folder. Its kernel is compiled already: that takes longer than these rehearsals may."""
    folder = write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny", training=EASY)
    workload = load_workload(str(folder))
    Stage(workload, tiny_costing(workload)).curve(1, 1769, 1, 0.0, seed=0)
    return str(folder)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path_factory.getbasetemp() / "plan-cache"))
    # In this process and by its own time, so that other work on the machine does not shorten a rehearsal.
    ours = functools.partial(Stage, clock=time.process_time)
    monkeypatch.setattr("siren.planning.plans.Stage", ours)
    monkeypatch.setattr("siren.rehearsal.job.Stage", ours)
    monkeypatch.setattr("siren.plan.StageSettings", lambda *settings: None)


def planned(**settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = plan(PlanConfig(**settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def test_a_plan_for_a_budget_says_time_dollars_chance_first_action_and_verdict(job):
    code, stdout, stderr = planned(workload=job, budget="0.50", seconds=2.0)
    assert (code, stderr) == (0, "")
    for word in ("chance of reaching the target", "10-90%", "first ", "verdict ", "VM ", "nothing was spent"):
        assert word in stdout
    code, stdout, _ = planned(workload=job, budget="0.50", seconds=2.0, print_json=True)
    (found,) = json.loads(stdout)["budgets"]
    choice = found["choice"]
    assert choice["time_s"]["low"] <= choice["time_s"]["mean"] <= choice["time_s"]["high"]
    assert choice["cost_usd"]["high"] <= 0.50
    assert 0 < choice["chance"]["low"] < choice["chance"]["mean"] < 1
    assert float(found["first"]["reserve_usd"]) <= 0.50
    assert found["first"]["functions"] >= 1


def test_a_frontier_without_a_budget_has_rising_budgets_machines_and_a_figure(job, tmp_path):
    picture = tmp_path / "plan.png"
    code, stdout, stderr = planned(workload=job, seconds=1.5, points=2, figure=picture, print_json=True)
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    budgets = [float(b["budget_usd"]) for b in found["budgets"]]
    assert budgets == sorted(budgets)
    assert len(budgets) == 2
    assert {o["instance"] for o in found["machines"]} >= {"m4.large", "m4.2xlarge", "c5.2xlarge"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    for budget in found["budgets"]:
        assert budget["choice"]["cost_usd"]["mean"] <= float(budget["budget_usd"])


def test_what_cannot_be_planned_is_refused(job, tmp_path: Path):
    code, _, stderr = planned(workload=job, budget="0.000001", seconds=1.0)
    assert code == 2
    assert "siren.plan: " in stderr
    assert planned(workload=job, seconds=0.0)[0] == 2
    assert planned(workload=job, points=0)[0] == 2
    code, _, stderr = planned(workload=job, budget="1", profile=tmp_path / "none.json")
    assert code == 2
    assert "none.json" in stderr
