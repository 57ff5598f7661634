"""The fixed policy: one action, refused where it cannot run."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import ActionError, UnknownNameError, UsageError
from siren.money.pricer import RunTotals
from siren.policies import FixedPolicy, GreedyPolicy, JobView, parse_policy
from siren.testing.fakes import FakePlatform
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action
from siren.worlds.costing import Outlook

WORKLOAD = tiny_workload()
COSTING = tiny_costing(WORKLOAD)


def view(budget: str = "2") -> JobView:
    outlook = Outlook(0.0, 1, RunTotals(), Decimal(budget))
    return JobView(COSTING, FakePlatform(COSTING), WORKLOAD.spec.training, 1.0, outlook)


@given(n=st.integers(0, 999_999), m=st.integers(0, 999_999))
def test_a_fixed_policy_is_named_as_it_is_parsed(n, m):
    policy = parse_policy(f"fixed:{n}x{m}")
    assert isinstance(policy, FixedPolicy)
    assert policy.action == Action(n, m)
    assert parse_policy(policy.name).name == policy.name


@pytest.mark.parametrize("text", ["FIXED:4x1024", "gredy", "", "random", "agent:hsp"])
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(UnknownNameError, match="greedy"):
        parse_policy(text)


@pytest.mark.parametrize("text", ["4X1024", " 4x1024 "])
def test_case_and_blanks_do_not_matter(text):
    assert FixedPolicy.parse(text).action == Action(4, 1024)


@pytest.mark.parametrize(
    "text",
    ["", "4", "x", "4x", "x1024", "4x1024x2", "4.0x1024", "-4x1024", "4*1024", "4x1_024", "9999999x128"],
)
def test_another_form_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="fixed:20x1769"):
        FixedPolicy.parse(text)


def test_greedy_is_parsed():
    assert isinstance(parse_policy("greedy"), GreedyPolicy)


@pytest.mark.parametrize("action", [Action(4, 1000), Action(25, 1024), Action(0, 1024), Action(1001, 1024)])
def test_an_action_that_cannot_run_is_refused_at_the_start(action):
    with pytest.raises(ActionError):
        FixedPolicy(action).start(view())


def test_it_always_decides_the_same_and_forecasts_the_neighbours():
    policy, job = FixedPolicy(Action(4, 1024)), view()
    policy.start(job)
    decision = policy.decide(())
    assert decision is not None
    assert decision.action == Action(4, 1024)
    assert decision.forecast is not None
    assert decision.forecast.fits
    assert math.isnan(decision.forecast.loss)
    near = [forecast.action for forecast in decision.neighbours]
    assert near == [Action(2, 1024), Action(8, 1024), Action(4, 768), Action(4, 1280)]
    assert repr(policy.decide(())) == repr(decision)


def test_it_gives_up_when_its_action_does_not_fit():
    policy = FixedPolicy(Action(4, 1024))
    policy.start(view("0.001"))
    assert policy.decide(()) is None
