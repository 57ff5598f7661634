"""What real functions may use beyond the laws is bounded by what they and their platform really do."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from siren.channels import s3
from siren.deploy import DeployConfig
from siren.money.amounts import exact
from siren.money.pricer import RunTotals
from siren.platforms.manager import clients
from siren.types import Action, ChannelKind, UpdateRule
from siren.units import SECONDS_PER_HOUR
from siren.worker import loop
from siren.worlds import laws, real
from siren.worlds.costing import LIFETIMES, Costing, Outlook
from siren.worlds.costing import make_costing as costing_of
from siren.worlds.requests import Requests
from tests.twin.jobs import make_costing, small_workload

OUTLOOK = Outlook(0.0, 1, RunTotals(), Decimal(10))
PAIRS = [
    (channel, rule)
    for channel in (ChannelKind.S3, ChannelKind.REDIS)
    for rule in sorted(laws.RULES_OF_CHANNEL[channel])
]


def costings(channel: ChannelKind, rule: UpdateRule) -> tuple[Costing, Costing]:
    """(on the twin, on real functions)."""
    twin = make_costing(small_workload(channel=channel, update_rule=rule))
    return twin, costing_of(twin.world, twin.job, lifetimes_max=LIFETIMES)


def polls(seconds: float) -> int:
    """How often a function asks at a barrier that opens after so long, if asking takes no time."""
    count, now, pause = 1, 0.0, loop.POLL_S
    while now < seconds:
        now, pause, count = now + pause, min(loop.POLL_MAX_S, pause * loop.POLL_GROWTH), count + 1
    return count


@pytest.mark.parametrize("functions", [2, 7, 40])
@pytest.mark.parametrize("timeout_s", [10, 60, 900])
def test_under_sync_each_function_may_ask_as_often_as_its_polls_can_be(functions, timeout_s):
    _, costing = costings(ChannelKind.S3, UpdateRule.SYNC)
    epoch = costing.real_epoch(Action(functions, 1769), timeout_s, 1)
    first, others = epoch.of_functions()
    steps = -(-epoch.pushes // functions)
    for waited in (1, steps):  # the whole timeout is spent at one barrier, or at all of them alike
        asked = steps - waited + waited * polls(timeout_s / waited)
        assert others.gets >= asked
        assert first.gets >= (functions - 1) * asked
    assert min(first.puts, others.puts) > steps
    if functions > 2:
        each_alike = (first.gets + (functions - 1) * others.gets) / functions
        assert each_alike < (functions - 1) * asked  # one bound for all would be too low


@pytest.mark.parametrize(("channel", "rule"), PAIRS)
@pytest.mark.parametrize("lifetimes", [1, 3])
def test_the_reservation_holds_every_invocation_with_its_requests_objects_and_answers(
    channel, rule, lifetimes
):
    _, costing = costings(channel, rule)
    action, timeout_s = Action(7, 1769), 60
    epoch = costing.real_epoch(action, timeout_s, lifetimes)
    bounds = costing.bounds(action, timeout_s, OUTLOOK, lifetimes)
    first, others = epoch.of_functions()
    all_of_one = first.plus(others, action.functions - 1)
    own = epoch.of_manager()
    assert bounds.s3_puts >= own.puts + (lifetimes + real.RERUNS) * all_of_one.puts
    assert bounds.s3_gets >= own.gets + (lifetimes + real.RERUNS) * all_of_one.gets
    kept_gb_s = epoch.left_gb_s(epoch.left(epoch.invocations), real.KEPT_S)
    longest_s = costing.longest_s(action, timeout_s, lifetimes)
    assert bounds.s3_gb_s == pytest.approx(kept_gb_s + costing.stored_gb(7) * longest_s)
    answers = epoch.invocations * real.ANSWER_BYTES
    assert bounds.egress_bytes >= laws.egress_bytes(costing.job, 7) + answers


@pytest.mark.parametrize(("channel", "rule"), PAIRS)
def test_the_twins_bounds_and_expectations_are_the_laws(channel, rule):
    twin, costing = costings(channel, rule)
    action, timeout_s = Action(7, 1769), 60
    bounds = twin.bounds(action, timeout_s, OUTLOOK)
    assert bounds.s3_gb_s == twin.stored_gb(7) * twin.longest_s(action, timeout_s)
    assert bounds.egress_bytes == int(laws.egress_bytes(twin.job, 7))
    assert bounds.log_bytes == 7 * twin.world.billing.log_per_invocation
    n, m = np.array([7.0]), np.array([1769.0])
    one, other = (costing.marginal_usd(n, m, costing.expect(n, m, n, n)) for costing in (twin, costing))
    assert np.array_equal(one, other)


def test_hours_in_which_nothing_was_trained_are_reserved_and_expected():
    for costing in costings(ChannelKind.REDIS, UpdateRule.ADDITIVE):
        action, hour_usd = Action(2, 1769), costing.pricer.cache_usd_per_h
        paused = replace(OUTLOOK, idle_s=5.0 * SECONDS_PER_HOUR)
        at_once, late = (costing.worst_case(action, 60, outlook) for outlook in (OUTLOOK, paused))
        with exact():
            assert late == at_once + 5 * hour_usd
        assert (costing.idle_usd(OUTLOOK), costing.idle_usd(paused)) == (0, 5 * hour_usd)
        billed = replace(paused, totals=RunTotals(cache_hours=4))
        assert costing.idle_usd(billed) == hour_usd
        more = costing.standing_usd(np.array([1.0]), paused) - costing.standing_usd(np.array([1.0]), OUTLOOK)
        assert more == pytest.approx(5 * float(hour_usd))
    _, costing = costings(ChannelKind.S3, UpdateRule.AVERAGE)
    assert costing.idle_usd(paused) == 0
    assert costing.worst_case(action, 60, paused) == costing.worst_case(action, 60, OUTLOOK)


def test_constants_are_those_of_what_they_bound():
    kept_days = real.KEPT_S / (24 * SECONDS_PER_HOUR)
    assert kept_days == DeployConfig().run_days + 1
    assert real.MANAGER_ATTEMPTS == clients.ATTEMPTS
    assert real.READ_ATTEMPTS == s3.READ_ATTEMPTS
    assert Requests(1, 2).plus(Requests(3, 4), 2) == Requests(7, 10)
