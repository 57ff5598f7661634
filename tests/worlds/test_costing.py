"""What `Costing` keeps between questions never changes an answer."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from siren.money.amounts import exact
from siren.money.billing import gb_seconds
from siren.money.pricer import RunTotals
from siren.types import Action, ChannelKind, UpdateRule
from siren.worlds.costing import LIFETIMES, Outlook
from siren.worlds.costing import make_costing as costing_of
from tests.twin.jobs import make_costing, small_workload

ACTIONS = (Action(1, 1769), Action(7, 512), Action(7, 10240))
OUTLOOKS = (
    Outlook(0.0, 1, RunTotals(), Decimal(10)),
    Outlook(12.5, 2, RunTotals(Decimal("0.25"), 1), Decimal(9)),
    Outlook(3599.0, 3, RunTotals(Decimal(3), 1), Decimal(8)),  # the epoch needs a second hour of the cache
    Outlook(20_000.0, 9, RunTotals(Decimal(7 * 10**9), 6), Decimal(1)),  # in a cheaper tier
)


@pytest.mark.parametrize("channel", [ChannelKind.S3, ChannelKind.REDIS])
@pytest.mark.parametrize("evaluator", ["scheduler", "function"])
def test_the_worst_case_is_that_of_the_bounds_in_every_state_of_a_run(channel, evaluator):
    costing = make_costing(
        small_workload(channel=channel, update_rule=UpdateRule.AVERAGE, evaluator=evaluator)
    )
    seen = set()
    for outlook in (*OUTLOOKS, *OUTLOOKS):
        for action in ACTIONS:
            for timeout_s in (10, 900):
                bounds = costing.bounds(action, timeout_s, outlook)
                wanted = costing.pricer.worst_case(bounds, previous=outlook.totals)
                assert costing.worst_case(action, timeout_s, outlook) == wanted
                seen.add(wanted)
    assert len(seen) > 2 * len(ACTIONS)


def test_answers_that_are_kept_are_those_of_the_action_that_was_asked_for():
    costing, fresh = make_costing(small_workload()), make_costing(small_workload())
    for action in (*ACTIONS, *reversed(ACTIONS)):
        alone = make_costing(small_workload())
        assert costing.futility(action) == alone.futility(action)
        assert costing.refusal(action) == alone.refusal(action)
        assert costing.retry_limit(action) == alone.retry_limit(action)
        one, other = costing.epoch_laws(action), fresh.epoch_laws(action)
        assert np.array_equal(one.compute_s, other.compute_s)
    assert float(costing.epoch_laws(ACTIONS[0]).load_s) > float(costing.epoch_laws(ACTIONS[1]).load_s)


def test_real_functions_have_a_spare_in_the_reservation_where_the_budget_holds_it():
    twin = make_costing(small_workload())
    real = costing_of(twin.world, twin.job, lifetimes_max=LIFETIMES)
    action, outlook = ACTIONS[1], OUTLOOKS[0]
    wanted = {"upper_s": 5.0, "expected_s": 4.0}
    plan = real.plan(action, **wanted, outlook=outlook)
    assert (plan.lifetimes, plan.spares) == (1, 1)
    most, least = (real.worst_case(action, plan.timeout_s, outlook, 1, spares) for spares in (1, 0))
    longest_ms = real.pricer.longest_ms(plan.timeout_s, real.world.limits.init_max)
    with exact():
        assert most - least == gb_seconds(action.memory_mb, longest_ms) * real.pricer.duration_tiers[0].usd
    assert plan.reserve_usd == most
    tight = replace(outlook, left_usd=least)
    plan = real.plan(action, **wanted, outlook=tight)
    assert (plan.reserve_usd, plan.spares) == (least, 0)
    assert twin.plan(action, **wanted, outlook=outlook).spares == 0
