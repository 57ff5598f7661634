"""What `Costing` keeps between questions never changes an answer."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from siren.money.pricer import RunTotals
from siren.types import Action, ChannelKind, UpdateRule
from siren.worlds.costing import Outlook
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
