from decimal import Decimal

import numpy as np
from numpy.testing import assert_array_equal

from siren.money.pricer import RunTotals
from siren.platforms.twin import TwinPlatform
from siren.policies import JobView
from siren.testing.tiny import tiny_workload
from siren.twin.twin import job_of
from siren.types import Action
from siren.worlds import load_world
from siren.worlds.costing import Outlook, make_costing


def test_predictions_are_the_laws_in_the_present_state_of_the_run():
    workload = tiny_workload()
    costing = make_costing(load_world("aws-2026"), job_of(workload))
    platform = TwinPlatform(workload, costing, seed=3)
    initial, _ = platform.start()
    view = JobView(
        costing, platform, workload.spec.training, initial, Outlook(0.0, 1, RunTotals(), Decimal(1))
    )
    n, m = np.array([[a.functions, a.memory_mb] for a in view.actions], np.float64).T
    cold = costing.expect(n, m, n, n)
    assert_array_equal(view.predict(view.actions).duration_s, cold.duration_s)
    ran = view.actions[len(view.actions) // 2]
    plan = view.plan(ran)
    assert plan is not None
    platform.run_epoch(plan)
    starts = [platform.expect_starts(a, view.plan(a).timeout_s) for a in view.actions]
    now = costing.expect(n, m, *np.array(starts, np.float64).T)
    p = view.predict(view.actions)
    assert_array_equal(p.duration_s, now.duration_s)
    assert_array_equal(p.handler_s, now.handler_s)
    assert_array_equal(p.marginal_usd, costing.marginal_usd(n, m, now))
    assert_array_equal(p.upper_s, cold.upper_s)
    at = view.actions.index(ran)
    assert starts[at] == (0, 0)
    assert p.duration_s[at] < cold.duration_s[at]
    one = view.predict([Action(ran.functions, ran.memory_mb)])
    assert one.duration_s[0] == p.duration_s[at]
    assert one.excess_usd[0] == p.excess_usd[at]
