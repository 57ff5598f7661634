"""Each safeguard alone, and that none of them does what it should not."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal

import pytest

from siren.errors import UnknownNameError
from siren.money.pricer import RunTotals
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, GreedyPolicy, JobView, Safeguard, Safety
from siren.policies.base import affordable
from siren.policies.greedy import function_cap, progress_rate
from siren.testing.fakes import FakePlatform
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action, Decision, EpochRecord, EpochStatus
from siren.worlds.costing import Outlook

NONE = Safety.parse("none")


class Wants:
    """A policy that always wants one action, or nothing."""

    name = "wants"

    def __init__(self, action: Action | None) -> None:
        self.action = action

    def start(self, job: JobView) -> None:
        pass

    def decide(self, history) -> Decision | None:
        return Decision(self.action, "wanted") if self.action else None


def view_of(budget: str = "1", **sections) -> JobView:
    workload = tiny_workload(**sections)
    costing = tiny_costing(workload)
    outlook = Outlook(0.0, 1, RunTotals(), Decimal(budget))
    return JobView(costing, FakePlatform(costing), workload.spec.training, 1.0, outlook)


def history(view: JobView, *epochs: tuple[int, float]) -> list[EpochRecord]:
    """Epochs of (functions, loss)."""
    platform, records = FakePlatform(view.costing), []
    for functions, loss in epochs:
        action = Action(functions, 1024)
        plan = view.plan(action)
        assert plan is not None
        report = dataclasses.replace(platform.run_epoch(plan), loss=loss)
        status = EpochStatus(report, Decimal(0), {}, Decimal(1), 1.0)
        records.append(EpochRecord(Decision(action, ""), plan.timeout_s, plan.reserve_usd, status))
    return records


def guarded(view: JobView, action: Action | None, safety: str, past=()) -> Decision | None:
    policy = Safeguard(Wants(action), Safety.parse(safety))
    policy.start(view)
    return policy.decide(list(past))


def test_the_cap_shrinks_to_what_the_budget_pays():
    view, wanted = view_of("0.04"), Action(24, 3008)
    assert view.plan(wanted) is None
    decision = guarded(view, wanted, "cap")
    assert decision is not None
    assert decision.action.functions < 24
    assert decision.action.memory_mb == 3008
    assert view.plan(decision.action) is not None
    more = [n for n in view.functions if decision.action.functions < n < 24]
    assert all(view.plan(Action(n, 3008)) is None for n in more)
    assert decision.reason.startswith("wanted; the budget that is left allows less")
    assert decision.forecast is not None
    assert guarded(view, wanted, "none").action == wanted


def test_the_cap_leaves_alone_what_fits():
    decision = guarded(view_of(), Action(7, 1024), "cap")
    assert decision == Decision(Action(7, 1024), "wanted")


def test_with_the_cap_a_policy_without_an_answer_goes_on_thriftily():
    view = view_of()
    decision = guarded(view, None, "cap")
    assert decision is not None
    assert view.plan(decision.action) is not None
    assert guarded(view, None, "reserve,back_off,roll_back") is None
    view.outlook = dataclasses.replace(view.outlook, left_usd=Decimal("0.000001"))
    assert guarded(view, None, "cap") is None
    assert guarded(view, Action(4, 1024), "cap") is None


def test_a_policy_without_an_answer_goes_on_as_near_to_its_last_epoch_as_can_be_paid():
    view = view_of("0.04")
    last = Action(24, 3008)
    past = [
        dataclasses.replace(
            record,
            status=dataclasses.replace(
                record.status, report=dataclasses.replace(record.status.report, action=last)
            ),
        )
        for record in history(view_of(), (4, 0.9))
    ]
    assert view.plan(last) is None
    decision = guarded(view, None, "cap", past)
    assert decision is not None
    assert decision.action == affordable(view, last)
    assert decision.action.memory_mb == 3008
    assert "nearest to the last epoch" in decision.reason


@pytest.mark.parametrize("most", [1, 4, 16])
def test_thrift_takes_no_more_functions_than_have_run(most):
    """Where an epoch is split, more functions look cheap by the update, and may be beyond the cliff."""
    view = view_of(training={"target_loss": 0.1, "batch_rule": "split", "channel": "memory"})
    policy = Safeguard(Wants(Action(24, 10240)), Safety())
    policy.start(view)
    assert policy._thriftiest(()).functions > 16
    assert policy._thriftiest(history(view, (1, 0.95), (most, 0.9))).functions <= most


def test_a_job_without_any_useful_action_ends_without_a_crash():
    view = view_of(cost={"seconds_per_sample": 1e6})
    assert view.actions == ()
    assert guarded(view, None, "all") is None
    assert guarded(view, Action(4, 1024), "all", history(view_of(), (4, 0.9))) is None


def needs_thrift(left: str) -> tuple[JobView, list[EpochRecord]]:
    """A job half-way, with so much left. The cache is paid, so that only functions cost."""
    view = view_of(training={"target_loss": 0.1, "channel": "memory"}, cost={"seconds_per_sample": 0.1})
    past = history(view, (4, 0.95), (4, 0.9))
    view.outlook = Outlook(20.0, 3, RunTotals(), Decimal(left))
    return view, past


def test_the_reserve_turns_to_thrift_only_where_that_alone_reaches_the_target():
    dear = Action(24, 10240)
    chosen = {}
    for cents in (0.1 * 1.1**k for k in range(70)):
        view, past = needs_thrift(f"{cents / 100:.6f}")
        decision = guarded(view, dear, "reserve", past)
        assert decision is not None
        chosen[cents] = decision
    kept = [cents for cents, decision in chosen.items() if decision.action == dear]
    thrifty = [cents for cents, decision in chosen.items() if decision.action != dear]
    # Too little for anything, then enough for thrift only, then enough for the wish.
    assert thrifty
    assert min(kept) < min(thrifty)
    assert max(thrifty) < max(kept)
    assert thrifty == [c for c in chosen if min(thrifty) <= c <= max(thrifty)]
    action = chosen[thrifty[0]].action
    assert {chosen[cents].action for cents in thrifty} == {action}
    assert "only thrift keeps the target within reach" in chosen[thrifty[0]].reason
    view, past = needs_thrift("1")
    p = view.predict([action, dear])
    assert p.marginal_usd[0] < p.marginal_usd[1]


def test_the_reserve_knows_nothing_before_the_loss_has_fallen():
    for past in ((), history(view_of(), (4, 1.5))):
        view = view_of("0.04")
        assert guarded(view, Action(24, 1024), "reserve", past) == Decision(Action(24, 1024), "wanted")


def test_what_is_thrifty_does_not_depend_on_what_is_warm():
    """Else a resumed run, whose environments are warm at once, would decide otherwise."""
    workload = tiny_workload(training={"target_loss": 0.1})
    costing = tiny_costing(workload)
    platform = TwinPlatform(workload, costing, 0)
    outlook = Outlook(0.0, 1, RunTotals(), Decimal(1))
    view = JobView(costing, platform, workload.spec.training, platform.start()[0], outlook)
    before = guarded(view, None, "cap")
    for action in view.actions[::40]:
        platform.run_epoch(view.plan(action))
    view.outlook = Outlook(platform.clock_s, 2, RunTotals(), Decimal(1))
    assert guarded(view, None, "cap") == before


@pytest.mark.parametrize(
    ("past", "most"),
    [
        (((16, 0.8), (16, 1.3)), 8),
        (((16, 0.8), (16, 1.6), (8, 1.4)), 8),  # high still, and falling
        (((16, 0.8), (5, 1.3)), 2),
        (((16, 0.8), (1, 1.3)), 1),
        (((16, 0.8), (16, math.nan)), 8),
        (((16, 0.8), (16, math.inf)), 8),
        (((16, 0.8), (16, 0.95)), None),  # below .3 of the gap from 1 to .47
        (((16, 0.8), (16, 0.7)), None),
        ((), None),
    ],
)
def test_back_off_halves_after_a_sharp_rise_only(past, most):
    view = view_of()
    decision = guarded(view, Action(20, 1769), "back_off", history(view, *past))
    assert decision is not None
    assert decision.action == (Action(20, 1769) if most is None else Action(most, 1769))
    if most is not None:
        assert "the loss rose sharply" in decision.reason
        fewer = guarded(view, Action(1, 1769), "back_off", history(view, *past))
        assert fewer == Decision(Action(1, 1769), "wanted")


def test_back_off_keeps_to_what_the_job_can_run():
    view = view_of(dataset={"settings": {"samples": 240, "heldout": 80}}, cost={"sample_bytes": 8_000_000})
    past = history(view, (16, 0.8), (16, 1.3))
    wanted = Action(16, 512)
    assert view.useful(wanted)
    assert not view.useful(Action(8, 256))
    decision = guarded(view, Action(16, 256), "back_off", past)
    assert decision == Decision(Action(16, 256), "wanted")


def test_none_changes_nothing():
    view = view_of("0.04")
    past = history(view_of(), (16, 0.8), (16, 1.3))
    for action in (Action(24, 10240), Action(1, 128)):
        assert guarded(view, action, "none", past) == Decision(action, "wanted")
    assert guarded(view, None, "none", past) is None


def test_the_name_is_the_policys():
    assert Safeguard(GreedyPolicy(), Safety()).name == "greedy"
    assert Safeguard(FixedPolicy(Action(4, 1024)), NONE).name == "fixed:4x1024"


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("all", "all"),
        ("none", "none"),
        ("cap", "cap"),
        ("roll_back, cap", "cap,roll_back"),
        ("cap,reserve,back_off,roll_back", "all"),
    ],
)
def test_safety_is_parsed(text, on):
    assert str(Safety.parse(text)) == on
    assert Safety.parse(str(Safety.parse(text))) == Safety.parse(text)


@pytest.mark.parametrize("text", ["", "cap,", "caps", "all,cap", "cap;reserve"])
def test_other_safeguards_are_refused(text):
    with pytest.raises(UnknownNameError, match="no safeguard named"):
        Safety.parse(text)


@pytest.mark.parametrize(
    "losses",
    [(0.9, math.nan), (0.9, math.inf), (math.nan, 0.9, 0.8, 0.7, 0.6), (math.inf, 0.9, 0.8, 0.7, 0.6)],
)
def test_a_loss_that_diverged_tells_no_rate_of_progress(losses):
    view = view_of()
    past = history(view, *((4, loss) for loss in losses))
    assert progress_rate(view, past) == 0.0
    for safety in ("reserve", "all"):
        assert guarded(view, Action(2, 1769), safety, past) == Decision(Action(2, 1769), "wanted")


def test_greedy_takes_a_loss_that_is_not_finite_for_a_rise():
    view = view_of()
    calm = function_cap(view, history(view, (16, 0.9)))
    for loss in (math.nan, math.inf):
        assert function_cap(view, history(view, (16, 0.9), (16, loss))) <= calm // 2
