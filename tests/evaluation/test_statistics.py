import math

import numpy as np
import pytest

from siren.evaluation.statistics import COLUMNS, JobEpisodes, summarise


def episodes(success, time_s, *, cost=0.1, best=(True, True), best_s=(10.0, 10.0), unit_s=10.0, **bound):
    n = len(success)
    return JobEpisodes(
        success=np.array(success),
        time_s=np.array(time_s, float),
        cost_usd=np.full(n, cost),
        overspent_usd=np.zeros(n),
        best_fixed_success=np.array(best),
        best_fixed_time_s=np.array(best_s, float),
        unit_s=unit_s,
        failure_s=2 * unit_s,
        **bound,
    )


def test_a_failure_counts_as_twice_the_baseline_whatever_time_it_took():
    row = summarise([episodes([True, False], [6.0, 500.0])])
    assert row["success_rate"] == 0.5
    assert row["time_s"] == pytest.approx(6.0)
    assert row["failure_counted_ratio"] == pytest.approx((6 + 20) / 2 / 10)
    assert row["ratio_to_best_fixed"] == pytest.approx(13 / 10)


def test_failures_of_the_best_fixed_action_count_alike():
    row = summarise([episodes([True, True], [6.0, 8.0], best=(True, False), best_s=(9.0, 3.0))])
    assert row["failure_counted_ratio"] == pytest.approx(0.7)
    assert row["ratio_to_best_fixed"] == pytest.approx(7 / ((9 + 20) / 2))


def test_jobs_are_combined_by_the_geometric_mean():
    fast, slow = episodes([True, True], [5.0, 5.0]), episodes([True, True], [20.0, 20.0], cost=0.3)
    row = summarise([fast, slow])
    assert row["ratio_to_best_fixed"] == pytest.approx(1.0)
    assert row["time_s"] == pytest.approx(10.0)
    assert row["cost_usd"] == pytest.approx(0.2)
    # Two jobs: a resample holds one of them twice, or both.
    assert (row["ratio_to_best_fixed_low"], row["ratio_to_best_fixed_high"]) == pytest.approx((0.5, 2.0))


def test_one_job_has_its_interval_over_seeds():
    row = summarise([episodes([True, True], [5.0, 15.0])])
    assert (row["ratio_to_best_fixed_low"], row["ratio_to_best_fixed_high"]) == pytest.approx((0.5, 1.5))
    assert (row["success_rate_low"], row["success_rate_high"]) == (1.0, 1.0)


def test_many_equal_jobs_have_a_narrow_interval():
    rng = np.random.default_rng(0)
    jobs = [episodes([True] * 2, 10 * np.exp(0.2 * rng.standard_normal()) * np.ones(2)) for _ in range(100)]
    row = summarise(jobs)
    width = math.log(row["ratio_to_best_fixed_high"] / row["ratio_to_best_fixed_low"])
    assert width == pytest.approx(2 * 1.96 * 0.2 / 10, rel=0.25)
    assert row["ratio_to_best_fixed_low"] < row["ratio_to_best_fixed"] < row["ratio_to_best_fixed_high"]


def test_the_bound_adds_what_it_was_proved_with_to_a_failures_own_time():
    row = summarise([episodes([True, False], [6.0, 4.0], bound_s=5.0, bound_failure_s=15.0)])
    assert row["ratio_to_bound"] == pytest.approx((6 + 4 + 15) / 2 / 5)


def test_what_is_not_known_is_none():
    row = summarise([episodes([False, False], [3.0, 4.0])])
    assert row["time_s"] is None
    assert row["ratio_to_bound"] is row["ratio_to_bound_low"] is row["ratio_to_bound_high"] is None
    assert row["failure_counted_ratio"] == pytest.approx(2.0)


def test_a_row_has_every_column_but_those_of_its_cell():
    cell = {"policy", "workload", "world", "batch_rule", "update_rule", "budget_ratio"}
    assert set(summarise([episodes([True, True], [5.0, 5.0])])) | cell == set(COLUMNS)
