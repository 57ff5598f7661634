from decimal import Decimal

import pytest

from siren.analysis.toy import HIGGS_ROWS, SlidesSchedule, toy_job
from siren.evaluation.episode import play
from siren.platforms.twin import TwinPlatform


def test_all_samples_take_the_time_and_the_bytes_of_higgs():
    workload, costing, best_loss = toy_job(1e-3)
    job = costing.job
    assert job.dataset_samples * job.seconds_per_sample == pytest.approx(
        80.0
    )  # LambdaML: 80 s, 10 epochs of 10
    assert job.dataset_samples * job.sample_bytes == pytest.approx(HIGGS_ROWS * 116, rel=0.01)
    assert workload.spec.training.target_loss == pytest.approx(best_loss + 1e-3)


def test_the_slides_schedule_is_120_then_20_and_10_at_last():
    workload, costing, _ = toy_job(3e-3)
    platform = TwinPlatform(workload, costing, seed=0)
    episode = play(platform, SlidesSchedule(), costing, workload.spec.training, Decimal(100))
    counts = [record.status.report.action.functions for record in episode.records]
    assert episode.success
    assert len(counts) > 2
    assert counts[0] == 120
    assert counts[-1] == 10
    assert set(counts[1:-1]) <= {10, 20}
    assert 20 in counts


def test_x_shrinks_where_the_budget_cannot_pay_120_functions():
    workload, costing, _ = toy_job(3e-3)
    platform = TwinPlatform(workload, costing, seed=0)
    episode = play(platform, SlidesSchedule(), costing, workload.spec.training, Decimal("0.06"), max_epochs=1)
    assert 1 <= episode.records[0].status.report.action.functions < 120
    assert episode.cost_usd <= Decimal("0.06")
