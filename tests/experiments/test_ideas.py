"""Ideas in small: rows outlive a kill, a third action does what it says, and the page has its tables."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import numpy as np
import pytest

from experiments import _ideas_actions, _ideas_search, ideas
from experiments._ideas import BEST_FIXED, Results, Row, Search, compared, noisy_job, read_rows, speedup
from siren.evaluation.episode import play
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy
from siren.rehearsal.stage import Stage
from siren.types import BatchRule
from siren.worlds.costing import EpochPlan


@pytest.fixture(scope="module")
def job():
    return noisy_job(300)


def row(arm: str, seed: int, time_s: float, success: int = 1) -> Row:
    return Row(arm, "a job", seed, success, time_s, 0.1, 0.0, 10.0, 20.0, "", 1.5, "abc")


def test_rows_are_read_as_they_were_written_and_played_once(tmp_path):
    results = Results(tmp_path / "rows.csv")
    rows = [row(BEST_FIXED, 5_000_000 + k, 10.0) for k in range(3)]
    results.add(rows[:2])
    results.add(rows[2:])
    assert read_rows(results.path) == rows
    assert Results(results.path).rows == rows


def test_a_speedup_counts_failures_twice_on_equal_seeds():
    rows = [row(BEST_FIXED, k, 10.0) for k in (0, 1)]
    rows += [row("other", 0, 5.0), row("other", 1, 3.0, success=0)]
    found = compared(rows, "other", BEST_FIXED)
    assert found["success_rate"] == 0.5
    assert found["ratio_to_best_fixed"] == pytest.approx((5.0 + 20.0) / 20.0)
    assert speedup(found).startswith("0.80 [")


def test_a_factor_of_one_changes_no_episode_and_another_one_does(job):
    policy = FixedPolicy(job.case.baseline.action)
    plain = job.case.episode(policy, 7)
    same, slower = (
        _ideas_actions.rated_episode(job, policy, (0.0, bias), 7, guarded=False) for bias in (0.0, -0.5)
    )
    assert np.array_equal(plain.losses, same.losses)
    assert slower.losses[0] != plain.losses[0]


def test_a_rate_is_multiplied_anew_in_every_epoch(job):
    platform = _ideas_actions.RatedPlatform(job.twin.workload, job.twin.costing, 7)
    seen = []
    platform.set_training = seen.append
    rated = _ideas_actions.Rated(FixedPolicy(job.case.baseline.action), (1.0, 0.25), platform)
    episode = play(platform, rated, job.twin.costing, job.twin.training, job.case.budget_usd, max_epochs=2)
    own = job.twin.training.learning_rate
    losses = [TwinPlatform(job.twin.workload, job.twin.costing, 7).start()[0], *episode.losses[:-1]]
    for epoch, training in enumerate(seen, 1):
        expected = rated._factor(losses[epoch - 1], rated._job) * own
        assert training.rate(epoch, 1.0) == pytest.approx(expected)
    assert len(seen) == len(episode.records) == 2


def test_mini_batches_keep_their_size_below_the_switch(job):
    workload, costing = _ideas_actions.constant(job, 64)
    assert workload.spec.training.batch_rule is BatchRule.CONSTANT
    assert costing.job.pushes(10) == workload.samples // 64
    platform = _ideas_actions.SwitchingPlatform(job, 64, 2.0, 7)
    plain = TwinPlatform(job.twin.workload, job.twin.costing, 7)
    action = dataclasses.replace(job.case.baseline.action, functions=10)
    stage = Stage(job.twin.workload, job.twin.costing)
    curve = stage.curve(action.functions, action.memory_mb, 2, -np.inf, 7)
    assert curve.losses[0] == plain.start()[0]
    reports = [platform.run_epoch(_plan(action)) for _ in range(2)]
    assert reports[0].loss == curve.losses[1]
    pushes = 10 * costing.job.pushes_per_function, workload.samples // 64
    assert (reports[0].pushes, reports[1].pushes) == pushes


def _plan(action):
    return EpochPlan(action, 900, 900.0, Decimal(0))


def test_a_search_keeps_the_best_fixed_action_where_nothing_is_better():
    @dataclasses.dataclass
    class Played:
        duration_s: float
        success: bool = True

    search = Search(lambda vector, seed: Played(1.0 if vector is None else 2.0), 1.0, 0.05)
    assert search.chosen({"fixed": None, "search": [0.0]}) == "fixed"
    assert search.raced({"a": [0.0], "b": [1.0]}) == "a"


def test_a_part_of_the_rehearsal_is_missing_only_meanwhile():
    shapes = _ideas_search.linear_search.SHAPES
    with _ideas_search.without("without the race of shapes") as options:
        assert _ideas_search.linear_search.SHAPES == ((1.0, 1.0),)
        assert options == {}
    assert shapes == _ideas_search.linear_search.SHAPES
    with _ideas_search.without("without agents") as options:
        assert options == {"agents": []}


def test_the_page_has_what_was_played(tmp_path):
    results = Results(tmp_path / "rate.csv")
    arms = (BEST_FIXED, "search (n, m)", "search (n, m, rate)")
    results.add([row(arm, 5_000_000 + k, 10.0 / (i + 1)) for i, arm in enumerate(arms) for k in range(3)])
    text = ideas.page(tmp_path)
    assert "| a job: search (n, m, rate) | 1 | 100.0% | 3.00 [3.00, 3.00] | $0 |" in text
    assert "| a job: search (n, m, rate) | search (n, m) | 1.50 [1.50, 1.50] |" in text
    assert "## The batch rule" not in text
