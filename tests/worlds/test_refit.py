from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from siren.loop import JobLoop, Limits
from siren.money import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, JobView
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action
from siren.worlds.costing import Outlook
from siren.worlds.refit import Scales, fit_scales, scaled

WORKLOAD = tiny_workload()
COSTING = tiny_costing(WORKLOAD)
ACTION = Action(4, 1024)


def reports(truth: Scales, epochs: int = 6, action: Action = ACTION):
    """Epochs of a twin whose times differ from what is assumed."""
    platform = TwinPlatform(WORKLOAD, scaled(COSTING, truth), seed=3)
    view = JobView(COSTING, platform, WORKLOAD.spec.training, 1.0, Outlook(0.0, 1, RunTotals(), Decimal(9)))
    policy = FixedPolicy(action)
    policy.start(view)
    loop = JobLoop(platform, policy, view, Ledger(Decimal(9)), Limits(1e-9, epochs), (1.0, 0.0))
    while not loop.ended():
        decided = loop.decide()
        assert decided is not None
        loop.book(loop.run(*decided))
    return [record.status.report for record in loop.records], view


def test_a_run_that_goes_as_expected_changes_nothing():
    told, view = reports(Scales())
    assert fit_scales(COSTING, told) == Scales()
    assert view.scales == Scales()
    assert scaled(COSTING, Scales()) is COSTING


@pytest.mark.parametrize("truth", [Scales(2.0, 1.0), Scales(1.0, 1.5), Scales(0.5, 1.3)])
def test_what_a_run_took_is_learnt_within_a_step(truth):
    told, view = reports(truth)
    found = fit_scales(COSTING, told)
    assert found == view.scales
    assert found.compute == pytest.approx(truth.compute, rel=0.11)
    assert found.store == pytest.approx(truth.store, rel=0.11)


def test_refitted_laws_predict_actions_that_never_ran():
    told, _ = reports(Scales(2.0, 1.3))
    other, n, m = Action(8, 2048), np.array([8.0]), np.array([2048.0])
    refitted = scaled(COSTING, fit_scales(COSTING, told))
    truth, _ = reports(Scales(2.0, 1.3), action=other)
    took_s = np.mean([report.duration_s for report in truth[1:]])
    errors = [
        abs(float(costing.expect(n, m, 0 * n, 0 * n).duration_s[0]) / took_s - 1)
        for costing in (COSTING, refitted)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_policy_sees_the_refitted_laws_and_the_reservation_does_not_shrink():
    _, plain = reports(Scales(), epochs=1)
    _, learnt = reports(Scales(0.5, 0.7), epochs=3)
    before, after = (view.predict([ACTION]).duration_s[0] for view in (plain, learnt))
    assert after < before
    assert learnt.costing is COSTING


def test_epochs_that_were_cut_off_tell_nothing():
    told, _ = reports(Scales(2.0, 1.0), epochs=2)
    assert fit_scales(COSTING, [replace(report, unfinished=1) for report in told]) == Scales()
    assert fit_scales(COSTING, []) == Scales()
