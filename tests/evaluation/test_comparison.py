"""How a run compares with hindsight: what is chosen, what is printed and kept, what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from decimal import Decimal
from pathlib import Path

import pytest

from siren.analysis import records
from siren.analysis.run_folder import RunFolder
from siren.errors import BudgetError
from siren.evaluation import comparison, seeds
from siren.evaluation.comparison import LAST, ComparedJob, compare, compared
from siren.evaluation.episode import MAX_EPOCHS
from siren.policies import FixedPolicy
from siren.run import RunConfig, main
from siren.testing.tiny import tiny_costing, tiny_workload, write_tiny_workload
from siren.types import Action, Comparison, StopReason


@pytest.fixture(scope="module")
def workload() -> object:
    return tiny_workload()


@pytest.fixture
def job(workload):
    told: list[str] = []
    return ComparedJob(workload, tiny_costing(workload), Decimal("0.5"), MAX_EPOCHS, told.append), told


def run(folder: Path, **options) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    config = RunConfig(
        budget=options.pop("budget", "0.5"), workload=str(folder / "tiny"), out=folder / "run", **options
    )
    return main(config, stdout, stderr), stdout.getvalue(), stderr.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run at a bad fixed action, compared, on a terminal that is none."""
    folder = tmp_path_factory.mktemp("compared")
    write_tiny_workload(folder / "tiny")
    code, out, err = run(folder, policy="fixed:1x128", compare=True)
    assert code == 0, err
    return folder / "run", out, err


def test_the_run_is_set_against_the_best_fixed_action_with_its_own_seed(finished, workload):
    folder, out, err = finished
    summary = RunFolder.open(folder).read_summary()
    found = summary.comparison
    assert found is not None
    job = ComparedJob(workload, tiny_costing(workload), Decimal("0.5"), MAX_EPOCHS, lambda text: None)
    own = job.episode(FixedPolicy(Action(found.functions, found.memory_mb)), summary.header.seed)
    assert own.success
    assert (found.fixed_s, found.fixed_usd) == (own.duration_s, own.cost_usd)
    assert found.time_ratio == pytest.approx(summary.duration_s / own.duration_s)
    assert found.cost_ratio == pytest.approx(float(summary.cost_usd / own.cost_usd))
    assert found.time_ratio > 1.5  # one function with the least memory is a bad choice
    assert (found.first_seed, found.seeds) == (seeds.SELECT, LAST)
    assert found.tried > 1
    assert err.count("\n") == 1
    assert "comparing" in err
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line.strip())
    assert rows["compare"].startswith(f"fixed:{found.functions}x{found.memory_mb}: ")
    assert f"{found.time_ratio:.2f} times as long" in rows["compare"]
    assert f"seeds {seeds.SELECT} to {seeds.SELECT + LAST - 1}" in rows["chosen"]
    assert rows["report"] == f"python -m siren.report {folder}"


def test_the_best_fixed_action_is_not_slower_than_simple_ones(finished, workload):
    found = RunFolder.open(finished[0]).read_summary().comparison
    job = ComparedJob(workload, tiny_costing(workload), Decimal("0.5"), MAX_EPOCHS, lambda text: None)
    chosen = [FixedPolicy(Action(found.functions, found.memory_mb))]
    simple = [FixedPolicy(Action(n, 1769)) for n in (1, 4, 24)]
    means = []
    for policy in chosen + simple:
        played = [job.episode(policy, seed) for seed in seeds.select_seeds()[:LAST]]
        times = [e.duration_s if e.success else math.inf for e in played]
        means.append(sum(times) / LAST)
    assert means[0] <= min(means[1:]) * 1.001


def test_the_bound_lies_below_what_the_best_fixed_action_took(finished):
    found = RunFolder.open(finished[0]).read_summary().comparison
    assert 0 < found.bound_s < 1.1 * found.fixed_s  # it is of a fitted model
    assert found.bound_ratio > found.time_ratio / 1.1
    assert found.curves >= 3


def test_summary_and_page_hold_it(finished):
    folder, out, _ = finished
    kept = json.loads((folder / "summary.json").read_text())["comparison"]
    found = RunFolder.open(folder).read_summary().comparison
    assert kept["functions"] == found.functions
    assert kept["fixed_s"] == found.fixed_s
    page = (folder / "report.html").read_text()
    line = next(line for line in out.splitlines() if line.startswith("compare"))
    assert line.split(maxsplit=1)[1] in page


def test_a_run_that_ended_is_compared_on_resume_and_json_stays_one_object(tmp_path):
    write_tiny_workload(tmp_path / "tiny")
    assert run(tmp_path, policy="fixed:4x1769")[0] == 0
    assert "comparison" not in json.loads((tmp_path / "run" / "summary.json").read_text())
    stdout, stderr = io.StringIO(), io.StringIO()
    assert main(RunConfig(resume=tmp_path / "run", compare=True, print_json=True), stdout, stderr) == 0
    summary = json.loads(stdout.getvalue())
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["comparison"]["time_ratio"] > 0.5
    stdout = io.StringIO()
    assert main(RunConfig(resume=tmp_path / "run", print_json=True), stdout, io.StringIO()) == 0
    again = json.loads(stdout.getvalue())
    assert again == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["comparison"] == summary["comparison"]
    assert "times as long" in (tmp_path / "run" / "report.html").read_text()


def test_a_comparison_is_of_the_epochs_that_it_was_made_of(tmp_path):
    write_tiny_workload(tmp_path / "tiny")
    limited = StopReason.LIMIT_REACHED.exit_code
    assert run(tmp_path, policy="fixed:1x128", max_epochs=1)[0] == limited
    folder = RunFolder.open(tmp_path / "run")
    ended = folder.read_summary()
    made_up = Comparison(4, 1769, 9, 1, 9, 1.0, True, 9.0, Decimal("0.1"), 1.5, 0.5, 5.0, 2.0, 3)
    folder.write_summary(dataclasses.replace(ended, comparison=made_up))
    assert main(RunConfig(resume=folder.path), io.StringIO(), io.StringIO()) == limited
    assert folder.read_summary().comparison == made_up
    assert main(RunConfig(resume=folder.path, max_epochs=2), io.StringIO(), io.StringIO()) == limited
    assert folder.read_summary().comparison is None


@pytest.mark.parametrize("platform", ["local", "aws"])
def test_other_platforms_refuse_it_before_anything_starts(tmp_path, platform):
    write_tiny_workload(tmp_path / "tiny")
    code, out, err = run(tmp_path, policy="fixed:1x1769", platform=platform, compare=True)
    assert (code, out) == (2, "")
    assert "--compare plays the job many times" in err
    assert "--platform twin" in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_failed_has_no_ratios(tmp_path):
    write_tiny_workload(tmp_path / "tiny")
    code, out, _ = run(tmp_path, policy="fixed:4x1769", compare=True, max_time=0.1)
    assert code == StopReason.LIMIT_REACHED.exit_code
    found = RunFolder.open(tmp_path / "run").read_summary().comparison
    assert found is not None
    assert found.fixed_reached
    assert math.isnan(found.time_ratio)
    assert math.isnan(found.cost_ratio)
    assert math.isnan(found.bound_ratio)
    assert f"compare   fixed:{found.functions}x{found.memory_mb}: " in out
    assert "times as long" not in out


def test_a_run_of_which_no_fixed_action_has_epochs_enough_has_no_comparison(tmp_path):
    write_tiny_workload(tmp_path / "tiny")
    code, out, err = run(tmp_path, policy="fixed:4x1769", compare=True, max_epochs=1, target_loss=0.5)
    assert code == StopReason.LIMIT_REACHED.exit_code
    assert RunFolder.open(tmp_path / "run").read_summary().comparison is None
    assert "compare" not in out
    assert "nothing to compare with: no fixed action of the ladder reaches the target" in err


def test_the_run_stays_as_it_was_where_nothing_can_be_compared(finished, monkeypatch, workload):
    summary = dataclasses.replace(RunFolder.open(finished[0]).read_summary(), comparison=None)
    poor = dataclasses.replace(summary.header, budget_usd=Decimal("0.0321"))
    stderr = io.StringIO()
    unchanged = dataclasses.replace(summary, header=poor)
    assert compared(unchanged, workload, tiny_costing(workload), stderr) is unchanged
    assert "nothing to compare with: no fixed action" in stderr.getvalue()

    def interrupted(job, summary):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare", interrupted)
    failed = dataclasses.replace(summary, stop_reason=StopReason.INTERRUPTED)
    assert compared(failed, workload, tiny_costing(workload), stderr) is failed
    assert "interrupted" not in stderr.getvalue()
    assert compared(summary, workload, tiny_costing(workload), stderr) is summary
    assert "the comparison was interrupted; the run itself had ended" in stderr.getvalue()


def test_every_episode_keeps_to_the_budget(finished, job, monkeypatch):
    played = []
    whole = ComparedJob.episode

    def watched(self, policy, seed):
        played.append(whole(self, policy, seed))
        return played[-1]

    monkeypatch.setattr(ComparedJob, "episode", watched)
    compared_job, told = job
    summary = RunFolder.open(finished[0]).read_summary()
    tight = dataclasses.replace(compared_job, budget_usd=Decimal("0.0335"))
    found = compare(tight, summary)
    assert played
    assert max(episode.cost_usd for episode in played) <= Decimal("0.0335")
    assert found.seeds == LAST
    assert any("seed" in text for text in told)
    with pytest.raises(BudgetError, match=r"no fixed action of the ladder.*larger budget"):
        compare(dataclasses.replace(compared_job, budget_usd=Decimal("0.032")), summary)


def test_a_summary_with_a_comparison_survives_the_disk(finished):
    summary = RunFolder.open(finished[0]).read_summary()
    again = records.summary_from_json(records.parse(records.to_text(records.summary_to_json(summary))))
    assert again == summary
